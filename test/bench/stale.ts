import { setTimeout as sleep } from 'node:timers/promises'
import { appendCommand } from '../lib/append.ts'
import { type Delivering, startDelivering } from '../lib/delivering.ts'
import { installPerimeter } from '../lib/installed.ts'
import type { Machine } from '../lib/machine.ts'
import { createPerimeter, type Perimeter } from '../lib/perimeter.ts'
import { waitUntil } from '../lib/wait.ts'

const QUEUE = '/var/lib/fail2ban-perimeter/queue/firewall'
const LEASES = '/var/lib/fail2ban-perimeter/firewall.leases'

/** How long the bytes of a dead session may take to arrive after the link is healed, milliseconds. */
const LATE = 15_000

/** What came of the stale-session experiment. */
export interface Stale {
  tries: number
  /** Addresses that stayed banned although their server had freed them. */
  stale: string[]
  /** Times that the firewall refused what a dead session said. */
  superseded: number
}

/**
 * A link is cut, a ban sent, the deliverer killed, the ban taken back, the link healed: what the dead
 * session still had in the network arrives last. Each server of the lab tries it once a round.
 */
export async function staleBans(servers: number, rounds: number): Promise<Stale> {
  const lab = await createPerimeter({ servers })
  try {
    await installPerimeter(lab)
    const delivering: Delivering[] = []
    for (const server of lab.servers) {
      await server.run(['f2b-deliver'])
      delivering.push(await startDelivering(server))
    }
    const stale: string[] = []
    for (let round = 0; round < rounds; round++)
      stale.push(...(await tryOnce(lab, delivering, round)))
    const journal = await lab.firewall.journal()
    const superseded = journal.filter((line) => line.includes('superseded')).length
    return { tries: servers * rounds, stale, superseded }
  } finally {
    await lab.close()
  }
}

async function tryOnce(lab: Perimeter, delivering: Delivering[], round: number): Promise<string[]> {
  const each = lab.servers.map((server, i) => ({
    server,
    address: `203.0.113.${round * 8 + i + 1}`,
  }))
  const warm = each.map(({ server }, i) => ({ server, address: `198.18.${round}.${i + 1}` }))
  await Promise.all(warm.map(ban))
  const isWarm = async () => (await living(lab.firewall)).filter(isOf(warm)).length === warm.length
  await waitUntil('the sessions', isWarm, { timeout: 60_000, every: 200 })
  await lab.network.cut(lab.firewall, 'mgmt')
  await Promise.all(each.map(ban))
  await sleep(700) // it is in the dead link now
  await Promise.all(delivering.map((one) => one.kill()))
  await Promise.all(each.map(unban))
  await sleep(500 + 500 * (round % 3))
  await lab.network.heal(lab.firewall, 'mgmt')
  const last = each.map((one, i) => ({ ...one, address: `198.19.${round}.${i + 1}` }))
  await Promise.all(last.map(ban))
  // It comes after the unban: a busy machine may take long for both.
  const isThrough = async () =>
    (await living(lab.firewall)).filter(isOf(last)).length === last.length
  await waitUntil('the new sessions', isThrough, { timeout: 120_000, every: 500 })
  await sleep(LATE)
  return (await living(lab.firewall)).filter(isOf(each))
}

interface Ban {
  server: Machine
  address: string
}

async function ban({ server, address }: Ban): Promise<void> {
  const time = String(Math.floor(Date.now() / 1000))
  await server.run(appendCommand(QUEUE, ['ban', address, 'sshd', time, '3600', '22', 'tcp']))
}

async function unban({ server, address }: Ban): Promise<void> {
  await server.run(appendCommand(QUEUE, ['unban', address, 'sshd']))
}

function isOf(bans: Ban[]): (address: string) => boolean {
  return (address) => bans.some((one) => one.address === address)
}

/** The addresses that anybody holds. */
async function living(firewall: Machine): Promise<string[]> {
  const last = new Map<string, string>()
  for (const line of (await firewall.sh(`cat ${LEASES}`)).split('\n')) {
    const [address = '', jail, expires = '', owner] = line.split(' ')
    if (address !== '' && address !== '#') last.set(`${address} ${jail} ${owner}`, expires)
  }
  const now = Date.now() / 1000
  return [...last].flatMap(([key, end]) => (Number(end) > now ? [key.split(' ')[0] ?? ''] : []))
}
