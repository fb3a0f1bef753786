import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { installDocument } from './lib/document.ts'
import { startFail2ban } from './lib/fail2ban.ts'
import { addressOf, createPerimeter, type Perimeter } from './lib/perimeter.ts'
import { startSshd } from './lib/ssh.ts'
import { canConnect, connect, listen } from './lib/traffic.ts'
import { waitUntil } from './lib/wait.ts'

const ATTACKER = addressOf('attacker1', 'outside')
const DOCUMENT_ACTION = 'document[name=web, port=80, protocol=tcp]'

/** From the attacker to the server, through the firewall. */
function path(family: 'inet4' | 'inet6', port = 80) {
  const source = addressOf('attacker1', 'outside', family)
  return { source, to: addressOf('web1', 'inside', family), port }
}

describe('lab services', () => {
  let lab: Perimeter
  before(async () => {
    lab = await createPerimeter()
    await listen(lab.server, { tcp: [22, 80] })
  })
  after(() => lab.close())

  test('fail2ban bans after a line in a log, and remembers', async () => {
    const action = 'nftables-multiport[name=sshd, port=ssh]'
    const fail2ban = await startFail2ban(lab.server, [{ name: 'sshd', action, maxretry: 2 }])
    await fail2ban.failLogin(ATTACKER, { times: 2 })
    await fail2ban.logged(`[sshd] Ban ${ATTACKER}`)
    await waitUntil('the ban', async () => !(await canConnect(lab.attacker, path('inet4', 22))))
    assert.equal(await connect(lab.attacker, path('inet4', 22)), 'refused')
    assert.equal(await canConnect(lab.attacker, path('inet4', 80)), true)
    assert.equal(await canConnect(lab.attacker, path('inet6', 22)), true)
    await fail2ban.stop()
    assert.equal(await canConnect(lab.attacker, path('inet4', 22)), true)
    await fail2ban.start()
    await fail2ban.logged(`[sshd] Restore Ban ${ATTACKER}`)
    fail2ban.kill()
    await fail2ban.start()
    await fail2ban.stop()
  })

  for (const shared of [false, true]) {
    test(`the document blocks packets${shared ? ' over a shared connection' : ''}`, async () => {
      const fresh = await createPerimeter()
      try {
        await listen(fresh.server, { tcp: [22] })
        const sshd = await startSshd(fresh.firewall)
        const options = { shared, repaired: shared }
        const document = await installDocument(fresh.server, fresh.firewall, sshd, options)
        await document.ban('fail2ban-sshd', ATTACKER)
        assert.equal(await connect(fresh.attacker, path('inet4', 22)), 'silent')
        await document.ban('fail2ban-sshd', '203.0.113.7')
        const jumps = await fresh.firewall.sh('iptables -S FORWARD | grep -c fail2ban-sshd')
        assert.equal(jumps, shared ? '1\n' : '2\n')
        sshd.freeze()
        const hanging = await fresh.server.exec(['ssh', 'edge1', 'true'], { timeout: 300 })
        assert.equal(hanging.code, 124)
        sshd.thaw()
        await document.unban('fail2ban-sshd', ATTACKER)
        assert.equal(await canConnect(fresh.attacker, path('inet4', 22)), true)
        await sshd.stop()
        await assert.rejects(document.unban('fail2ban-sshd', ATTACKER), /exit code 255/)
      } finally {
        await fresh.close()
      }
    })
  }

  test('fail2ban bans with the document', async () => {
    const sshd = await startSshd(lab.firewall)
    await installDocument(lab.server, lab.firewall, sshd)
    const fail2ban = await startFail2ban(lab.server, [{ name: 'web', action: DOCUMENT_ACTION }])
    await fail2ban.failLogin(ATTACKER)
    await waitUntil('the ban', async () => !(await canConnect(lab.attacker, path('inet4'))))
    await fail2ban.client('set', 'web', 'unbanip', ATTACKER)
    assert.equal(await canConnect(lab.attacker, path('inet4')), true)
  })
})
