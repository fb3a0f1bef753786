import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Fail2ban, startFail2ban } from '../lib/fail2ban.ts'
import { installPerimeter } from '../lib/installed.ts'
import { addressOf, createPerimeter, type Perimeter } from '../lib/perimeter.ts'
import type { Background } from '../lib/process.ts'
import { parseMetrics } from '../lib/prometheus.ts'
import { canConnect, listen } from '../lib/traffic.ts'
import { waitUntil } from '../lib/wait.ts'

// A real ban on two real firewalls: shown, and freed everywhere.

const ATTACKER = addressOf('attacker1', 'outside')
const options = 'name=%(__name__)s, port="%(port)s", protocol="%(protocol)s"'

let lab: Perimeter
let fail2ban: Fail2ban
before(async () => {
  lab = await createPerimeter({ firewalls: 2 })
  await installPerimeter(lab)
  await listen(lab.server, { tcp: [22] })
  // Without systemd root delivers, and looks at targets itself.
  const firewalls = ['--firewall', 'edge1', '--firewall', 'edge2']
  const how = ['--host-key-file', '/root/hostkeys', '--delivery', 'queued', '--systemd', 'no']
  await lab.server.run(['f2b-setup', 'server', '--owner', 'web1', ...firewalls, ...how])
  fail2ban = await startFail2ban(lab.server, [
    { name: 'sshd', action: `iptables-remote[${options}, delivery=queued]`, maxretry: 2 },
    { name: 'direct', action: `iptables-remote[${options}, delivery=direct]` },
  ])
})
after(() => lab.close())

/** Whether packets get through each of the firewalls. */
async function reaches(): Promise<boolean[]> {
  const found: boolean[] = []
  for (const firewall of lab.firewalls) {
    await lab.routeVia(firewall)
    found.push(await canConnect(lab.attacker, { to: addressOf('web1', 'inside'), port: 22 }))
  }
  return found
}

const untilReached = (wanted: boolean) =>
  waitUntil(`packets ${wanted ? 'to get' : 'not to get'} through`, async () =>
    (await reaches()).every((one) => one === wanted),
  )

async function about(): Promise<{ words: string[]; code: number }> {
  const { stdout, code } = await lab.server.exec(['f2b-status', ATTACKER])
  return { code, words: stdout.split('\n').map((line) => line.trim().replace(/ +/g, ' ')) }
}

async function targets() {
  const { stdout, code } = await lab.server.exec(['f2b-status', '--json', '--timeout', '60'])
  return { code, targets: JSON.parse(stdout).targets as Record<string, unknown>[] }
}

test('a ban that only stands in the queue is shown there, and drift is seen', async () => {
  assert.deepEqual(await reaches(), [true, true])
  await fail2ban.failLogin(ATTACKER, { times: 2 })
  await fail2ban.logged(`[sshd] Ban ${ATTACKER}`)
  const said = await targets()
  assert.equal(said.code, 75)
  for (const one of said.targets) {
    assert.deepEqual([one.leases, one.queued], [0, 1])
    assert.deepEqual(one.drift, { missing: 1, extra: 0, wrong_expiry: 0 })
  }
  const { words } = await about()
  for (const edge of ['edge1', 'edge2']) {
    assert.ok(words.includes(`firewall/${edge} ban ${ATTACKER} in sshd`), words.join('\n'))
  }
})

test('a ban in force is shown with its jail, its end and its log lines, and freed everywhere', async () => {
  const deliver: Background = await lab.server.spawn(['f2b-deliver', '--follow'])
  try {
    await untilReached(false)
    await lab.server.run(['f2b-firewall', 'ban', '--ip', ATTACKER])
    await fail2ban.client('set', 'direct', 'banip', ATTACKER)
    const said = await targets()
    assert.equal(said.code, 0, JSON.stringify(said))
    assert.deepEqual(
      said.targets.map(({ leases, queued }) => [leases, queued]),
      [
        [3, 0],
        [3, 0],
      ],
    )
    const { words, code } = await about()
    assert.equal(code, 0)
    assert.equal(words[0], `${ATTACKER} is banned in 2 jails, and in force on 2 of 2 targets.`)
    for (const edge of ['edge1', 'edge2']) {
      for (const jail of ['sshd', 'direct']) {
        const row = new RegExp(`^firewall/${edge} ${jail} 20\\d\\d-.* \\(in \\d+ \\w+\\) web1$`)
        assert.ok(
          words.some((line) => row.test(line)),
          words.join('\n'),
        )
      }
      assert.ok(words.includes(`firewall/${edge} - never web1`))
    }
    const saw = words.filter((line) => line.endsWith(`login failure from ${ATTACKER}`))
    assert.equal(saw.length, 2)

    const freed = await lab.server.exec(['f2b-status', '--unban', ATTACKER])
    assert.equal(freed.code, 0, freed.stdout)
    assert.match(freed.stdout, /^ {2}Fail2Ban +freed in (sshd, direct|direct, sshd)$/m)
    assert.match(freed.stdout, /is not banned by Fail2Ban, and no target has it\.$/m)
    await untilReached(true)
    await lab.server.run(['f2b-sync'])
    const free = await targets()
    assert.deepEqual([free.code, ...free.targets.map(({ leases }) => leases)], [0, 0, 0])
  } finally {
    await deliver.kill()
  }
})

test('without Fail2Ban and f2b-deliver it is freed on the firewalls all the same', async () => {
  await fail2ban.client('set', 'sshd', 'banip', ATTACKER)
  await lab.server.run(['f2b-deliver'])
  await untilReached(false)
  await fail2ban.stop()
  const { code, stdout } = await lab.server.exec(['f2b-status', '--unban', ATTACKER])
  assert.equal(code, 75)
  assert.match(stdout, /^ {2}Fail2Ban +not told: .*\.sock.*\(75\)$/m)
  assert.match(stdout, /^ {2}firewall\/edge2 +freed in sshd$/m)
  assert.match(stdout, /^Fail2Ban will ban it again when it starts/m)
  await untilReached(true)
  // The line that it put into the queue keeps the books of the next f2b-deliver right.
  await lab.server.run(['f2b-deliver'])
  assert.deepEqual(await reaches(), [true, true])
})

test('a firewall that is away is named with its code, and in the metrics', async () => {
  await lab.firewalls[1]?.powerOff()
  const { code, stdout } = await lab.server.exec(['f2b-status'])
  assert.ok(code === 69 || code === 75, stdout)
  assert.match(stdout, /^firewall\/edge1 +yes /m)
  assert.match(stdout, /^firewall\/edge2 +no /m)
  await lab.server.run(['f2b-status', '--metrics', '/run/f2b.prom'])
  const samples = parseMetrics(await lab.server.readFile('/run/f2b.prom'))
  const up = samples.filter(({ name }) => name === 'fail2ban_perimeter_up')
  assert.deepEqual(
    up.map(({ labels, value }) => [labels.target, value]),
    [
      ['edge1', 1],
      ['edge2', 0],
    ],
  )
})
