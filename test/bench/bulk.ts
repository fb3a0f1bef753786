import { installPerimeter } from '../lib/installed.ts'
import type { Machine } from '../lib/machine.ts'
import { createPerimeter } from '../lib/perimeter.ts'
import { median, medians, ms, type Row } from './table.ts'

const MANY = 100_000
const BANS = 10_000
const ROUNDS = 25
const LOADS = 3

/** A `firewall` session over the connection that is open. */
const SESSION = 'ssh -S "$(find /run/fail2ban-perimeter/ssh -type s | head -n 1)" edge1 firewall'

/** What a firewall with 100,000 leases costs, against an empty one and against the bare tools. */
export async function benchBulk(backend: 'nftables' | 'ipset'): Promise<Row[]> {
  const lab = await createPerimeter({ servers: 2 })
  try {
    await installPerimeter(lab, { backend })
    const { firewall, server } = lab
    const other = lab.servers[1] ?? server
    const yaml = '/etc/fail2ban-perimeter/firewall.yaml'
    await firewall.sh(`sed -i 's/^max_leases:.*/max_leases: 200000/' ${yaml}`)

    const [empty = 0] = await medians(server, ROUNDS, [ban(1)])
    await other.writeFile('/root/leases', leases())
    const [floors, wires, syncs]: number[][] = [[], [], []]
    for (let round = 0; round < LOADS; round++) {
      floors?.push(await bareTool(firewall, backend))
      wires?.push(await syncByWire(other))
      await emptyAgain(other, firewall)
      syncs?.push(
        await time(() => other.sh('f2b-firewall sync </root/leases', { timeout: 120_000 })),
      )
      if (round < LOADS - 1) await emptyAgain(other, firewall)
    }
    const [floor, wire, sync] = [floors, wires, syncs].map((times) => median(times ?? [])) as [
      number,
      number,
      number,
    ]
    const [full = 0] = await medians(server, ROUNDS, [ban(2)])
    const flood = await time(() => session(server))
    return [
      {
        what: `${backend}: one ban at ${MANY} leases, against none`,
        ours: ms(full),
        other: ms(empty),
        ratio: full / empty,
        limit: 1.2,
      },
      {
        what: `${backend}: sync of ${MANY} into an empty firewall, against ${backend === 'ipset' ? 'ipset restore' : 'nft -f'}`,
        ours: ms(sync),
        other: ms(floor),
        ratio: sync / floor,
        limit: 3,
      },
      {
        what: `${backend}: the same lines in a session that is fed from a file`,
        ours: ms(wire),
        other: ms(floor),
        ratio: wire / floor,
        limit: 3,
      },
      {
        what: `${backend}: ${BANS} bans in one session, ${Math.round((BANS * 1000) / flood)} a second, against 3000`,
        ours: ms(flood),
        other: ms(BANS / 3),
        ratio: (flood * 3) / BANS,
        limit: 1,
      },
    ]
  } finally {
    await lab.close()
  }
}

async function emptyAgain(server: Machine, firewall: Machine): Promise<void> {
  await server.run(['f2b-firewall', 'flush'], { timeout: 120_000 })
  await firewall.run(['/usr/local/lib/fail2ban-perimeter/sweepips'])
}

function ban(net: number): string[] {
  return ['banip', 'fail2ban-sshd', `198.18.${net}.{round}`, '22', 'tcp']
}

/** The same addresses entered by the tool itself, into a set of its own. */
async function bareTool(firewall: Machine, backend: string): Promise<number> {
  const nft = `add table inet bare
add set inet bare s { type ipv4_addr; flags timeout; }
add element inet bare s { ${addresses()
    .map((a) => `${a} timeout 86400s`)
    .join(', ')} }\n`
  const restore = [
    'create bare hash:net timeout 0 maxelem 4194304',
    ...addresses().map((a) => `add bare ${a} timeout 86400`),
    '',
  ]
  const nftables = backend === 'nftables'
  await firewall.writeFile('/root/bare', nftables ? nft : restore.join('\n'))
  const spent = await time(() =>
    firewall.sh(nftables ? 'nft -f /root/bare' : 'ipset restore </root/bare'),
  )
  await firewall.sh(nftables ? 'nft delete table inet bare' : 'ipset destroy bare')
  return spent
}

/** Ten thousand bans as `firewall` reads them. */
async function session(server: Machine): Promise<void> {
  const lines = Array.from(
    { length: BANS },
    (_, i) => `ban fail2ban-sshd ${address(i + 200_000)} 22 tcp\n`,
  )
  const done = await server.sh(`${SESSION} | grep -c '^ok$'`, {
    input: lines.join(''),
    timeout: 120_000,
  })
  if (done.trim() !== String(BANS)) throw new Error(`${done} of ${BANS} bans were taken`)
}

/** What the firewall and the way there take, without the client: milliseconds. */
async function syncByWire(server: Machine): Promise<number> {
  const end = Math.floor(Date.now() / 1000) + 86_400
  const lines = addresses().map((a) => `${a} ${end}\n`)
  await server.writeFile('/root/wire', `sync fail2ban-sshd 22 tcp ${MANY}\n${lines.join('')}`)
  await server.run(['f2b-firewall', 'start'])
  return await time(() => server.sh(`${SESSION} </root/wire`, { timeout: 120_000 }))
}

function leases(): string {
  const end = Math.floor(Date.now() / 1000) + 86_400
  return addresses()
    .map((a) => `${a} sshd ${end}\n`)
    .join('')
}

function addresses(): string[] {
  return Array.from({ length: MANY }, (_, i) => address(i))
}

/** 100.64.0.0/10 and on: nobody's, and not the lab's. */
function address(i: number): string {
  return `100.${64 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`
}

async function time(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work()
  return performance.now() - began
}
