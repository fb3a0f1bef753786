import { setTimeout as sleep } from 'node:timers/promises'
import { appendCommand } from '../lib/append.ts'
import { QUEUED, startDelivering } from '../lib/delivering.ts'
import { installDocument } from '../lib/document.ts'
import { type Fail2ban, startFail2ban } from '../lib/fail2ban.ts'
import { installPerimeter } from '../lib/installed.ts'
import type { Machine } from '../lib/machine.ts'
import { addressOf, createPerimeter, type Perimeter } from '../lib/perimeter.ts'
import { listen, probe } from '../lib/traffic.ts'
import { waitUntil } from '../lib/wait.ts'
import { median, medians, ms, type Row } from './table.ts'

const ROUNDS = 25
const MANY = 1_000
const RESTORED = 10_000
const QUEUE = '/var/lib/fail2ban-perimeter/queue/firewall'
const LEASES = '/var/lib/fail2ban-perimeter/firewall.leases'

/** Runs an action line for many addresses, one after another. */
const LINES = `import json, subprocess, sys
command = json.load(open('/root/lines.json'))
for number in range(int(sys.argv[1])):
    address = f'198.17.{number >> 8}.{number & 255}'
    subprocess.run([address if word == '@' else word for word in command], check=True)`

/** Says when a command began, as the machine's clock has it, and runs it. */
const TIMED =
  'import subprocess, sys, time; print(time.time()); sys.stdout.flush(); subprocess.run(sys.argv[1:])'

/**
 * Queued bans against the document's scripts, on the same sshd: what Fail2Ban waits for, when the
 * packets stop, many at once, and a restart.
 */
export async function benchDelivery(): Promise<Row[]> {
  const lab = await createPerimeter()
  try {
    const [sshd] = await installPerimeter(lab)
    const { server, firewall } = lab
    if (!sshd) throw new Error('No sshd')
    await installDocument(server, firewall, sshd, { repaired: true, shared: true, user: 'shared' })
    await listen(server, { udp: [53] })
    await server.run(['f2b-deliver'])
    await startDelivering(server)
    const fail2ban = await startFail2ban(server, [
      { name: 'plain', action: 'plain' },
      { name: 'queued', action: QUEUED },
    ])
    return [
      await underLock(fail2ban, server),
      await untilDropped(lab),
      ...(await manyAtOnce(lab, fail2ban)),
      await restart(lab, fail2ban),
    ]
  } finally {
    await lab.close()
  }
}

/** What Fail2Ban's lock is held for, per ban. */
async function underLock(fail2ban: Fail2ban, server: Machine): Promise<Row> {
  await server.writeFile('/etc/fail2ban/action.d/plain.conf', '[Definition]\nactionban = true\n')
  await fail2ban.client('reload')
  const spent: Record<string, number[]> = { plain: [], queued: [] }
  for (let round = 0; round < 5; round++) {
    for (const jail of ['plain', 'queued']) {
      const addresses = Array.from({ length: 200 }, (_, i) => `198.18.${round}.${i}`)
      const began = performance.now()
      await fail2ban.client('set', jail, 'banip', ...addresses)
      spent[jail]?.push((performance.now() - began) / addresses.length)
    }
  }
  const [plain = 0, queued = 0] = ['plain', 'queued'].map((jail) => median(spent[jail] ?? []))
  const what = 'a ban under the lock of Fail2Ban, against the action "true"'
  return { what, ours: ms(queued), other: ms(plain), ratio: queued / plain, limit: 1.5 }
}

/** From the start of the action line to the last packet that gets through. */
async function untilDropped(lab: Perimeter): Promise<Row> {
  const ours: number[] = []
  const others: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const now = String(Date.now() / 1000)
    const line = (ip: string) =>
      appendCommand(QUEUE, ['ban', ip, 'latency', now, '600', '53', 'udp'])
    const script = (ip: string) => ['/usr/local/sbin/banip.sh', 'fail2ban-latency', ip, '53', 'udp']
    ours.push(await drop(lab, `203.0.113.${110 + round}`, line))
    others.push(await drop(lab, `203.0.113.${150 + round}`, script))
  }
  const [own, other] = [median(ours), median(others)]
  const what = 'action line to dropped packets, document with shared ssh'
  return { what, ours: ms(own), other: ms(other), ratio: own / other, limit: 0.5 }
}

async function drop(
  { attacker, server }: Perimeter,
  source: string,
  command: (ip: string) => string[],
): Promise<number> {
  await attacker.run(['ip', 'address', 'add', `${source}/24`, 'dev', 'outside'])
  const to = addressOf('web1', 'inside')
  const packets = await probe(attacker, { source, to, port: 53, kind: 'udp', everyMs: 1 })
  await sleep(100)
  const began = await server.run(['python3', '-c', TIMED, ...command(source)])
  await sleep(400)
  const { answered } = await packets.stop()
  return (answered.at(-1) ?? Number.NaN) - Number(began.split('\n')[0]) * 1000
}

/**
 * Many bans at once, until all are in force: action lines one after another, as Fail2Ban runs them,
 * and a real Fail2Ban. The document's time is that of 20 runs of its script, times as many.
 */
async function manyAtOnce({ server, firewall }: Perimeter, fail2ban: Fail2ban): Promise<Row[]> {
  const script = ['/usr/local/sbin/banip.sh', 'fail2ban-many', '198.18.100.{round}', '22', 'tcp']
  // Its own connection each time, as published: an ssh_config without the shared one.
  await server.sh("sed -i '/^Control/d' /root/.ssh/config")
  const [single = 0] = await medians(server, 20, [script])
  const other = single * MANY
  const rows: Row[] = []
  const take = async (
    what: string,
    network: string,
    limit: { limit?: number },
    start: () => Promise<unknown>,
  ) => {
    const count = () => firewall.sh(`grep -c '^${network}' ${LEASES} || true`)
    const began = performance.now()
    await start()
    const all = async () => Number(await count()) === MANY
    await waitUntil('all to be in force', all, { timeout: 60_000, every: 10 })
    const own = performance.now() - began
    rows.push({ what, ours: ms(own), other: ms(other), ratio: own / other, ...limit })
  }
  const words = ['ban', '@', 'lines', String(Date.now() / 1000), '600', '22', 'tcp']
  await server.writeFile('/root/lines.json', JSON.stringify(appendCommand(QUEUE, words)))
  await take(`${MANY} bans at once, action lines alone`, '198.17', { limit: 1 / 50 }, () => {
    return server.run(['python3', '-c', LINES, String(MANY)], { timeout: 60_000 })
  })
  const addresses = Array.from({ length: MANY }, (_, i) => `198.19.${i >> 8}.${i & 255}`)
  await take(`${MANY} bans at once, with Fail2Ban's own time`, '198.19', {}, () => {
    return fail2ban.client('set', 'queued', 'banip', ...addresses)
  })
  return rows
}

/** A restart with many bans: packets that got through, and lines that the firewall was told. */
async function restart(
  { attacker, server, firewall }: Perimeter,
  fail2ban: Fail2ban,
): Promise<Row> {
  const addresses = Array.from({ length: RESTORED }, (_, i) => `198.20.${i >> 8}.${i & 255}`)
  for (let at = 0; at < RESTORED; at += 500) {
    await fail2ban.client('set', 'queued', 'banip', ...addresses.slice(at, at + 500))
  }
  const source = addressOf('attacker1', 'outside')
  await fail2ban.client('set', 'queued', 'banip', source)
  // What this benchmark has queued by itself, Fail2Ban knows nothing of: it goes before we count.
  await server.run(['f2b-sync'])
  const held = async () => (await firewall.sh(`grep -c . ${LEASES}`)).trim()
  await waitUntil('the bans', async () => Number(await held()) > RESTORED, { timeout: 60_000 })
  await sleep(2_000)
  const before = await held()
  await listen(server, { tcp: [22] })
  const packets = await probe(attacker, { source, to: addressOf('web1', 'inside'), port: 22 })
  await fail2ban.stop()
  await fail2ban.start()
  const restored = async () => {
    const text = await fail2ban.log()
    return (text.match(/\[queued\] Restore Ban/g)?.length ?? 0) > RESTORED
  }
  await waitUntil('all to be restored', restored, { timeout: 300_000, every: 1_000 })
  await sleep(5_000)
  const { sent, answered } = await packets.stop()
  const told = Number(await held()) - Number(before)
  const what = `restart with ${RESTORED} bans: lines sent, packets through`
  const ratio = told + answered.length
  return {
    what,
    ours: `${told} lines`,
    other: `${answered.length} of ${sent} packets`,
    ratio,
    limit: 0,
  }
}
