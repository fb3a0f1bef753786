import { type Address, isSingle } from '../../scripts/lib/address.ts'
import { joined } from '../../scripts/lib/bulk.ts'
import type { PortRange, Service } from '../../scripts/lib/ports.ts'
import { run } from '../../scripts/lib/run.ts'
import { type Backend, type Chain, type Change, type Entry, millisecondsLeft } from './backend.ts'
import type { FirewallConfig } from './config.ts'
import { chainName } from './names.ts'
import { Tool } from './tool.ts'

const TABLE = 'inet fail2ban-perimeter'
const HOOKS: Record<string, string> = {
  INPUT: 'input',
  FORWARD: 'forward',
  // Docker's chain is called from FORWARD; our base chain comes before both.
  'DOCKER-USER': 'forward',
}
const FAMILIES = {
  inet4: { ip: 'ip', type: 'ipv4_addr', bits: 32, never: 'never-ban/4' },
  inet6: { ip: 'ip6', type: 'ipv6_addr', bits: 128, never: 'never-ban/6' },
} as const
type FamilyName = keyof typeof FAMILIES

/** A year; nft 1.0.6 takes that and refuses six. A longer lease is renewed by the sweeper. */
const LONGEST = 31_536_000

/**
 * A table of our own, with a chain per jail and base chains that come before everybody else's
 * filter. Every address is in a hash set of its prefix length (`fail2ban-sshd/inet4` for single
 * ones, `fail2ban-sshd/inet4/24` for ranges of that length, matched after masking). So ranges may
 * overlap and a change costs the same at any size; an interval set would cost linear time.
 */
export function nftables(config: FirewallConfig): Backend {
  const hooks = [...new Set(config.hooks.flatMap((hook) => HOOKS[hook] ?? []))]
  const verdict = config.blocktype === 'REJECT' ? 'reject' : 'drop'
  const tool = new Tool('nft', ['-f', '-'])
  const commit = (lines: string[]) => tool.feed(`${lines.join('\n')}\n`)

  return {
    name: 'nftables',
    expires: true,
    longest: LONGEST,
    tool,

    async works() {
      // Changes nothing, but needs the program, the kernel's support and the right to use it.
      return hooks.length > 0 && (await run('nft', ['list', 'tables'])).code === 0
    },

    async apply(change) {
      const lines = changeLines(change, hooks, verdict)
      if (lines.length > 0) await commit(lines)
    },

    async rebuild({ chains, entries, never }) {
      const fresh = chains.map((chain) => chain.jail)
      const all = {
        chains,
        fresh,
        drop: [],
        never,
        enter: entries,
        extend: [],
        leave: [],
        load: [],
      }
      await commit([
        `add table ${TABLE}`,
        `delete table ${TABLE}`,
        ...changeLines(all, hooks, verdict),
      ])
    },

    async count(chains) {
      const { code, stdout } = await run('nft', ['-j', 'list', 'table', ...TABLE.split(' ')])
      return code === 0 ? countTable(stdout, chains, hooks) : undefined
    },

    async present() {
      // A check without commit; any `list` reads every set (0.5 s for 100,000 elements).
      const { code } = await run('nft', ['-c', `flush chain ${TABLE} ${hooks[0]}`])
      return code === 0
    },

    async remove() {
      await commit([`add table ${TABLE}`, `delete table ${TABLE}`])
    },
  }
}

function changeLines(change: Change, hooks: string[], verdict: string): string[] {
  const lines: string[] = []
  if (change.chains) {
    lines.push(`add table ${TABLE}`, ...neverSets(), ...hooks.flatMap(emptyBaseChain))
    for (const chain of change.chains) {
      if (change.fresh.includes(chain.jail)) lines.push(...jailChain(chain, verdict))
    }
    lines.push(...hooks.flatMap((hook) => jumps(hook, change.chains ?? [])))
  }
  lines.push(...change.drop.flatMap(dropChain))
  if (change.never) lines.push(...neverElements(change.never))
  for (const { chain, entries } of change.load) lines.push(...flushSets(chain), ...adding(entries))
  lines.push(...adding(change.enter))
  // An element that is there may keep its old timeout when it is added again, depending on the
  // kernel, and deleting one that is not there fails: add, delete, add is right in every case.
  lines.push(...adding(change.extend), ...deleting(change.extend), ...adding(change.extend))
  lines.push(...adding(change.leave, 60), ...deleting(change.leave))
  return lines
}

function neverSets(): string[] {
  return Object.values(FAMILIES).map(
    ({ type, never }) => `add set ${TABLE} ${never} { type ${type}; flags interval; auto-merge; }`,
  )
}

function neverElements(never: Address[]): string[] {
  return (Object.keys(FAMILIES) as FamilyName[]).flatMap((family) => {
    const set = FAMILIES[family].never
    const elements = never.filter((a) => a.family === family).map((a) => a.text)
    return [
      `flush set ${TABLE} ${set}`,
      ...(elements.length > 0 ? [`add element ${TABLE} ${set} { ${elements.join(', ')} }`] : []),
    ]
  })
}

function emptyBaseChain(hook: string): string[] {
  return [
    `add chain ${TABLE} ${hook} { type filter hook ${hook} priority filter - 5; policy accept; }`,
    `flush chain ${TABLE} ${hook}`,
  ]
}

/** First who is never blocked, then a jump for each jail and protocol. */
function jumps(hook: string, chains: Chain[]): string[] {
  const never = Object.values(FAMILIES).map((f) => `${f.ip} saddr @${f.never} accept`)
  const jump = chains.flatMap(({ jail, services }) =>
    services.map((service) => `${matchOf(service)}jump ${chainName(jail)} comment "${jail}"`),
  )
  return [...never, ...jump].map((rule) => `add rule ${TABLE} ${hook} ${rule}`)
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

function jailChain({ jail, widths }: Chain, verdict: string): string[] {
  const chain = chainName(jail)
  const sets = ['inet4', 'inet6', ...widths].map((width) => {
    const [family, prefix] = width.split('/') as [FamilyName, string | undefined]
    const { ip, type, bits } = FAMILIES[family]
    const mask = prefix ? ` & ${maskText(family, Number(prefix), bits)}` : ''
    const set = `${chain}/${width}`
    return {
      create: `add set ${TABLE} ${set} { type ${type}; flags timeout; }`,
      rule: `add rule ${TABLE} ${chain} ${ip} saddr${mask} @${set} ${verdict}`,
    }
  })
  return [
    ...sets.map((set) => set.create),
    `add chain ${TABLE} ${chain}`,
    `flush chain ${TABLE} ${chain}`,
    ...sets.map((set) => set.rule),
  ]
}

function maskText(family: FamilyName, prefix: number, bits: number): string {
  const mask = ((1n << BigInt(prefix)) - 1n) << BigInt(bits - prefix)
  if (family === 'inet4') return [24n, 16n, 8n, 0n].map((shift) => (mask >> shift) & 255n).join('.')
  return (mask.toString(16).padStart(32, '0').match(/.{4}/g) ?? []).join(':')
}

function dropChain({ jail, widths }: Chain): string[] {
  const chain = chainName(jail)
  return [
    `flush chain ${TABLE} ${chain}`,
    `delete chain ${TABLE} ${chain}`,
    ...['inet4', 'inet6', ...widths].map((width) => `delete set ${TABLE} ${chain}/${width}`),
  ]
}

function flushSets({ jail, widths }: Chain): string[] {
  const sets = ['inet4', 'inet6', ...widths].map((width) => `${chainName(jail)}/${width}`)
  return sets.map((set) => `flush set ${TABLE} ${set}`)
}

function setName(jail: string, address: Address): string {
  const width = isSingle(address) ? '' : `/${address.prefix}`
  return `${chainName(jail)}/${address.family}${width}`
}

/** `add element` lines, one per set. */
function adding(
  entries: readonly (Omit<Entry, 'expires'> & { expires?: number })[],
  fixed = 0,
): string[] {
  const at = Date.now()
  return bySet(entries).map(([set, list]) => {
    const element = ({ address, expires }: (typeof list)[number]) => {
      const time = fixed * 1000 || (expires ? millisecondsLeft(expires, LONGEST, at) : 0)
      return keyOf(address) + (time ? ` timeout ${Math.floor(time / 1000)}s${time % 1000}ms` : '')
    }
    return `add element ${TABLE} ${set} { ${joined(list, element, ', ')} }`
  })
}

function deleting(entries: Omit<Entry, 'expires'>[]): string[] {
  return bySet(entries).map(([set, list]) => {
    return `delete element ${TABLE} ${set} { ${list.map((e) => keyOf(e.address)).join(', ')} }`
  })
}

function bySet<T extends Omit<Entry, 'expires'>>(entries: readonly T[]): [string, T[]][] {
  const sets = new Map<string, T[]>()
  let last: T | undefined
  let list: T[] = []
  for (const entry of entries) {
    if (!last || !sameSet(last, entry)) {
      const set = setName(entry.jail, entry.address)
      list = sets.get(set) ?? []
      sets.set(set, list)
    }
    list.push(entry)
    last = entry
  }
  return [...sets]
}

function sameSet(a: Omit<Entry, 'expires'>, b: Omit<Entry, 'expires'>): boolean {
  const sameSize = a.address.family === b.address.family && a.address.prefix === b.address.prefix
  return sameSize && a.jail === b.jail
}

/** The masked address, without its prefix length. */
function keyOf(address: Address): string {
  return isSingle(address) ? address.text : address.text.slice(0, address.text.indexOf('/'))
}

interface Listed {
  set?: { name: string; elem?: unknown[] }
  rule?: { chain: string }
  chain?: { name: string }
}

/** Entries per jail as nft's JSON shows them; undefined if a chain or a jump is missing. */
function countTable(
  json: string,
  chains: Chain[],
  hooks: string[],
): Map<string, number> | undefined {
  const listed = (JSON.parse(json) as { nftables: Listed[] }).nftables
  const rules = new Map<string, number>()
  const sizes = new Map<string, number>()
  for (const { set, rule } of listed) {
    if (rule) rules.set(rule.chain, (rules.get(rule.chain) ?? 0) + 1)
    if (set) sizes.set(set.name, set.elem?.length ?? 0)
  }
  const expected = 2 + chains.reduce((sum, chain) => sum + chain.services.length, 0)
  if (hooks.some((hook) => rules.get(hook) !== expected)) return undefined
  const counts = new Map<string, number>()
  for (const { jail, widths } of chains) {
    const name = chainName(jail)
    if (rules.get(name) !== widths.length + 2) return undefined
    const sets = ['inet4', 'inet6', ...widths].map((width) => sizes.get(`${name}/${width}`) ?? 0)
    counts.set(
      jail,
      sets.reduce((sum, size) => sum + size, 0),
    )
  }
  return counts
}
