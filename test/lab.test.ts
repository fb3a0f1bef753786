import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { PROJECT } from './lib/lab.ts'
import { addAddresses } from './lib/network.ts'
import { addressOf, createPerimeter, type Perimeter } from './lib/perimeter.ts'
import { canAsk, canConnect, connect, listen, longestGap, probe } from './lib/traffic.ts'
import { waitUntil } from './lib/wait.ts'

const FAMILIES = ['inet4', 'inet6'] as const

/** From the attacker to the server, through the firewall. */
function path(family: 'inet4' | 'inet6', port = 80) {
  const source = addressOf('attacker1', 'outside', family)
  return { source, to: addressOf('web1', 'inside', family), port }
}

describe('lab', () => {
  let lab: Perimeter
  before(async () => {
    lab = await createPerimeter()
    await listen(lab.server, { tcp: [22, 80], udp: [53] })
  })
  after(() => lab.close())

  for (const family of FAMILIES) {
    test(`packets pass from attacker to server over ${family}`, async () => {
      assert.equal(await canConnect(lab.attacker, path(family)), true)
      assert.equal(await canAsk(lab.attacker, path(family, 53)), true)
      assert.equal(await connect(lab.attacker, path(family, 81)), 'refused')
    })
  }

  test('a drop rule on the firewall stops both families until it reboots', async () => {
    await lab.firewall.writeFile('/etc/kept', 'kept')
    await lab.firewall.run(['nft', '-f', '-'], {
      input: `table inet t { chain c { type filter hook forward priority 0; policy drop; }\n}\n`,
    })
    for (const family of FAMILIES) {
      assert.equal(await connect(lab.attacker, path(family)), 'silent')
      assert.equal(await canAsk(lab.attacker, path(family, 53)), false)
    }
    let early = 'not called'
    await lab.firewall.reboot({
      beforeNetwork: async () => {
        early = await lab.firewall.run(['ip', '-br', 'link', 'show', 'type', 'veth'])
      },
    })
    assert.equal(early, '')
    assert.equal(await lab.firewall.run(['nft', 'list', 'ruleset']), '')
    assert.equal(await lab.firewall.readFile('/etc/kept'), 'kept')
    for (const family of FAMILIES) {
      assert.equal(await canConnect(lab.attacker, path(family)), true)
    }
  })

  test('an attacker has many addresses', async () => {
    await addAddresses(lab.attacker, 'outside', ['203.0.113.200/24', '2001:db8:a::bad/64'])
    assert.equal(
      await canConnect(lab.attacker, { ...path('inet4'), source: '203.0.113.200' }),
      true,
    )
    assert.equal(
      await canConnect(lab.attacker, { ...path('inet6'), source: '2001:db8:a::bad' }),
      true,
    )
    await assert.rejects(
      canConnect(lab.attacker, { ...path('inet4'), source: '203.0.113.201' }),
      /EADDRNOTAVAIL/,
    )
  })

  test('a cut cable loses packets silently, and a probe sees how long', async () => {
    const tcp = await probe(lab.attacker, path('inet4'))
    const udp = await probe(lab.attacker, { ...path('inet6', 53), kind: 'udp' })
    await sleep(500)
    const since = performance.timeOrigin + performance.now()
    await lab.network.cut(lab.firewall, 'inside')
    await sleep(1_000)
    await lab.network.heal(lab.firewall, 'inside')
    const healed = performance.timeOrigin + performance.now()
    await sleep(1_000)
    const until = performance.timeOrigin + performance.now()
    for (const result of [await tcp.stop(), await udp.stop()]) {
      assert.ok(longestGap(result, since - 400, since) < 400, 'packets pass before')
      const gap = longestGap(result, since, until)
      assert.ok(gap > 950 && gap < healed - since + 800, `a gap of ${gap} ms`)
    }
  })

  test('commands find a clean environment and a machine of their own', async () => {
    assert.match(await lab.server.run(['env']), /^PATH=\S+\nLANG=C.UTF-8\nHOME=\/root\n$/)
    assert.equal(await lab.server.run(['hostname']), 'web1\n')
    assert.equal(await lab.server.run(['cat'], { input: 'given' }), 'given')
    const failing = await lab.server.exec(['sh', '-c', 'echo out; echo err >&2; exit 7'])
    assert.deepEqual(failing, { code: 7, stdout: 'out\n', stderr: 'err\n' })
    assert.equal((await lab.server.exec(['sleep', '9'], { timeout: 100 })).code, 124)
    await assert.rejects(lab.server.run(['false']), /web1: false: exit code 1/)
    await lab.server.run(['useradd', '-m', 'guest'])
    assert.equal(await lab.server.run(['id', '-un'], { user: 'guest' }), 'guest\n')
    assert.doesNotMatch(readFileSync('/etc/passwd', 'utf8'), /^guest:/m)
    assert.equal(existsSync('/home/guest'), false)
    await lab.server.run(['logger', '-t', 'test', 'first'])
    assert.match((await lab.server.journal()).at(-1) ?? '', /test: first$/)
    assert.notEqual((await lab.server.exec(['touch', join(PROJECT, 'x')])).code, 0)
  })

  test('a background process tells its lines and dies with its children', async () => {
    const lines: string[] = []
    const script = 'sleep 99 & echo ready; read word; echo "$word"; wait'
    const options = { onLine: (line: string) => void lines.push(line) }
    const background = await lab.server.spawn(['sh', '-c', script], options)
    background.stdin.write('hello\n')
    await waitUntil('both lines', () => lines.length === 2)
    assert.deepEqual(lines, ['ready', 'hello'])
    await background.kill('SIGKILL')
    assert.equal(await background.ended(), -1)
    await waitUntil('the end of its child', () => lab.server.signal('sleep', 'SIGCONT') === 0)
  })
})
