import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type Fail2ban, startFail2ban } from './lib/fail2ban.ts'
import { installPerimeter } from './lib/installed.ts'
import { addressOf, createPerimeter, type Perimeter } from './lib/perimeter.ts'
import { type Sshd, startSshd } from './lib/ssh.ts'
import { canConnect, listen, probe } from './lib/traffic.ts'
import { waitUntil } from './lib/wait.ts'

const ATTACKER = addressOf('attacker1', 'outside')
const ATTACKER6 = addressOf('attacker1', 'outside', 'inet6')
const ACTION = 'iptables-remote[name=%(__name__)s, port="%(port)s", protocol="%(protocol)s"]'

for (const backend of ['nftables', 'ipset', 'iptables'] as const) {
  describe(`a perimeter with ${backend}`, () => {
    let lab: Perimeter
    let sshd: Sshd
    let fail2ban: Fail2ban

    before(async () => {
      lab = await createPerimeter({ servers: 2 })
      ;[sshd] = (await installPerimeter(lab, { backend })) as [Sshd]
      for (const server of lab.servers) await listen(server, { tcp: [22, 80] })
      fail2ban = await startFail2ban(lab.server, [{ name: 'sshd', action: ACTION, maxretry: 2 }])
    })
    after(() => lab.close())

    const reaches = (source: string, server = 'web1', port = 22) => {
      const family = source.includes(':') ? 'inet6' : 'inet4'
      return canConnect(lab.attacker, { source, to: addressOf(server, 'inside', family), port })
    }
    const blocked = (source: string, server = 'web1') =>
      waitUntil(`${source} to be blocked`, async () => !(await reaches(source, server)))
    const free = (source: string, server = 'web1') =>
      waitUntil(`${source} to be free`, () => reaches(source, server))

    for (const [family, source] of [
      ['IPv4', ATTACKER],
      ['IPv6', ATTACKER6],
    ] as const) {
      test(`a ${family} attacker that Fail2Ban finds is blocked for every server`, async () => {
        assert.equal(await reaches(source), true)
        await fail2ban.failLogin(source, { times: 2 })
        await fail2ban.logged(`[sshd] Ban ${source}`)
        await blocked(source, 'web1')
        await blocked(source, 'web2')
        assert.equal(await reaches(source, 'web1', 80), true, 'only the ports of the jail')
        await fail2ban.client('set', 'sshd', 'unbanip', source)
        await free(source)
      })
    }

    test('a ban ends by itself, without Fail2Ban', async () => {
      await lab.server.run(['banip', 'fail2ban-sshd', ATTACKER, 'ssh', 'tcp', '--bantime', '4'])
      await blocked(ATTACKER)
      // The kernel ends it; for the iptables backend a timer runs the sweeper, here we do.
      const sweep = '/usr/local/lib/fail2ban-perimeter/sweepips'
      await waitUntil(
        'the end of the lease',
        async () => {
          if (backend === 'iptables') await lab.firewall.run([sweep])
          return await reaches(ATTACKER)
        },
        { every: 200 },
      )
    })

    test('the last owner releases', async () => {
      for (const server of lab.servers) {
        await server.run(['banip', 'fail2ban-sshd', ATTACKER, '22', 'tcp'])
      }
      await lab.server.run(['unbanip', 'fail2ban-sshd', ATTACKER])
      await blocked(ATTACKER)
      await lab.servers[1]?.run(['f2b-firewall', 'flush'])
      await free(ATTACKER)
    })

    test('20 identical bans in parallel leave one block and one jump', async () => {
      const ban = ['banip', 'fail2ban-twenty', '203.0.113.20', '22', 'tcp']
      const results = await Promise.all(Array.from({ length: 20 }, () => lab.server.exec(ban)))
      assert.deepEqual(
        new Set(results.map(({ code, stderr }) => `${code} ${stderr}`)),
        new Set(['0 ']),
      )
      const rules = await lab.firewall.sh(
        backend === 'nftables' ? 'nft list table inet fail2ban-perimeter' : 'iptables -S',
      )
      const jump = backend === 'nftables' ? /jump fail2ban-twenty/g : /-j fail2ban-twenty/g
      // From each hook, or from the index of all banned addresses.
      assert.ok([1, 2].includes(rules.match(jump)?.length ?? 0), rules)
      const list = await lab.server.run(['f2b-firewall', 'list', '--name', 'twenty'])
      assert.equal(list, '203.0.113.20 twenty 0 web1\n')
      await lab.server.run(['f2b-firewall', 'flush', '--name', 'twenty'])
    })

    test('20 callers at once all succeed, also when none has a connection yet', async () => {
      for (const start of ['stop', 'start']) {
        await lab.server.run(['f2b-firewall', start])
        const bans = Array.from({ length: 20 }, (_, i) =>
          lab.server.exec(['banip', 'fail2ban-many', `198.51.100.${100 + i}`, '22', 'tcp']),
        )
        const failed = (await Promise.all(bans)).filter(({ code }) => code !== 0)
        assert.deepEqual(failed, [])
      }
      const list = await lab.server.run(['f2b-firewall', 'list', '--name', 'many'])
      assert.equal(list.trim().split('\n').length, 20)
      await lab.server.run(['f2b-firewall', 'flush', '--name', 'many'])
    })

    test('a banned address cannot get in while the firewall reboots', async () => {
      await lab.server.run(['banip', 'fail2ban-sshd', ATTACKER, 'ssh', 'tcp'])
      await blocked(ATTACKER)
      const packets = await probe(lab.attacker, {
        source: ATTACKER,
        to: addressOf('web1', 'inside'),
        port: 22,
        kind: 'tcp',
      })
      const restore = ['/usr/local/lib/fail2ban-perimeter/restorefw']
      await lab.firewall.reboot({ beforeNetwork: () => lab.firewall.run(restore) })
      await lab.server.exec(['sleep', '0.5'])
      const { sent, answered } = await packets.stop()
      assert.ok(sent > 20, `${sent} packets sent`)
      assert.deepEqual(answered, [])
      sshd = await startSshd(lab.firewall)
      const check = await lab.server.exec(['f2b-firewall', 'check'])
      assert.deepEqual(check, { code: 0, stdout: '', stderr: '' })
      await lab.server.run(['unbanip', 'fail2ban-sshd', ATTACKER])
      await free(ATTACKER)
    })

    test('what somebody flushed is restored by the next check', async () => {
      await lab.server.run(['banip', 'fail2ban-sshd', ATTACKER, 'ssh', 'tcp'])
      await lab.firewall.sh('nft flush ruleset')
      await free(ATTACKER)
      const check = await lab.server.run(['f2b-firewall', 'check', '--verbose'])
      assert.equal(check, '')
      await blocked(ATTACKER)
      await lab.server.run(['unbanip', 'fail2ban-sshd', ATTACKER])
    })

    test('a firewall that lost everything asks for a sync, and Fail2Ban restores it', async () => {
      await fail2ban.client('set', 'sshd', 'banip', ATTACKER)
      await blocked(ATTACKER)
      await lab.firewall.sh('nft flush ruleset; rm /var/lib/fail2ban-perimeter/firewall.leases')
      const lost = await lab.server.exec(['f2b-firewall', 'check'])
      assert.equal(lost.code, 75)
      assert.match(lost.stderr, /^firewall: Cannot check on "edge1": lost generation.*\n$/)
      assert.match(await lab.server.run(['f2b-sync']), /added 1, extended 0, removed 0/)
      await blocked(ATTACKER)
      assert.equal((await lab.server.exec(['f2b-firewall', 'check'])).code, 0)
      assert.match(
        await lab.server.run(['f2b-sync']),
        /added 0, extended 0, removed 0, unchanged 1/,
      )
    })

    test('restarting Fail2Ban opens no gap', async () => {
      await blocked(ATTACKER)
      const packets = await probe(lab.attacker, {
        source: ATTACKER,
        to: addressOf('web2', 'inside'),
        port: 22,
      })
      await fail2ban.stop()
      await fail2ban.start()
      await fail2ban.logged(`[sshd] Restore Ban ${ATTACKER}`)
      await lab.server.exec(['sleep', '3'])
      const { sent, answered } = await packets.stop()
      assert.ok(sent > 20)
      assert.deepEqual(answered, [])
    })

    test('unbanning everybody frees within seconds', async () => {
      await fail2ban.client('unban', '--all')
      await free(ATTACKER)
    })

    test('a frozen firewall and a dead one end within the deadline', async () => {
      await lab.server.run(['f2b-firewall', 'start'])
      const began = performance.now()
      sshd.freeze()
      const frozen = await lab.server.exec(['banip', 'fail2ban-sshd', '203.0.113.77', '22', 'tcp'])
      sshd.thaw()
      assert.ok([69, 75].includes(frozen.code), frozen.stderr)
      await sshd.stop()
      const dead = await lab.server.exec(['banip', 'fail2ban-sshd', '203.0.113.77', '22', 'tcp'])
      assert.equal(dead.code, 69)
      assert.match(dead.stderr, /^banip: Cannot ban "203.0.113.77" on "edge1": .*\n$/)
      assert.ok(performance.now() - began < 45_000)
    })
  })
}

test('one of two firewalls that is away does not keep the other from blocking', async () => {
  const lab = await createPerimeter({ firewalls: 2 })
  try {
    await installPerimeter(lab)
    await listen(lab.server, { tcp: [22] })
    await lab.network.cut(lab.firewalls[1] ?? lab.firewall, 'mgmt')
    const ban = await lab.server.exec(['banip', 'fail2ban-sshd', ATTACKER, '22', 'tcp'])
    assert.equal(ban.code, 69)
    assert.match(ban.stderr, /^banip: Cannot ban ".*" on "edge2": cannot connect.*\n$/)
    const path = { source: ATTACKER, to: addressOf('web1', 'inside'), port: 22 }
    assert.equal(await canConnect(lab.attacker, path), false)
  } finally {
    await lab.close()
  }
})
