import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Delivering, QUEUED, startDelivering } from './lib/delivering.ts'
import { type Fail2ban, startFail2ban } from './lib/fail2ban.ts'
import { installPerimeter } from './lib/installed.ts'
import type { Machine } from './lib/machine.ts'
import { addressOf, createPerimeter, type Perimeter } from './lib/perimeter.ts'
import { startSshd } from './lib/ssh.ts'
import { canConnect, listen, type Probe, probe } from './lib/traffic.ts'
import { waitUntil } from './lib/wait.ts'

// Everything that can happen to bans on their way, at once: in the end both firewalls equal what the
// Fail2Bans of three servers have banned, and what was banned all the time never got in.

const ALWAYS = addressOf('attacker1', 'outside')
const LATE = '203.0.113.150'
const RESTORE = ['/usr/local/lib/fail2ban-perimeter/restorefw']

/** So many deliverers are killed; everything else goes on as long. */
const KILLS = Number(process.env.KILLS ?? 12)

/** Says what came after what, should it fail: the same every time. */
const random = generator(20261120)

interface Server {
  machine: Machine
  fail2ban: Fail2ban
  delivering: Delivering
}

let lab: Perimeter
const servers: Server[] = []

before(async () => {
  lab = await createPerimeter({ firewalls: 2, servers: 3 })
  await installPerimeter(lab)
  await lab.attacker.run(['ip', 'address', 'add', `${LATE}/24`, 'dev', 'outside'])
  for (const machine of lab.servers) {
    await listen(machine, { tcp: [22] })
    // A disk of its own that can be filled.
    await machine.sh(
      'mkdir -p /var/lib/fail2ban-perimeter && mount -t tmpfs -o size=8m tmpfs /var/lib/fail2ban-perimeter',
    )
    await machine.run(['f2b-deliver'])
    const delivering = await startDelivering(machine)
    const fail2ban = await startFail2ban(machine, [{ name: 'sshd', action: QUEUED }])
    servers.push({ machine, fail2ban, delivering })
  }
})
after(async () => {
  for (const { delivering } of servers) await delivering.stop().catch(() => {})
  await lab.close()
})

const path = (source: string) => ({ source, to: addressOf('web1', 'inside'), port: 22 })

test('two firewalls, three owners, and everything goes wrong', async (t) => {
  const [web1] = servers as [Server]
  await web1.fail2ban.client('set', 'sshd', 'banip', ALWAYS)
  await waitUntil('the block', async () => !(await canConnect(lab.attacker, path(ALWAYS))))
  const always = await probe(lab.attacker, path(ALWAYS))
  const log: string[] = []
  const did = (what: string) => log.push(`${new Date().toISOString()} ${what}`)
  try {
    await Promise.all([
      ...servers.map((server) => ban(server)),
      killDeliverers(did),
      restartFail2bans(did),
      breakFirewalls(did),
      fillDisk(did),
    ])
    await afterACut(did)
  } finally {
    t.diagnostic(log.join('\n'))
  }
  // Where the disk was full, Fail2Ban was told that a ban could not be queued, and goes on without:
  // the sync that a timer starts every minute makes good. All others need none.
  const [, web2] = servers as [Server, Server]
  await web2.machine.run(['f2b-sync'])
  for (const edge of [0, 1]) for (const server of servers) await isEqual(edge, server)
  const { sent, answered } = await always.stop()
  assert.ok(sent > 500, `${sent} packets`)
  assert.deepEqual(answered, [], 'a banned address got in')
})

async function isEqual(edge: number, { machine, fail2ban }: Server): Promise<void> {
  let [has, wants] = ['', '']
  const look = async () => {
    has = await held(edge, machine.name)
    wants = await banned(fail2ban)
    return has === wants
  }
  const what = `edge${edge + 1} to have what ${machine.name} has banned`
  await waitUntil(what, look, { timeout: 120_000, every: 500 }).catch((error) => {
    throw new Error(`${error.message}\nhas   ${has}\nwants ${wants}`)
  })
}

/** Bans and unbans like a busy day. */
async function ban({ fail2ban, machine }: Server): Promise<void> {
  const number = machine.name.slice(3)
  for (let round = 0; round < 5 * KILLS; round++) {
    const address = `198.51.${number}.${1 + Math.floor(random() * 40)}`
    const verb = random() < 0.7 ? 'banip' : 'unbanip'
    // While it is restarted it answers nobody; what it was not told is not its ban.
    await fail2ban.client('set', 'sshd', verb, address).catch(() => {})
    await sleep(400 * random())
  }
}

async function killDeliverers(did: (what: string) => void): Promise<void> {
  for (let round = 0; round < KILLS; round++) {
    await sleep(300 + 1500 * random())
    const victim = servers[Math.floor(random() * servers.length)]
    did(`kill f2b-deliver on ${victim?.machine.name}`)
    await victim?.delivering.kill()
  }
}

async function restartFail2bans(did: (what: string) => void): Promise<void> {
  for (const { machine, fail2ban } of servers) {
    await sleep(3_000 * random())
    did(`restart Fail2Ban on ${machine.name}`)
    await fail2ban.stop()
    await fail2ban.start()
  }
}

async function breakFirewalls(did: (what: string) => void): Promise<void> {
  const [one, two] = lab.firewalls as [Machine, Machine]
  await sleep(1_500)
  did('cut edge2')
  await lab.network.cut(two, 'mgmt')
  await sleep(5_000)
  did('heal edge2, reboot edge1')
  await lab.network.heal(two, 'mgmt')
  await one.reboot({ beforeNetwork: () => one.run(RESTORE) })
  await sleep(2_000)
  await startSshd(one)
  did('edge1 lets servers in again')
  await sleep(2_000)
  did('kill every session on edge2')
  two.signal('sshd', 'SIGKILL')
  await sleep(1_000)
  await two.sh('rm -f /run/sshd.pid')
  await startSshd(two)
}

async function fillDisk(did: (what: string) => void): Promise<void> {
  const [, web2] = servers as [Server, Server]
  await sleep(4_000)
  did('fill the disk of web2')
  const fill = 'dd if=/dev/zero of=/var/lib/fail2ban-perimeter/fill bs=64k 2>/dev/null || true'
  await web2.machine.sh(fill)
  await sleep(3_000)
  did('there is room again')
  await web2.machine.run(['rm', '/var/lib/fail2ban-perimeter/fill'])
}

/** An address that is banned while the firewall cannot be told gets in until it can, not longer. */
async function afterACut(did: (what: string) => void): Promise<void> {
  const [web1] = servers as [Server]
  await lab.network.cut(lab.firewall, 'mgmt')
  did('cut edge1')
  const packets: Probe = await probe(lab.attacker, path(LATE))
  await web1.fail2ban.client('set', 'sshd', 'banip', LATE)
  await sleep(4_000)
  await lab.network.heal(lab.firewall, 'mgmt')
  const healed = Date.now()
  did('heal edge1')
  await waitUntil('the block', async () => !(await canConnect(lab.attacker, path(LATE))))
  await sleep(1_000)
  const { answered } = await packets.stop()
  assert.ok(answered.length > 0, 'nothing came through while the firewall was away')
  const last = (answered.at(-1) ?? 0) - healed
  assert.ok(last < 20_000, `it got in for ${last} ms after the firewall was back`)
}

async function banned(fail2ban: Fail2ban): Promise<string> {
  const text = await fail2ban.client('get', 'sshd', 'banip')
  return text.split(/\s+/).filter(Boolean).sort().join(' ')
}

/** What a firewall has of an owner, as its ledger says. */
async function held(edge: number, owner: string): Promise<string> {
  const text =
    (await lab.firewalls[edge]?.sh('cat /var/lib/fail2ban-perimeter/firewall.leases')) ?? ''
  const last = new Map<string, number>()
  for (const line of text.split('\n')) {
    const [address = '', , expires, name] = line.split(' ')
    if (!line.startsWith('#') && name === owner) last.set(address, Number(expires))
  }
  const now = Date.now() / 1000
  const alive = [...last].filter(([, expires]) => expires > now)
  return alive
    .map(([address]) => address)
    .sort()
    .join(' ')
}

/** Numbers from 0 to 1 that are the same in every run (a linear congruential generator). */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32
    return state / 2 ** 32
  }
}
