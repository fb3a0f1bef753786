import type { Family } from '../../scripts/lib/address.ts'
import type { PortRange, Service } from '../../scripts/lib/ports.ts'
import { type Chain, directOf, NEAR, widthsOf } from './backend.ts'
import { chainName } from './names.ts'

// The table of the backend `nftables`, as a function of the chains that there are:
//
//   forward          ip saddr @banned/inet4 jump banned/inet4              the index of all jails
//                    ip saddr & /24 @near/inet4 jump near/inet4            is there any range near?
//   banned/inet4     ip saddr @fail2ban-web/inet4 jump fail2ban-web        jail by jail
//   near/inet4       ip saddr & /26 @banned/inet4/26 jump banned/inet4/26  length by length
//   banned/inet4/26  ip saddr & /26 @fail2ban-web/inet4/26 jump fail2ban-web
//   fail2ban-web     ip saddr @never-ban/4 accept
//                    meta l4proto tcp th dport { 80 } counter name fail2ban-web drop
//
// A packet whose source nobody bans is done after two look-ups; an only jail needs no index, and is
// looked for directly. The counters are objects of their own, so that a chain can be written anew
// without them.

export const TABLE = 'inet fail2ban-perimeter'

export const FAMILIES = {
  inet4: { ip: 'ip', type: 'ipv4_addr', bits: 32, never: 'never-ban/4' },
  inet6: { ip: 'ip6', type: 'ipv6_addr', bits: 128, never: 'never-ban/6' },
} as const
const NAMES = ['inet4', 'inet6'] as const

/** What the table consists of: each thing by its name, with what is said to make it. */
export interface Layout {
  sets: Map<string, string>
  counters: Set<string>
  /** The rules of each chain. */
  chains: Map<string, string[]>
}

/** The prefix lengths of a chain's sets: those of single addresses have none. */
function setsOf(chain: Chain): string[] {
  return [...NAMES, ...chain.widths]
}

export function layoutOf(chains: readonly Chain[], hooks: string[], verdict: string): Layout {
  const layout: Layout = { sets: new Map(), counters: new Set(), chains: new Map() }
  if (chains.length === 0) return layout
  const widths = widthsOf(chains)
  const direct = directOf(chains)
  const indexed = [...(chains.length > 1 ? NAMES : []), ...widths]
  for (const family of NAMES) {
    layout.sets.set(FAMILIES[family].never, plain(family, ' flags interval; auto-merge;'))
    if (nearWidths(family, widths).length === 0) continue
    layout.sets.set(`near/${family}`, plain(family))
    const rules = nearWidths(family, widths).map((width) => jump(width, 'banned', 'banned'))
    layout.chains.set(`near/${family}`, rules)
  }
  for (const width of indexed) layout.sets.set(`banned/${width}`, plain(familyOf(width)))
  for (const chain of chains) {
    const name = chainName(chain.jail)
    layout.counters.add(name)
    layout.chains.set(name, jailRules(chain, verdict))
    for (const width of setsOf(chain)) {
      layout.sets.set(`${name}/${width}`, plain(familyOf(width), ' flags timeout;'))
    }
  }
  for (const width of indexed) {
    const members = chains.filter(({ jail, widths: own }) =>
      width.includes('/') ? own.includes(width) : jail !== direct,
    )
    const rules = members.map(({ jail }) => jump(width, chainName(jail), chainName(jail), false))
    layout.chains.set(`banned/${width}`, rules)
  }
  for (const hook of hooks) layout.chains.set(hook, baseRules(chains, widths))
  return layout
}

/** The lines that turn one layout into another. */
export function layoutLines(before: Layout, now: Layout): { first: string[]; last: string[] } {
  const lines = [`add table ${TABLE}`]
  if (now.chains.size === 0) return { first: [...lines, `delete table ${TABLE}`], last: [] }
  for (const name of now.counters) {
    if (!before.counters.has(name)) lines.push(`add counter ${TABLE} ${name}`)
  }
  for (const [name, text] of now.sets) {
    if (!before.sets.has(name)) lines.push(`add set ${TABLE} ${name} ${text}`)
  }
  for (const name of now.chains.keys()) {
    if (!before.chains.has(name)) lines.push(`add chain ${TABLE} ${name}${baseOf(name)}`)
  }
  for (const [name, rules] of now.chains) {
    const old = before.chains.get(name) ?? []
    const grown = old.every((rule, i) => rule === rules[i])
    if (!grown) lines.push(`flush chain ${TABLE} ${name}`)
    for (const rule of grown ? rules.slice(old.length) : rules) {
      lines.push(`add rule ${TABLE} ${name} ${rule}`)
    }
  }
  const gone = (old: Iterable<string>, left: { has(name: string): boolean }, kind: string) =>
    [...old].filter((name) => !left.has(name)).map((name) => `${kind} ${TABLE} ${name}`)
  const last = [
    ...gone(before.chains.keys(), now.chains, 'flush chain'),
    ...gone(before.chains.keys(), now.chains, 'delete chain'),
    ...gone(before.sets.keys(), now.sets, 'delete set'),
    ...gone(before.counters, now.counters, 'delete counter'),
  ]
  return { first: lines, last }
}

/** What every packet pays for. */
function baseRules(chains: readonly Chain[], widths: string[]): string[] {
  return NAMES.flatMap((family) => {
    const only = directOf(chains)
    const wide = widths.filter((width) => familyOf(width) === family && !isNear(width))
    return [
      only === undefined
        ? jump(family, 'banned', 'banned')
        : jump(family, chainName(only), chainName(only), false),
      ...(nearWidths(family, widths).length > 0
        ? [jump(`${family}/${NEAR[family]}`, 'near', 'near', true, family)]
        : []),
      ...wide.map((width) => jump(width, 'banned', 'banned')),
    ]
  })
}

/** Jumps if the source, cut to a length, is in a set: `<set>/<width>`. */
function jump(width: string, set: string, chain: string, suffix = true, name = width): string {
  const family = familyOf(width)
  const prefix = Number(width.split('/')[1] ?? 0)
  const mask = prefix ? ` & ${maskText(family, prefix)}` : ''
  const to = suffix ? `${chain}/${name}` : chain
  return `${FAMILIES[family].ip} saddr${mask} @${set}/${name} jump ${to}`
}

/** First who is never blocked, then what is, counted. */
function jailRules({ jail, services }: Chain, verdict: string): string[] {
  return [
    ...Object.values(FAMILIES).map(({ ip, never }) => `${ip} saddr @${never} accept`),
    ...services.map(
      (service) =>
        `${matchOf(service)}counter name ${JSON.stringify(chainName(jail))} ${verdict} comment ${JSON.stringify(jail)}`,
    ),
  ]
}

function matchOf({ protocol, ports }: Service): string {
  if (protocol === 'all') return ''
  const name = protocol === 'icmp' ? '{ icmp, icmpv6 }' : protocol
  const match = `meta l4proto ${name} `
  return ports === 'all' ? match : `${match}th dport { ${ports.map(rangeText).join(', ')} } `
}

function rangeText([from, to]: PortRange): string {
  return from === to ? String(from) : `${from}-${to}`
}

function baseOf(name: string): string {
  const hook = name === 'input' || name === 'forward'
  return hook ? ` { type filter hook ${name} priority filter - 5; policy accept; }` : ''
}

function plain(family: Family, more = ''): string {
  return `{ type ${FAMILIES[family].type};${more} }`
}

function familyOf(width: string): Family {
  return width.startsWith('inet4') ? 'inet4' : 'inet6'
}

function isNear(width: string): boolean {
  return Number(width.split('/')[1]) >= NEAR[familyOf(width)]
}

function nearWidths(family: Family, widths: string[]): string[] {
  return widths.filter((width) => familyOf(width) === family && isNear(width))
}

const masks = new Map<string, string>()

function maskText(family: Family, prefix: number): string {
  const key = `${family}/${prefix}`
  const known = masks.get(key) ?? makeMask(family, prefix)
  masks.set(key, known)
  return known
}

function makeMask(family: Family, prefix: number): string {
  const { bits } = FAMILIES[family]
  const mask = ((1n << BigInt(prefix)) - 1n) << BigInt(bits - prefix)
  if (family === 'inet4') return [24n, 16n, 8n, 0n].map((shift) => (mask >> shift) & 255n).join('.')
  return (mask.toString(16).padStart(32, '0').match(/.{4}/g) ?? []).join(':')
}
