import { installPerimeter } from '../lib/installed.ts'
import { PROJECT } from '../lib/lab.ts'
import type { Machine } from '../lib/machine.ts'
import { addressOf, createPerimeter, type Perimeter } from '../lib/perimeter.ts'
import { median, type Row } from './table.ts'

const JAILS = 255
const ROUNDS = 25
const SECONDS = 0.2

/** The rate without us to ours: 90 % are kept. */
const LIMIT = 1.11

const CASES = {
  'one ban': [ban(0, '100.64.0.1'), ban(0, '2001:db8:f000::1')],
  [`${JAILS} bans in ${JAILS} jails`]: jails((j) => [`100.64.0.${j}`, `2001:db8:f000::${j}`]),
  [`${JAILS} jails with ranges of all lengths`]: jails(rangesOf),
}

/**
 * What one core forwards of packets that nobody bans, with the bans of one server's key on the
 * firewall, beside another firewall without any rules: a round over the one, a round over the other.
 */
export async function benchPackets(backend: 'nftables' | 'ipset' | 'iptables'): Promise<Row[]> {
  const lab = await createPerimeter({ firewalls: 2, servers: 2 })
  try {
    await installPerimeter(lab, { backend })
    await openPaths(lab)
    const rows: Row[] = []
    for (const [what, bans] of Object.entries(CASES)) {
      await session(lab.firewall, ['flush', ...bans])
      for (const family of ['inet4', 'inet6'] as const) {
        const { ours, none, ratio } = await rates(lab, family)
        const [mine = '', other = ''] = [ours, none].map((rate) => `${Math.round(rate / 1000)} k/s`)
        const name = `${backend}: ${what}, IPv${family.slice(4)}`
        rows.push({ what: name, ours: mine, other, ratio, limit: LIMIT })
      }
    }
    return rows
  } finally {
    await lab.close()
  }
}

/** The first server is reached over the first firewall, the second over the other, which has no rules. */
async function openPaths({ attacker, firewalls, servers }: Perimeter): Promise<void> {
  await firewalls[1]?.sh('nft flush ruleset; ipset destroy')
  for (const family of ['inet4', 'inet6'] as const) {
    const to = addressOf('web2', 'inside', family)
    await attacker.run(['ip', 'route', 'add', to, 'via', addressOf('edge2', 'outside', family)])
  }
  for (const server of servers) {
    // The packets have arrived; nobody answers.
    await server.sh(`nft add table netdev sink
nft add chain netdev sink in '{ type filter hook ingress device inside priority 0; }'
nft add rule netdev sink in udp dport 9 drop`)
  }
}

async function rates({ attacker }: Perimeter, family: 'inet4' | 'inet6') {
  const source = addressOf('attacker1', 'outside', family)
  const send = async (server: string): Promise<number> => {
    const target = addressOf(server, 'inside', family)
    const script = `${PROJECT}/test/bench/packets.py`
    return Number(await attacker.run(['python3', script, source, target, String(SECONDS)]))
  }
  const ours: number[] = []
  const none: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    ours.push(await send('web1'))
    none.push(await send('web2'))
  }
  // Round by round, so that a busy moment of the machine is in both.
  const ratio = median(none.map((rate, i) => rate / (ours[i] ?? 0)))
  return { ours: median(ours), none: median(none), ratio }
}

/** What the gate hands over of a session of the first server. */
async function session(firewall: Machine, lines: string[]): Promise<void> {
  const head = [`owner web1 ${addressOf('web1', 'mgmt')}`, 'firewall']
  const program = '/usr/local/lib/fail2ban-perimeter/perimeter'
  const input = [...head, ...lines, ''].join('\n')
  const answers = await firewall.run([program], { input, timeout: 600_000 })
  const refused = answers.split('\n').find((line) => line.startsWith('error'))
  if (refused) throw new Error(refused)
}

function jails(addresses: (jail: number) => string[]): string[] {
  return Array.from({ length: JAILS }, (_, j) => addresses(j).map((text) => ban(j, text))).flat()
}

function ban(jail: number, address: string): string {
  return `ban fail2ban-j${jail} ${address} ${1000 + jail} udp`
}

/** Two single addresses and a range of every length that one server may ban at a time. */
function rangesOf(jail: number): string[] {
  const four = Array.from({ length: 8 }, (_, i) => `10.${24 + i}.${jail}.0/${24 + i}`)
  const six = Array.from({ length: 16 }, (_, i) => {
    return `2001:db8:${((48 + i) * 256 + jail).toString(16)}::/${48 + i}`
  })
  return [...four, ...six, `100.64.0.${jail}`, `2001:db8:f000::${jail}`]
}
