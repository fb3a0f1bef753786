import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Delivering, QUEUED, startDelivering } from './lib/delivering.ts'
import { type Fail2ban, startFail2ban } from './lib/fail2ban.ts'
import { installPerimeter } from './lib/installed.ts'
import { addressOf, createPerimeter, type Perimeter } from './lib/perimeter.ts'
import type { Sshd } from './lib/ssh.ts'
import { canConnect, listen, longestGap, probe } from './lib/traffic.ts'
import { waitUntil } from './lib/wait.ts'

// Bans that are queued and delivered, end to end: a real Fail2Ban, two firewalls, real packets.

const ATTACKER = addressOf('attacker1', 'outside')
const LEASES = '/var/lib/fail2ban-perimeter/firewall.leases'

let lab: Perimeter
let sshds: Sshd[]
let fail2ban: Fail2ban
let delivering: Delivering

before(async () => {
  lab = await createPerimeter({ firewalls: 2 })
  sshds = await installPerimeter(lab)
  await listen(lab.server, { tcp: [22] })
  await lab.server.run(['f2b-deliver'])
  delivering = await startDelivering(lab.server)
  fail2ban = await startFail2ban(lab.server, [{ name: 'sshd', action: QUEUED, maxretry: 2 }])
})
after(() => lab.close())

const path = { source: ATTACKER, to: addressOf('web1', 'inside'), port: 22 }
const reaches = () => canConnect(lab.attacker, path)
const held = async (edge: number): Promise<string[]> => {
  const text = await lab.firewalls[edge]?.sh(`cat ${LEASES} 2>/dev/null || true`)
  const last = new Map<string, string>()
  for (const line of (text ?? '').split('\n').filter((one) => one && !one.startsWith('#'))) {
    const [address = '', , expires = ''] = line.split(' ')
    last.set(address, expires)
  }
  const now = Date.now() / 1000
  return [...last].flatMap(([address, end]) => (Number(end) > now ? [address] : [])).sort()
}
const banned = async (): Promise<string[]> => {
  const text = await fail2ban.client('get', 'sshd', 'banip')
  return text.split(/\s+/).filter(Boolean).sort()
}
const equal = (edge: number) =>
  waitUntil(
    `edge${edge + 1} to have what Fail2Ban has`,
    async () => (await held(edge)).join() === (await banned()).join(),
    { every: 100 },
  )
const status = async () => {
  const { code, stdout } = await lab.server.exec(['f2b-status', '--json', '--timeout', '60'])
  return { code, said: JSON.parse(stdout) }
}
const errors = async (): Promise<string[]> =>
  (await fail2ban.log()).split('\n').filter((line) => /ERROR|CRITICAL/.test(line))

test('an attacker that Fail2Ban finds is blocked on both firewalls, and freed', async () => {
  assert.equal(await reaches(), true)
  await fail2ban.failLogin(ATTACKER, { times: 2 })
  await fail2ban.logged(`[sshd] Ban ${ATTACKER}`)
  await waitUntil('the block', async () => !(await reaches()))
  await equal(1)
  await fail2ban.client('set', 'sshd', 'unbanip', ATTACKER)
  await waitUntil('the end of the block', reaches)
  await equal(1)
  assert.deepEqual(await errors(), [])
})

describe('while one of two firewalls is dead', () => {
  test('Fail2Ban notices nothing, the other is served, and it gets everything back', async () => {
    await lab.network.cut(lab.firewalls[1] ?? lab.firewall, 'mgmt')
    await fail2ban.client('set', 'sshd', 'banip', ATTACKER)
    await waitUntil('the block', async () => !(await reaches()))
    const times: number[] = []
    for (let i = 1; i <= 12; i++) {
      const began = performance.now()
      await fail2ban.client('set', 'sshd', 'banip', `203.0.113.${i + 10}`)
      times.push(performance.now() - began)
      await sleep(500)
    }
    // A single one may have waited for a processor; for the network, each of them would have.
    assert.ok(Math.min(...times) < 2_000, `Fail2Ban waited ${times} ms`)
    await equal(0)
    assert.notDeepEqual(await held(1), await banned())
    assert.deepEqual(await errors(), [])
    await lab.network.heal(lab.firewalls[1] ?? lab.firewall, 'mgmt')
    await equal(1)
  })

  test('a frozen one keeps nobody waiting either', async () => {
    sshds[1]?.freeze()
    await fail2ban.client('set', 'sshd', 'banip', '203.0.113.40')
    await equal(0)
    sshds[1]?.thaw()
    await equal(1)
    assert.deepEqual(await errors(), [])
  })
})

test('a restart of Fail2Ban opens no gap and sends nothing that is in force', async () => {
  const many = Array.from({ length: 200 }, (_, i) => `198.51.100.${i + 20}`)
  for (let i = 0; i < many.length; i += 50) {
    await fail2ban.client('set', 'sshd', 'banip', ...many.slice(i, i + 50))
  }
  await equal(0)
  await equal(1)
  const packets = await probe(lab.attacker, path)
  const before = [await lab.firewall.readFile(LEASES), await lab.firewalls[1]?.readFile(LEASES)]
  await fail2ban.stop()
  await fail2ban.start()
  await waitUntil(
    'all bans to be restored',
    async () => (await fail2ban.log()).match(/Restore Ban/g)?.length === 214,
    { every: 100 },
  )
  // The sync that the stop has asked for comes two seconds later, and finds nothing to do.
  await sleep(4_000)
  const { sent, answered } = await packets.stop()
  assert.ok(sent > 100)
  assert.deepEqual(answered, [])
  const now = [await lab.firewall.readFile(LEASES), await lab.firewalls[1]?.readFile(LEASES)]
  assert.deepEqual(now, before)
})

test('a firewall that has lost everything is filled again, by itself', async () => {
  await lab.firewall.sh(`nft flush ruleset; rm ${LEASES}`)
  const packets = await probe(lab.attacker, path)
  const since = Date.now()
  await equal(0)
  await waitUntil('the block', async () => !(await reaches()))
  const { answered } = await packets.stop()
  assert.ok(answered.every((time) => time < since + 30_000))
  await waitUntil('the check', async () => {
    return (await lab.server.exec(['f2b-firewall', 'check'])).code === 0
  })
  assert.match(delivering.log(), /lost generation target=firewall\/edge1/)
})

test('f2b-sync goes through the deliverer, and an unchanged firewall costs nothing', async () => {
  const unchanged =
    /^edge1: added 0, extended 0, removed 0, unchanged 214\nedge2: .* unchanged 214\n$/
  assert.match(await lab.server.run(['f2b-sync']), unchanged)
  // Somebody frees an address on the firewall itself.
  const root = '/usr/local/lib/fail2ban-perimeter/unbanip'
  await lab.firewall.run([root, '--owner', 'web1', 'fail2ban-sshd', ATTACKER])
  await waitUntil('the gap', reaches)
  const drift = await lab.server.run(['f2b-sync', '--dry-run', 'edge1'])
  assert.match(
    drift,
    new RegExp(`^edge1: added ${ATTACKER} sshd \\d+ web1\nadded 1, .* unchanged 213\n`),
  )
  // Unless f2b-deliver had to open a new session meanwhile, and found it missing.
  const done = /^added (1, .* unchanged 213|0, .* unchanged 214)\n$/
  assert.match(await lab.server.run(['f2b-sync', 'edge1']), done)
  assert.equal(await reaches(), false)
})

test('a ban by hand lasts as long as it said, whatever Fail2Ban does in that jail', async () => {
  const [own, other] = ['203.0.113.90', '203.0.113.91']
  const sync = () => lab.server.run(['f2b-sync'])
  const bothHave = (ip: string, wanted: boolean) =>
    waitUntil(`both to ${wanted ? 'block' : 'free'} ${ip}`, async () => {
      const [one = [], two = []] = await Promise.all([held(0), held(1)])
      return one.includes(ip) === wanted && two.includes(ip) === wanted
    })
  const ban = ['f2b-firewall', 'ban', '--name', 'sshd', '--bantime', '600', '--ip']
  await lab.server.run([...ban, own])
  await lab.server.run(['banip', 'fail2ban-other', other, 'smtp', 'tcp', '--bantime', '600'])
  await sync()
  await fail2ban.client('set', 'sshd', 'banip', own)
  await fail2ban.client('set', 'sshd', 'unbanip', own)
  assert.match(await sync(), /edge1: added 0, extended 0, removed 0, /)
  for (const ip of [own, other]) await bothHave(ip, true)
  const { code, said } = await status()
  const none = { missing: 0, extra: 0, wrong_expiry: 0 }
  assert.deepEqual([code, said.targets[0].drift, said.targets[1].drift], [0, none, none])
  // A firewall that has lost everything gets them again, too.
  await lab.firewall.sh(`nft flush ruleset; rm ${LEASES}`)
  for (const ip of [own, other]) await bothHave(ip, true)
  await lab.server.run(['unbanip', 'fail2ban-other', other])
  await bothHave(other, false)
  await lab.server.run(['f2b-status', '--unban', own])
  await bothHave(own, false)
  await sync()
  for (const ip of [own, other]) await bothHave(ip, false)
})

test('should Fail2Ban no longer know most of its bans, nobody is freed by one answer', async () => {
  const most = (await banned()).length * 2 + 21
  const at = Math.floor(Date.now() / 1000)
  const line = (i: number) => `ban|100.64.${i >> 8}.${i & 255}|sshd|${at}|600|22|tcp|.\n`
  const input = Array.from({ length: most }, (_, i) => line(i)).join('')
  await lab.server.sh('cat >>/var/lib/fail2ban-perimeter/queue/firewall', { input })
  const areThere = async () => (await held(0)).filter((ip) => ip.startsWith('100.64.')).length
  await waitUntil('the bans', async () => (await areThere()) === most)
  const { code, stderr } = await lab.server.exec(['f2b-sync'])
  const what = `Fail2Ban names ${most} bans no more, most of all, and was not told to end them`
  assert.equal(code, 75)
  assert.ok(stderr.includes(`on "edge1": ${what}: they stay until it says so in a minute`), stderr)
  assert.equal(await areThere(), most)
  // Told to end all bans, it is believed at once.
  await fail2ban.client('unban', '--all')
  await waitUntil('the release', async () => (await held(0)).length === 0)
  await fail2ban.client('set', 'sshd', 'banip', ATTACKER)
  await equal(0)
  await equal(1)
})

test('what can never work is rejected with its reason, is no drift, and is acknowledged', async () => {
  await fail2ban.client('set', 'sshd', 'banip', '127.0.0.1', 'not-an-address', '203.0.113.60')
  for (const edge of [0, 1]) {
    await waitUntil('the third', async () => (await held(edge)).includes('203.0.113.60'))
  }
  const { code, said } = await status()
  assert.equal(code, 77)
  assert.deepEqual(
    said.rejected.map((one: { code: number; change: string }) => [
      one.code,
      one.change.split(' ')[1],
    ]),
    [
      [65, '127.0.0.1'],
      [65, 'not-an-address'],
    ],
  )
  const { stdout } = await lab.server.exec(['f2b-status', '--acknowledge', '127.0.0.1'])
  assert.match(stdout, /^firewall: acknowledged [0-9a-f]{6}, ban 127.0.0.1 in sshd: overlaps .*\n$/)
  // What Fail2Ban has freed is no problem, although it never was an address.
  await fail2ban.client('unban', '127.0.0.1', 'not-an-address')
  await waitUntil('the end of the problems', async () => (await status()).code === 0)
})

test('what a firewall alone refuses is rejected there, is no drift, and is not sent again', async () => {
  const edge2 = lab.firewalls[1]
  const config = '/etc/fail2ban-perimeter/firewall.yaml'
  const was = await edge2?.readFile(config)
  await edge2?.sh(`cat >${config}`, {
    input: `${was}`.replace('never_ban: []', 'never_ban: [203.0.113.61]'),
  })
  // A session reads the configuration of its firewall when it begins.
  await delivering.kill()
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.61', '203.0.113.62')
  for (const edge of [0, 1]) {
    await waitUntil('the second', async () => (await held(edge)).includes('203.0.113.62'))
  }
  const { code, said } = await status()
  const [first, second] = said.targets
  assert.equal(code, 77, JSON.stringify(said.problems))
  assert.deepEqual([first.rejected, second.drift], [[], { missing: 0, extra: 0, wrong_expiry: 0 }])
  const [{ change, reason }] = second.rejected
  assert.equal(change, 'ban 203.0.113.61 in sshd')
  assert.equal(reason, 'overlaps "203.0.113.61", which is in never_ban')
  // Two syncs, of which neither adds nor is refused anything.
  for (const _ of [1, 2]) {
    assert.match(await lab.server.run(['f2b-sync', 'edge2']), /^added 0, .*unchanged \d+\n$/)
  }
  assert.match(await lab.server.run(['f2b-sync', '--dry-run', 'edge2']), /^added 0, .*\n$/)
  const seen = await lab.server.run(['f2b-status', '--acknowledge', '203.0.113.61'])
  assert.match(seen, /^firewall\/edge2: acknowledged [0-9a-f]{6}, ban 203.0.113.61 in sshd: over/)
  assert.equal((await status()).code, 0)
  assert.equal((await lab.server.exec(['f2b-status', '--acknowledge', '203.0.113.61'])).code, 65)
  assert.equal((await held(0)).includes('203.0.113.61'), true)
  await edge2?.sh(`cat >${config}`, { input: was ?? '' })
  await fail2ban.client('unban', '203.0.113.61', '203.0.113.62')
})

test('SIGTERM ends it in order; without it lines wait, and f2b-deliver delivers them', async () => {
  assert.equal(await delivering.stop(), 0)
  assert.match(delivering.log(), /ended\n$/)
  await fail2ban.client('set', 'sshd', 'unbanip', ATTACKER)
  assert.equal(await reaches(), false)
  assert.deepEqual(await lab.server.exec(['f2b-deliver']), { code: 0, stdout: '', stderr: '' })
  assert.equal(await reaches(), true)
  await lab.network.cut(lab.firewalls[1] ?? lab.firewall, 'mgmt')
  await fail2ban.client('set', 'sshd', 'banip', ATTACKER)
  const { code, stderr } = await lab.server.exec(['f2b-deliver'])
  assert.equal(code, 69)
  assert.match(stderr, /^deliver: Cannot deliver to "edge2": cannot connect.* \(1 wait\)\n$/)
  assert.equal(await reaches(), false)
  await lab.network.heal(lab.firewalls[1] ?? lab.firewall, 'mgmt')
  await lab.server.run(['f2b-deliver'])
  await equal(1)
})

test('a ban that arrives while nobody delivers is in force at the latest when somebody does', async () => {
  await fail2ban.client('set', 'sshd', 'unbanip', ATTACKER)
  await lab.server.run(['f2b-deliver'])
  await fail2ban.client('set', 'sshd', 'banip', ATTACKER)
  const packets = await probe(lab.attacker, path)
  await waitUntil('packets', async () => (await reaches()) === true)
  delivering = await startDelivering(lab.server)
  const started = Date.now()
  await waitUntil('the block', async () => !(await reaches()))
  const ended = Date.now()
  await sleep(500)
  const result = await packets.stop()
  assert.ok(longestGap(result, ended, Date.now()) > 300, 'no packet came through afterwards')
  assert.ok(ended - started < 15_000)
  await delivering.stop()
})
