import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type Fail2ban, startFail2ban } from '../../lib/fail2ban.ts'
import { installCommands } from '../../lib/installed.ts'
import { createLab, type Lab, PROJECT } from '../../lib/lab.ts'
import type { Machine } from '../../lib/machine.ts'
import { startNode, type TestNode } from '../../lib/net2ban.ts'

// The firewall side of the project as an action on the same machine: run by a node, and by a real
// Fail2Ban.

const LIB = '/usr/local/lib/fail2ban-perimeter'

describe('action.d/perimeter.conf', { concurrency: 1 }, () => {
  let lab: Lab
  let machine: Machine
  let node: TestNode
  let fail2ban: Fail2ban

  before(async () => {
    lab = await createLab()
    machine = await lab.machine('edge1', { nics: { lan: ['10.9.0.1/24', '2001:db8:9::1/64'] } })
    await installCommands(machine)
    await machine.run(['f2b-setup', 'firewall'])
    fail2ban = await startFail2ban(machine, [{ name: 'sshd', action: 'perimeter[port=ssh]' }])
    await machine.writeFile('/etc/net2ban/perimeter.local', '[Init]\nowner = net2ban\n')
    await machine.sh(`cp ${PROJECT}/action.d/perimeter*.conf /etc/net2ban/`)
    node = await startNode(machine, { actions: '/etc/net2ban' })
  })
  after(async () => {
    await node?.close()
    await lab?.close()
  })

  const now = () => Math.floor(Date.now() / 1000)
  /** What an owner holds, without the ends. */
  const list = async (owner: string): Promise<string[]> => {
    const text = await machine.run([`${LIB}/listips`, '--owner', owner])
    return text
      .split('\n')
      .filter((line) => line)
      .map((line) => line.split(' ').slice(0, 2).join(' '))
      .sort()
  }
  const kernel = () => machine.run(['nft', 'list', 'ruleset'])

  test('a node gets leases, with their ends in the kernel', async () => {
    const ban = { name: 'sshd', port: 'ssh', protocol: 'tcp', bantime: '600' }
    assert.equal(await node.run('perimeter', 'actionban', { ...ban, ip: '192.0.2.7' }), 'ran')
    assert.equal(await node.run('perimeter', 'actionban', { ...ban, ip: '2001:db8::7' }), 'ran')
    assert.deepEqual(await list('net2ban'), ['192.0.2.7 sshd', '2001:db8::7 sshd'])
    assert.match(await kernel(), /192\.0\.2\.7 timeout \S+ expires (9|10)m/)
    const began = String(now() - 300)
    const late = { ...ban, ip: '192.0.2.8', time: began }
    assert.equal(await node.run('perimeter', 'actionban', late), 'ran')
    const lease = await machine.sh(`${LIB}/listips --owner net2ban | grep 192.0.2.8`)
    assert.equal(lease.split(' ')[2], String(Number(began) + 600))
    const longer = { ...ban, ip: '192.0.2.7', bantime: '1200' }
    assert.equal(await node.run('perimeter', 'actionprolong', longer), 'ran')
    assert.match(await kernel(), /192\.0\.2\.7 timeout \S+ expires (19|20)m/)
  })

  test('what Fail2Ban on the same machine bans as well stays blocked until both let go', async () => {
    await fail2ban.client('set', 'sshd', 'banip', '192.0.2.7')
    assert.deepEqual(await list('fail2ban'), ['192.0.2.7 sshd'])
    await node.run('perimeter', 'actionunban', { name: 'sshd', ip: '192.0.2.7' })
    assert.match(await kernel(), /192\.0\.2\.7 /)
    await fail2ban.client('set', 'sshd', 'unbanip', '192.0.2.7')
    assert.doesNotMatch(await kernel(), /192\.0\.2\.7 /)
  })

  test('refuses what the firewall never bans', async () => {
    await machine.sh(`sed -i 's/^never_ban:.*/never_ban: ["203.0.113.0\\/28"]/' \\
      /etc/fail2ban-perimeter/firewall.yaml`)
    const ban = { name: 'sshd', ip: '203.0.113.5', port: 'ssh' }
    const { code, error } = await node.ask('run', 'perimeter', 'actionban', ban)
    assert.equal(code, 65)
    assert.match(error ?? '', /never_ban/)
    const leases = [
      ['203.0.113.5', 0] as const,
      ['192.0.2.8', 0] as const,
      ['2001:db8::7', 0] as const,
    ]
    const { result } = await node.ask('sync', 'perimeter', 'sshd', leases, {})
    assert.deepEqual(result, { added: 0, extended: 2, removed: 0, unchanged: 0, refused: 1 })
    assert.doesNotMatch(await kernel(), /@.*203\.0\.113\.5/)
    assert.deepEqual(await list('net2ban'), ['192.0.2.8 sshd', '2001:db8::7 sshd'])
  })

  test('a flush releases one jail of one owner, and a check restores what was taken away', async () => {
    await node.run('perimeter', 'actionban', { name: 'web', ip: '192.0.2.9', port: '80' })
    await fail2ban.client('set', 'sshd', 'banip', '192.0.2.8')
    await node.run('perimeter', 'actionflush', { name: 'sshd' })
    assert.deepEqual(await list('net2ban'), ['192.0.2.9 web'])
    assert.match(await kernel(), /192\.0\.2\.8 /)
    await machine.run(['nft', 'flush', 'ruleset'])
    assert.equal(await node.run('perimeter', 'actioncheck', { name: 'web' }), 'ran')
    assert.match(await kernel(), /192\.0\.2\.9/)
  })

  test('Fail2Ban prolongs, flushes, and finds its bans again after a restart', async () => {
    await fail2ban.client('set', 'sshd', 'banip', '192.0.2.10')
    await fail2ban.client('unban', '--all')
    assert.deepEqual(await list('fail2ban'), [])
    assert.deepEqual(await list('net2ban'), ['192.0.2.9 web'])
    await fail2ban.client('set', 'sshd', 'banip', '192.0.2.11')
    await fail2ban.stop()
    await fail2ban.start()
    await fail2ban.logged('[sshd] Restore Ban 192.0.2.11')
    assert.doesNotMatch(await fail2ban.log(), / ERROR |CRITICAL/)
  })
})
