import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import { after, before, test } from 'node:test'
import { openSandbox, type Sandbox } from '../lib/sandbox.ts'

// Real accounts and files in a copy of this machine that nobody else sees.
let box: Sandbox
let printed = ''
before(async () => {
  box = await openSandbox()
})
after(() => box.close())

const URL_ = 'http://127.0.0.1:5999'
const CREDENTIALS = '/run/credentials'
const LIST = '/var/lib/fail2ban-perimeter/blocked_ips_list.txt'

async function setup(...args: string[]): Promise<string> {
  const script = resolve('dist/setup.cjs')
  const { code, stdout, stderr } = await box.run(process.execPath, [script, 'fortigate', ...args])
  assert.equal(code, 0, stderr)
  return stdout
}

test('--dry-run changes nothing; the second run has nothing to change', async () => {
  const args = ['--url', URL_, '--systemd', 'yes']
  assert.match(await setup(...args, '--dry-run'), /^would create user fail2ban-feed$/m)
  assert.equal(await box.sh('ls -A /etc/fail2ban-perimeter 2>/dev/null'), '')
  printed = await setup(...args)
  assert.match(printed, /^created .*f2b-fortigate-feed\.service$/m)
  const again = await setup(...args)
  assert.match(again, /^nothing to change$/m)
  assert.equal(again.split('\n\n').slice(1).join(), printed.split('\n\n').slice(1).join())
})

test('an existing configuration keeps every byte and gets the section once', async () => {
  const before = '# mine\nowner: web7   # the name\nfirewalls: []\n'
  await box.sh(`printf '${before}' > /etc/fail2ban-perimeter/config.yaml`)
  await setup('--url', URL_, '--systemd', 'yes')
  await setup('--url', URL_, '--systemd', 'yes')
  const text = await box.sh('cat /etc/fail2ban-perimeter/config.yaml')
  assert.ok(text.startsWith(before))
  assert.equal(text.match(/^fortigate:/gm)?.length, 1)
})

test('what is printed for the device is complete, and holds the secrets that were made', async () => {
  const token = (await box.sh('cat /etc/fail2ban-perimeter/fortigate-webhook.token')).trim()
  const pass = (await box.sh('cat /etc/fail2ban-perimeter/fortigate-feed.pass')).trim()
  assert.ok(token.length >= 32 && pass.length >= 32 && token !== pass)
  for (const logid of [39426, 37124, 37125, 32002])
    assert.match(printed, new RegExp(`set logid ${logid}\\n`))
  assert.match(printed, new RegExp(`set key "X-Webhook-Token"\n +set value "${token}"`))
  assert.match(
    printed,
    new RegExp(`set resource "${URL_}/blocked-ips"\n.*\n +set password "${pass}"`),
  )
  const configs = printed.match(/^config /gm)?.length
  assert.equal(printed.match(/^end$/gm)?.length, configs, 'each config ends')
  assert.equal(printed.match(/^ +edit /gm)?.length, printed.match(/^ +next$/gm)?.length)
  const modes = await box.sh('stat -c "%a %U" /etc/fail2ban-perimeter/fortigate-*')
  assert.equal(modes, '600 root\n600 root\n')
})

test('systemd finds nothing wrong with the unit', async () => {
  const unit = '/etc/systemd/system/f2b-fortigate-feed.service'
  const said = await box.sh(`systemd-analyze verify --man=no ${unit}`)
  assert.doesNotMatch(said, /f2b-fortigate-feed/)
  const score = await box.sh(`systemd-analyze security --offline=yes ${unit} | tail -1`)
  assert.match(score, /level for f2b-fortigate-feed\.service: [0-3]\.\d/)
})

test('the service runs as the account without rights, and the printed action and connector work', async () => {
  await box.sh(`mkdir -p ${CREDENTIALS} /run/history; cp /etc/fail2ban-perimeter/config.yaml /etc/fail2ban-perimeter/fortigate-* ${CREDENTIALS}
    chown -R fail2ban-feed ${CREDENTIALS} /run/history
    CREDENTIALS_DIRECTORY=${CREDENTIALS} STATE_DIRECTORY=/run/history setpriv --reuid fail2ban-feed --regid fail2ban-feed --clear-groups \
      ${process.execPath} /usr/local/lib/fail2ban-perimeter/fortigate-feed.cjs --config ${CREDENTIALS}/config.yaml >/run/feed.log 2>&1 &
    for i in $(seq 50); do curl -sf ${URL_}/healthz && break; sleep 0.1; done`)
  const [, body = ''] = /set http-body "(.*)"$/m.exec(printed) ?? []
  const log: Record<string, string> = {
    logid: '0101039426',
    action: 'ssl-login-fail',
    remip: '203.0.113.7',
  }
  const posted = body
    .replaceAll('\\"', '"')
    .replace(/%%log\.(\w+)%%/g, (_, name) => log[name] ?? '')
  const [, token = ''] = /set value "(.*)"/.exec(printed) ?? []
  const status = await box.run('curl', [
    '-s',
    '-o',
    '/dev/null',
    '-w',
    '%{http_code}',
    '-H',
    `X-Webhook-Token: ${token}`,
    '-H',
    'Content-Type: application/json',
    '--data-binary',
    posted,
    `${URL_}/receive-logs`,
  ])
  assert.equal(status.stdout, '204', await box.sh('cat /run/feed.log'))
  const line = await box.sh('cat /var/lib/fail2ban-perimeter/failed_logins.log')
  assert.match(line, / fortigate: sslvpn failed-login remip=203\.0\.113\.7 /)
  await box.sh(`echo 203.0.113.7 >> ${LIST}`)
  const [, pass = ''] = /set password "(.*)"/.exec(printed) ?? []
  assert.equal(await box.sh(`curl -s -u 'fortigate:${pass}' ${URL_}/blocked-ips`), '203.0.113.7\n')
  assert.match(await box.sh('ps -o user= -C node,MainThread | sort -u'), /fail2b/)
})

test('--uninstall leaves settings, secrets and bans; --purge takes them', async () => {
  await box.sh('pkill -u fail2ban-feed; sleep 0.5')
  assert.match(await setup('--uninstall'), /left .*config\.yaml/)
  assert.equal(await box.sh(`ls /etc/systemd/system/f2b-* 2>/dev/null`), '')
  assert.equal(await box.sh(`cat ${LIST}`), '203.0.113.7\n')
  await setup('--uninstall', '--purge')
  assert.equal(
    await box.sh('ls -A /etc/fail2ban-perimeter /var/lib/fail2ban-perimeter 2>/dev/null'),
    '',
  )
})
