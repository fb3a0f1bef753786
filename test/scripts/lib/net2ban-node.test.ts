import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createLab, type Lab } from '../../lib/lab.ts'
import type { Machine } from '../../lib/machine.ts'
import { rulesOf, startNode, type TestNode } from '../../lib/net2ban.ts'
import { waitUntil } from '../../lib/wait.ts'

// A node on a machine of its own, over real iptables, nft, ipset and routes.

const ACTIONS = '/etc/fail2ban/action.d'
const M = 'iptables-multiport'

/** An action whose rules are the lines of a file, and that is not idempotent at all. */
const LINES = `[Definition]
actionstart = echo "start <name> <port>" >>/root/log
actionstop = echo "stop <name> <port>" >>/root/log; rm -f /root/lines-<name>
actioncheck =
actionban = echo "ban <ip> <bantime>" >>/root/log; echo "<ip> <zone>" >>/root/lines-<name>
actionunban = grep -q "^<ip> " /root/lines-<name> && sed -i "0,\\|^<ip> |{\\|^<ip> |d}" /root/lines-<name>
[Init]
zone = public
tool = cat
number = 5
phrase = two words
empty =
path = /bin/sh
`

describe('a node', { concurrency: 1 }, () => {
  let lab: Lab
  let machine: Machine
  let node: TestNode

  before(async () => {
    lab = await createLab()
    machine = await lab.machine('node', { nics: { lan: ['10.9.0.2/24', '2001:db8:9::2/64'] } })
  })
  after(() => lab.close())
  beforeEach(async () => {
    await node?.close()
    await machine.reboot()
    await machine.sh(`rm -rf /var/lib/net2ban /root/log /root/lines*`)
    await machine.writeFile(`${ACTIONS}/lines.conf`, LINES)
    node = await startNode(machine)
  })

  const now = () => Math.floor(Date.now() / 1000)
  const blocked = async (chain: string): Promise<string[]> => {
    const text = await machine.sh(`iptables -S ${chain} 2>/dev/null || true`)
    return [...text.matchAll(/-s (\S+)\/32 /g)].map(([, ip = '']) => ip).sort()
  }
  const lines = async (name: string): Promise<string[]> => {
    const text = await machine.sh(`cat /root/lines-${name} 2>/dev/null || true`)
    return text.split('\n').filter((line) => line)
  }
  const found = async (command: string): Promise<string[]> => {
    return ((await machine.sh(command)).match(/\d+\.\d+\.\d+\.\d+/g) ?? []).sort()
  }
  const leases = async () => (await node.ask('leases')).result as string[]
  const again = async (): Promise<void> => {
    await node.close()
    node = await startNode(machine)
  }
  const fails = async (code: number, ...wish: unknown[]): Promise<string> => {
    const answer = await node.ask(...wish)
    assert.equal(answer.code, code, JSON.stringify(answer))
    assert.doesNotMatch(answer.error ?? '', /\n/)
    return answer.error ?? ''
  }

  test('remembers the parameters of the start for bans that name only an address', async () => {
    const start = { name: 'web', chain: 'FORWARD', protocol: 'tcp', port: '80,443' }
    assert.equal(await node.run(M, 'actionstart', start), 'ran')
    assert.equal(await node.run(M, 'actionstart', start), 'held')
    await again()
    assert.equal(await node.run(M, 'actionban', { name: 'web', ip: '192.0.2.7' }), 'ran')
    assert.match(
      await rulesOf(machine),
      /-A FORWARD -p tcp -m multiport --dports 80,443 -j f2b-web/,
    )
    assert.equal(await node.run(M, 'actionstop', { name: 'web' }), 'ran')
    assert.doesNotMatch(await rulesOf(machine), /f2b-web/)
    assert.deepEqual(await leases(), [])
    assert.equal(await node.run(M, 'actionstop', { name: 'web' }), 'held')
  })

  test('runs a ban and an unban once, however often they come', async () => {
    const ban = { name: 'a', ip: '192.0.2.7', bantime: '600' }
    assert.equal(await node.run(M, 'actionban', ban), 'ran')
    assert.equal(await node.run(M, 'actionban', ban), 'held')
    assert.equal(await node.run(M, 'actionban', { ...ban, bantime: '60' }), 'held')
    await again()
    assert.equal(await node.run(M, 'actionban', ban), 'held')
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.7'])
    const unban = { name: 'a', ip: '192.0.2.7' }
    assert.equal(await node.run(M, 'actionunban', unban), 'ran')
    assert.equal(await node.run(M, 'actionunban', unban), 'held')
    assert.equal(await node.run(M, 'actionunban', { name: 'b', ip: '192.0.2.7' }), 'held')
    assert.deepEqual(await blocked('f2b-a'), [])
  })

  test('extends a ban without touching it, and ends it by itself', async () => {
    await node.run(M, 'actionban', { name: 'a', ip: '192.0.2.7', bantime: '2' })
    await node.run(M, 'actionban', { name: 'a', ip: '192.0.2.8', bantime: '2' })
    const longer = { name: 'a', ip: '192.0.2.8', bantime: '900' }
    assert.equal(await node.run(M, 'actionprolong', longer), 'held')
    const next = (await node.ask('expire')).result as number
    assert.ok(next >= now() && next <= now() + 3, String(next))
    await waitUntil('the end of a ban', () => now() >= next)
    const then = (await node.ask('expire')).result as number
    assert.ok(then > now() + 800)
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.8'])
    const began = String(now() - 700)
    assert.equal(await node.run(M, 'actionban', { ...longer, ip: '192.0.2.9', time: began }), 'ran')
    const over = { ...longer, time: String(now() - 900), ip: '192.0.2.10' }
    assert.equal(await node.run(M, 'actionban', over), 'over')
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.8', '192.0.2.9'])
  })

  test('bans again, longer, where the action is told how long', async () => {
    await node.run('lines', 'actionban', { name: 'a', ip: '192.0.2.7', bantime: '60' })
    await node.run('lines', 'actionban', { name: 'a', ip: '192.0.2.7', bantime: '600' })
    assert.deepEqual(await lines('a'), ['192.0.2.7 public'])
    assert.match(
      await machine.readFile('/root/log'),
      /ban 192.0.2.7 60\n(.*\n)*ban 192.0.2.7 600\n/,
    )
  })

  test('keeps two jails of one file apart', async () => {
    await node.run(M, 'actionban', { name: 'a', ip: '192.0.2.7' })
    await node.run(M, 'actionban', { name: 'b', ip: '192.0.2.7' })
    await node.run(M, 'actionunban', { name: 'a', ip: '192.0.2.7' })
    assert.deepEqual(await blocked('f2b-b'), ['192.0.2.7'])
    assert.deepEqual(await leases(), ['192.0.2.7 iptables-multiport:b 0'])
  })

  test('builds a jail anew when it is started with other parameters, or its file changes', async () => {
    await node.run(M, 'actionstart', { name: 'a', port: '22' })
    await node.run(M, 'actionban', { name: 'a', ip: '192.0.2.7' })
    assert.equal(await node.run(M, 'actionstart', { name: 'a', port: '2222' }), 'ran')
    const rules = await rulesOf(machine)
    assert.match(rules, /--dports 2222 -j f2b-a/)
    assert.doesNotMatch(rules, /--dports 22 /)
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.7'])
    await machine.writeFile(`${ACTIONS}/${M}.local`, '[Init]\nblocktype = DROP\n')
    await node.run(M, 'actionban', { name: 'a', ip: '192.0.2.8' })
    const after = await rulesOf(machine)
    await machine.sh(`rm ${ACTIONS}/${M}.local`)
    assert.match(after, /192.0.2.7\/32 -j DROP/)
    assert.doesNotMatch(after, /REJECT/)
  })

  test('puts everything in force back after a reboot, and nothing that is over', async () => {
    for (const file of [M, 'nftables', 'route', 'iptables-ipset-proto6']) {
      await node.run(file, 'actionstart', { name: file.slice(0, 5), port: '22' })
      for (const ip of ['192.0.2.7', '2001:db8::7']) {
        await node.run(file, 'actionban', { name: file.slice(0, 5), ip, bantime: '600' })
      }
      await node.run(file, 'actionban', { name: file.slice(0, 5), ip: '192.0.2.99', bantime: '1' })
      await node.run(file, 'actionunban', { name: file.slice(0, 5), ip: '192.0.2.99' })
    }
    const before = await rulesOf(machine)
    await node.run(M, 'actionban', { name: M.slice(0, 5), ip: '192.0.2.8', bantime: '1' })
    const end = now() + 2
    await node.close()
    await machine.reboot()
    assert.doesNotMatch(await rulesOf(machine), /192\.0\.2/)
    await waitUntil('the end of the last lease', () => now() >= end)
    node = await startNode(machine)
    const { log } = await node.ask('leases')
    assert.equal(await rulesOf(machine), before, log.join('\n'))
  })

  test('restores what somebody took away, when it notices', async () => {
    for (const ip of ['192.0.2.7', '192.0.2.8']) await node.run(M, 'actionban', { name: 'a', ip })
    await machine.sh('iptables -F; iptables -X')
    assert.equal(await node.run(M, 'actionban', { name: 'a', ip: '192.0.2.9' }), 'ran')
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.7', '192.0.2.8', '192.0.2.9'])
    await machine.sh('iptables -F; iptables -X')
    assert.equal(await node.run(M, 'actioncheck', { name: 'a' }), 'ran')
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.7', '192.0.2.8', '192.0.2.9'])
    await machine.sh('iptables -F; iptables -X')
    assert.equal(await node.run(M, 'actionunban', { name: 'a', ip: '192.0.2.9' }), 'ran')
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.7', '192.0.2.8'])
    await machine.sh('iptables -F; iptables -X')
    await again()
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.7', '192.0.2.8'])
    await machine.sh('iptables -F; iptables -X')
    assert.equal(await node.run(M, 'actionstart', { name: 'a' }), 'ran')
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.7', '192.0.2.8'])
    await machine.sh('iptables -F; iptables -X')
    assert.equal(await node.run(M, 'actionstart', { name: 'a' }), 'ran')
    assert.equal(await node.run(M, 'actionstart', { name: 'a' }), 'held')
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.7', '192.0.2.8'])
    await machine.sh('iptables -D f2b-a -s 192.0.2.7 -j REJECT')
    assert.equal(await node.run(M, 'actionunban', { name: 'a', ip: '192.0.2.7' }), 'ran')
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.8'])
  })

  test('makes a jail exactly what a sync says', async () => {
    const end = now() + 600
    const wanted: [string, number][] = [
      ['192.0.2.1', end],
      ['192.0.2.2', 0],
      ['2001:db8::2', end],
      ['127.0.0.1', end],
      ['192.0.2.4', 1700000000],
    ]
    const first = await node.ask('sync', M, 'a', wanted, { port: '22' })
    const counts = { added: 3, extended: 0, removed: 0, unchanged: 0, refused: 1 }
    assert.deepEqual(first.result, counts)
    await node.run(M, 'actionban', { name: 'b', ip: '192.0.2.50' })
    const next: [string, number][] = [
      ['192.0.2.2', 0],
      ['192.0.2.1', end + 60],
      ['192.0.2.3', end],
    ]
    const second = await node.ask('sync', M, 'a', next, {})
    assert.deepEqual(second.result, { added: 1, extended: 1, removed: 1, unchanged: 1 })
    assert.deepEqual(await blocked('f2b-a'), ['192.0.2.1', '192.0.2.2', '192.0.2.3'])
    assert.deepEqual(await blocked('f2b-b'), ['192.0.2.50'])
    const last = await node.ask('sync', M, 'a', [], {})
    assert.deepEqual(last.result, { added: 0, extended: 0, removed: 3, unchanged: 0 })
  })

  test('never bans what nobody may ban, and says so', async () => {
    for (const ip of ['127.0.0.1', '::1', '10.9.0.2', '0.0.0.0', '10.0.0.0/8', '2001:db8::/32']) {
      await fails(65, 'run', M, 'actionban', { name: 'a', ip })
    }
    assert.equal((await rulesOf(machine)).includes('f2b-a'), false)
  })

  test('lets a parameter set public [Init] tags only, whatever the value', async () => {
    const set = (params: Record<string, string>) => [
      'run',
      'lines',
      'actionstart',
      { name: 'a', ...params },
    ]
    for (const [tag, value] of [
      ['tool', 'sh'],
      ['tool', 'harmless'],
      ['zone', 'reboot'],
      ['zone', 'eval'],
      ['phrase', 'one'],
      ['empty', 'one'],
      ['path', 'one'],
      ['nothing', 'one'],
      ['constructor', 'one'],
    ] as const) {
      await fails(65, ...set({ [tag]: value }))
    }
    await fails(78, 'run', 'no-such-file', 'actionban', { ip: '192.0.2.7' })
    await fails(78, 'run', 'firewallcmd-common', 'actionban', { ip: '192.0.2.7' })
    assert.equal((await node.ask(...set({ zone: 'dmz', number: '7' }))).result, 'ran')
    await node.run('lines', 'actionban', { name: 'a', ip: '192.0.2.7' })
    assert.deepEqual(await lines('a'), ['192.0.2.7 dmz'])
  })

  test('is held up neither by an action that hangs, nor one that talks, nor a child of one', async () => {
    await machine.writeFile(
      `${ACTIONS}/hang.conf`,
      '[Definition]\nactionban = trap "" TERM; sleep 300\nactionunban =\n[Init]\ntimeout = 1\n',
    )
    const talk =
      'yes "a long line of output" | head -c 3000000; yes | head -c 3000000 >&2; sleep 300 &'
    await machine.writeFile(
      `${ACTIONS}/talk.conf`,
      `[Definition]\nactionban = ${talk}\nactionunban =\n`,
    )
    const said = await fails(75, 'run', 'hang', 'actionban', { ip: '192.0.2.7' })
    assert.match(said, /killed after 1 seconds/)
    assert.equal(await node.run('talk', 'actionban', { ip: '192.0.2.7' }), 'ran')
    assert.deepEqual(await leases(), ['192.0.2.7 talk:default 0'])
    machine.signal('sleep', 'SIGKILL')
  })

  test('takes a ban back that could not be carried out', async () => {
    await machine.writeFile(
      `${ACTIONS}/half.conf`,
      `[Definition]
actionban = echo "<ip>" >>/root/lines-half; test -e /root/works
actionunban = sed -i "\\|^<ip>$|d" /root/lines-half
`,
    )
    const wish = ['run', 'half', 'actionban', { ip: '192.0.2.7' }]
    await fails(75, ...wish)
    assert.deepEqual(await lines('half'), [])
    assert.deepEqual(await leases(), [])
    await machine.sh('touch /root/works')
    assert.equal((await node.ask(...wish)).result, 'ran')
    assert.deepEqual(await lines('half'), ['192.0.2.7'])
  })

  test('an unban that fails for a while leaves nothing behind, however often it was tried', async () => {
    const stuck = 'test ! -e /root/stuck &&'
    await machine.writeFile(
      `${ACTIONS}/lines.local`,
      `[Definition]\nactionunban = ${stuck} %(known/actionunban)s\n`,
    )
    await machine.writeFile(
      `${ACTIONS}/${M}.local`,
      `[Definition]\nactionunban = ${stuck} <iptables> -D f2b-<name> -s <ip> -j <blocktype>\n`,
    )
    for (const file of ['lines', M]) {
      for (const ip of ['192.0.2.7', '192.0.2.8', '192.0.2.9'])
        await node.run(file, 'actionban', { name: 'a', ip })
      await machine.sh('touch /root/stuck')
      const unban = ['run', file, 'actionunban', { name: 'a', ip: '192.0.2.7' }]
      for (let i = 0; i < 4; i++) await fails(75, ...unban)
      await again()
      for (let i = 0; i < 3; i++) await fails(75, 'sync', file, 'a', [['192.0.2.8', 0]], {})
      assert.equal((await leases()).length, 3)
      await machine.sh('rm /root/stuck')
      assert.equal((await node.ask(...unban)).result, 'ran')
      const { result } = await node.ask('sync', file, 'a', [['192.0.2.8', 0]], {})
      assert.deepEqual(result, { added: 0, extended: 0, removed: 1, unchanged: 1 })
      const left = file === M ? await blocked('f2b-a') : await lines('a')
      assert.deepEqual(left, [file === M ? '192.0.2.8' : '192.0.2.8 public'])
      await node.run(file, 'actionflush', { name: 'a' })
    }
    await machine.sh(`rm ${ACTIONS}/lines.local ${ACTIONS}/${M}.local`)
  })

  test('what cannot be removed while a jail is built anew is there once afterwards, or removed', async () => {
    const flush = 'actionflush = test ! -e /root/stuck && <iptables> -F f2b-<name>'
    const unban = 'actionunban = test ! -e /root/stuck && %(known/actionunban)s'
    await machine.writeFile(`${ACTIONS}/${M}.local`, `[Definition]\n${flush}\n`)
    await machine.writeFile(`${ACTIONS}/lines.local`, `[Definition]\n${unban}\nactionstop =\n`)
    for (const file of ['lines', M]) {
      for (const ip of ['192.0.2.7', '192.0.2.8'])
        await node.run(file, 'actionban', { name: 'a', ip })
      await machine.sh('touch /root/stuck')
      for (const port of ['1', '2']) {
        await node.ask('run', file, 'actionstart', { name: 'a', port })
        await again()
      }
      await machine.sh('rm /root/stuck')
      await node.run(file, 'actionstart', { name: 'a', port: '3' })
      if (file === M) assert.deepEqual(await blocked('f2b-a'), ['192.0.2.7', '192.0.2.8'])
      for (const ip of ['192.0.2.7', '192.0.2.8'])
        assert.equal(await node.run(file, 'actionunban', { name: 'a', ip }), 'ran')
      assert.deepEqual([await blocked('f2b-a'), await lines('a')], [[], []])
    }
    await machine.sh(`rm ${ACTIONS}/lines.local ${ACTIONS}/${M}.local`)
  })

  test('an unban of what somebody has removed already is done, also where nothing can be asked', async () => {
    await node.run('route', 'actionban', { name: 'a', ip: '192.0.2.7' })
    await machine.sh('ip route del unreachable 192.0.2.7')
    assert.equal(await node.run('route', 'actionunban', { name: 'a', ip: '192.0.2.7' }), 'ran')
    assert.equal(await machine.sh('ip route show type unreachable'), '')
  })

  test('an action that may not write below /etc says what its unit needs', async () => {
    await machine.sh('mkdir -p /etc/nginx; mount --bind /etc /etc; mount -o remount,bind,ro /etc')
    const wish = (file: string) => ['run', file, 'actionban', { name: 'a', ip: '192.0.2.7' }]
    for (const [file, folder] of [
      ['hostsdeny', '/etc'],
      ['nginx-block-map', '/etc/nginx'],
    ] as const) {
      const said = await fails(75, ...wish(file))
      const line = `"systemctl edit net2ban-client" and add [Service] ReadWritePaths=${folder}`
      assert.equal(said, `Cannot use ${file} for a: it may not write there, ${line}`)
    }
    assert.deepEqual(await leases(), [])
    await machine.sh('umount /etc')
    assert.equal((await node.ask(...wish('hostsdeny'))).result, 'ran')
    assert.match(await machine.sh('cat /etc/hosts.deny'), /^ALL: 192\.0\.2\.7$/m)
    await node.run('hostsdeny', 'actionunban', { name: 'a', ip: '192.0.2.7' })
  })

  test('does nothing that it cannot write down', async () => {
    await node.close()
    const disk = '/var/lib/net2ban'
    await machine.sh(`mkdir -p ${disk}; mount -t tmpfs -o size=64k tmpfs ${disk}`)
    node = await startNode(machine)
    await node.run('lines', 'actionban', { name: 'a', ip: '192.0.2.7' })
    await machine.sh(`dd if=/dev/zero of=${disk}/full bs=1k 2>/dev/null || true`)
    await fails(75, 'run', 'lines', 'actionban', { name: 'a', ip: '192.0.2.8' })
    await fails(75, 'run', 'lines', 'actionunban', { name: 'a', ip: '192.0.2.7' })
    await fails(75, 'run', 'lines', 'actionban', { name: 'b', ip: '192.0.2.8' })
    assert.deepEqual(await lines('a'), ['192.0.2.7 public'])
    assert.deepEqual(await leases(), ['192.0.2.7 lines:a 0'])
    await machine.sh(`rm ${disk}/full`)
    assert.equal(await node.run('lines', 'actionban', { name: 'b', ip: '192.0.2.8' }), 'ran')
    assert.equal(await node.run('lines', 'actionunban', { name: 'a', ip: '192.0.2.7' }), 'ran')
    assert.deepEqual([await lines('a'), await lines('b')], [[], ['192.0.2.8 public']])
    await node.close()
    await machine.sh(`umount ${disk}`)
    node = await startNode(machine)
  })

  test('killed at any moment, it neither loses a ban nor leaves one twice', async () => {
    const wanted = new Set<string>()
    let seed = 20
    const random = (below: number): number => {
      seed = (seed * 48271) % 2147483647
      return seed % below
    }
    for (let round = 0; round < 25; round++) {
      const killed = sleep(5 + random(60)).then(() => node.kill())
      for (let alive = true; alive; ) {
        const ip = `192.0.2.${1 + random(9)}`
        const action = wanted.has(ip) ? 'actionunban' : 'actionban'
        if (action === 'actionban') wanted.add(ip)
        else wanted.delete(ip)
        const send = () =>
          Promise.all([
            node.ask('run', M, action, { name: 'a', ip }),
            node.ask('run', 'lines', action, { name: 'a', ip }),
          ])
        alive = await send().then(
          () => true,
          () => false,
        )
        if (alive) continue
        await killed
        node = await startNode(machine)
        // It was not acknowledged, so it comes again, until it could be done.
        const done = async () => (await send()).every(({ error }) => error === undefined)
        await waitUntil(`${action} ${ip}`, done)
      }
      const expected = [...wanted].sort()
      assert.deepEqual(await blocked('f2b-a'), expected, `round ${round}`)
      assert.deepEqual(
        (await lines('a')).sort(),
        expected.map((ip) => `${ip} public`),
      )
    }
  })

  test('killed within a sync, it ends with exactly what the next one says', async () => {
    const all = Array.from({ length: 150 }, (_, i) => `198.51.100.${i + 1}`)
    for (const [round, file] of [M, 'lines', 'nftables', M, 'lines', 'route'].entries()) {
      const wanted = all.filter((_, i) => (i + round) % 3 > 0)
      const wish = ['sync', file, 'a', wanted.map((ip) => [ip, 0]), {}]
      const killed = sleep(60 + 40 * round).then(() => node.kill())
      await node.ask(...wish).catch(() => {})
      await killed
      node = await startNode(machine)
      const { result, error } = await node.ask(...wish)
      assert.ok(result, error)
      const expected = [...wanted].sort()
      if (file === M) assert.deepEqual(await blocked('f2b-a'), expected)
      if (file === 'lines')
        assert.deepEqual(
          (await lines('a')).sort(),
          expected.map((ip) => `${ip} public`),
        )
      if (file === 'nftables')
        assert.deepEqual(await found('nft list set inet f2b-table addr-set-a'), expected)
      if (file === 'route')
        assert.deepEqual(await found('ip route show type unreachable'), expected)
    }
  })

  test('a sync carries out what it can, and says what it could not', async () => {
    await machine.writeFile(
      `${ACTIONS}/picky.conf`,
      `[Definition]
actionban = case "<ip>" in *7) echo "not <ip>" >&2; false;; *) echo "<ip>" >>/root/lines-picky;; esac
actionunban = sed -i "\\|^<ip>$|d" /root/lines-picky
`,
    )
    const wanted = Array.from({ length: 19 }, (_, i) => [`192.0.2.${i + 1}`, 0])
    const said = await fails(75, 'sync', 'picky', 'a', wanted, {})
    assert.match(said, /Cannot ban 192\.0\.2\.7 .*not 192\.0\.2\.7 \(and 1 more\)/)
    assert.equal((await lines('picky')).length, 17)
    assert.equal((await leases()).length, 17)
  })

  test('waits for what outlived a killed node, and redoes it', async () => {
    await machine.writeFile(
      `${ACTIONS}/slow.conf`,
      `[Definition]
actionban = echo begun >>/root/log; sleep 0.7; echo "<ip>" >>/root/lines-slow
actionunban = sed -i "\\|^<ip>$|d" /root/lines-slow
`,
    )
    const ban = node.ask('run', 'slow', 'actionban', { ip: '192.0.2.7' }).catch(() => {})
    const begun = async () =>
      (await machine.sh('cat /root/log 2>/dev/null || true')).includes('begun')
    await waitUntil('the action', begun)
    await node.kill()
    await ban
    node = await startNode(machine)
    assert.deepEqual(await lines('slow'), ['192.0.2.7'])
    assert.equal(await node.run('slow', 'actionban', { ip: '192.0.2.7' }), 'held')
  })
})
