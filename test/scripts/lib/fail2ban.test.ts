import assert from 'node:assert/strict'
import { test } from 'node:test'
import { askFail2Ban } from '../../../scripts/lib/fail2ban.ts'
import { formatLease } from '../../../scripts/lib/lease.ts'
import { standInFail2Ban } from '../../lib/standin-fail2ban.ts'

const fail2ban = standInFail2Ban()
const OURS = /\bf2b-firewall\b/

async function ask() {
  const jails = await askFail2Ban({ client: fail2ban.client }, 'web1', (command) =>
    OURS.test(command),
  )
  return jails.map((jail) => ({ ...jail, leases: jail.leases.map(formatLease) }))
}

test('askFail2Ban() knows the jails with an action of ours, its ports, and whom they ban', async () => {
  fail2ban.jails({
    sshd: { bans: ['203.0.113.7 \t2033-05-18 03:33:20 + 600 = 2033-05-18 03:43:20'] },
    'web-auth': { bans: ['2001:db8::7 \t2033-05-18 03:33:20 + -1 = 9999-12-31 23:59:59'] },
    other: { actionban: 'iptables -I ...', bans: ['203.0.113.8 \t2033-05-18 03:33:20 + 5 = x y'] },
  })
  const command = 'f2b-firewall ban --ip "<ip>"'
  const actions = [{ command, ports: 'ssh, 2222', protocol: 'tcp' }]
  const end = Date.parse('2033-05-18T03:33:20') / 1000 + 600
  assert.deepEqual(await ask(), [
    { name: 'sshd', leases: [`203.0.113.7 sshd ${end} web1`], actions },
    { name: 'web-auth', leases: ['2001:db8::7 web-auth 0 web1'], actions },
  ])
})

test('askFail2Ban() counts the stored bans, too, of the jails that there are', async () => {
  fail2ban.jails({ sshd: { bans: [] } })
  fail2ban.store([
    ['sshd', '203.0.113.9', 4_000_000_000, 60],
    ['sshd', 'not.an.address', 4_000_000_000, 60],
    ['gone', '203.0.113.9', 4_000_000_000, -1],
  ])
  const [sshd] = await ask()
  assert.deepEqual(sshd?.leases, ['203.0.113.9 sshd 4000000060 web1'])
})

test('askFail2Ban() leaves out what is no address, and asks nothing if there is no jail', async () => {
  fail2ban.jails({ sshd: { bans: ['example.com \t2033-05-18 03:33:20 + 5 = x y', 'nonsense'] } })
  assert.deepEqual((await ask())[0]?.leases, [])
  fail2ban.jails({})
  assert.deepEqual(await ask(), [])
})

test('askFail2Ban() fails with 75 while Fail2Ban is down, not there or half way', async () => {
  const message = /^Cannot ask Fail2Ban: Failed to access socket path: \S+\. Is fail2ban running\?$/
  fail2ban.down()
  await assert.rejects(ask(), { code: 75, message })
  const missing = askFail2Ban({ client: '/none/such' }, 'web1', (command) => OURS.test(command))
  await assert.rejects(missing, { code: 75, message: /^Cannot ask Fail2Ban: / })
  const silent = askFail2Ban({ client: 'true' }, 'web1', (command) => OURS.test(command))
  await assert.rejects(silent, { code: 75, message: 'Cannot ask Fail2Ban: it does not answer' })
})

test('askFail2Ban() fails with 75 if the database cannot be read: those bans are not over', async () => {
  fail2ban.jails({ sshd: { bans: [] } })
  fail2ban.breakStore()
  const message = /^Cannot read Fail2Ban's database "\/tmp\/.*": .*/
  await assert.rejects(ask(), { code: 75, message })
})

test('askFail2Ban() passes socket and configuration on', async () => {
  fail2ban.jails({})
  const places = { socket: '/run/my.sock', config_dir: '/etc/my fail2ban' }
  await askFail2Ban({ client: fail2ban.client, ...places }, 'web1', (command) => OURS.test(command))
  assert.deepEqual(fail2ban.options(), ['-s', '/run/my.sock', '-c', '/etc/my fail2ban', '-i'])
})
