import { type Address, type Family, isSingle } from '../../scripts/lib/address.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import type { PortRange, Service } from '../../scripts/lib/ports.ts'
import { run } from '../../scripts/lib/run.ts'
import type { Chain } from './backend.ts'
import { chainName } from './names.ts'
import { Tool } from './tool.ts'

// The iptables half that the backends `ipset` and `iptables` share: chains, and jumps into the first.

/** In a comment on every rule of ours that stands in somebody else's chain, or ends one of ours. */
const MARK = 'fail2ban-perimeter'

/** What the chains of the index are called, of which nobody else has any. */
const INDEX = /^perimeter-/
const OURS = /^(fail2ban|f2b|perimeter)-/
const SIGN = new RegExp(`--comment "${MARK}: | --match-set perimeter-never-`)

/** `multiport` takes 15 ports, and a range counts as two. */
const MULTIPORT = 15

const TOOLS = { inet4: 'iptables', inet6: 'ip6tables' } as const
export const FAMILIES = ['inet4', 'inet6'] as const

/** The filter table of one family as `iptables -S` prints it. */
export interface Dump {
  /** Every chain that there is, also other people's. */
  chains: Set<string>
  /** The rules of a chain, without `-A <chain>`. */
  rules: Map<string, string[]>
}

/** The chains that there should be, each with its rules in the very words that `iptables -S` uses. */
export type Layout = Map<string, string[]>

/** @returns undefined if iptables does not work here for that family */
export async function dump(family: Family): Promise<Dump | undefined> {
  const { code, stdout } = await run(TOOLS[family], ['-w', '5', '-S'])
  if (code !== 0) return undefined
  const found: Dump = { chains: new Set(), rules: new Map() }
  for (const line of stdout.split('\n')) {
    const [flag, chain] = line.split(' ', 2)
    if (!chain) continue
    if (flag === '-P' || flag === '-N') found.chains.add(chain)
    if (flag !== '-A') continue
    const rule = line.slice(chain.length + 4)
    const rules = found.rules.get(chain)
    if (rules) rules.push(rule)
    else found.rules.set(chain, [rule])
  }
  return found
}

/** Commits lines in one transaction; other people's rules are not part of it. @throws Failure 75 */
export async function restore(family: Family, lines: string[]): Promise<void> {
  if (lines.length === 0) return
  const script = ['*filter', ...lines, 'COMMIT', ''].join('\n')
  await new Tool(`${TOOLS[family]}-restore`, ['-w', '5', '--noflush']).feed(script)
}

/** Our chains, told by their name and a rule that only we write. */
export function ourChains(now: Dump): string[] {
  return [...now.rules].flatMap(([chain, rules]) =>
    OURS.test(chain) && rules.some((rule) => SIGN.test(rule)) ? [chain] : [],
  )
}

/** The rule that each of our chains ends with. */
export function lastRule(name: string): string {
  return `-m comment --comment "${MARK}: ${name}" -j RETURN`
}

/**
 * The chains that have the name of one of ours but hold rules of another program. An empty one is
 * ours: `iptables -F` leaves nothing else of it, and nobody misses what is written there.
 *
 * @param known chains that were ours before: for those, the others are served all the same
 * @throws Failure 76 for any other
 */
export function checkForeign(
  now: Dump,
  chains: readonly Chain[],
  known: readonly Chain[],
): Set<string> {
  const ours = new Set(ourChains(now))
  const theirs = new Set<string>()
  const old = new Set(known.map(({ jail }) => jail))
  for (const { jail } of chains) {
    const name = chainName(jail)
    if (!now.rules.has(name) || ours.has(name)) continue
    if (!old.has(jail)) throw foreignFailure(name)
    theirs.add(name)
  }
  return theirs
}

/** What to say when a chain of the name we need was made by another program. */
function foreignFailure(chain: string): Failure {
  return new Failure(EXIT.unexpected, foreignText(chain))
}

export function foreignText(chain: string): string {
  return `Cannot use chain "${chain}": it was not made by fail2ban-perimeter; remove it first`
}

/** A rule of ours for somebody else's chain. The mark comes last: only who matches pays for it. */
export function jumpTo(chain: string, match = ''): string {
  return `${match}-m comment --comment ${MARK} -j ${chain}`
}

/**
 * The lines that make our chains and jumps as they should be, in the hooks that exist (DOCKER-USER
 * does not everywhere). What is right already is left alone, with its counters.
 *
 * @param jumps the rules that each hook begins with
 * @param gone chains that were ours before; what an `iptables -F` left of them goes, too
 */
export function layoutLines(
  now: Dump,
  layout: Layout,
  hooks: string[],
  jumps: readonly string[],
  gone: Iterable<string> = [],
): string[] {
  const old = new Set(ourChains(now))
  const index = [...now.chains].filter((chain) => INDEX.test(chain))
  for (const name of [...gone, ...index]) {
    if (now.chains.has(name) && !now.rules.has(name)) old.add(name)
  }
  const superfluous = [...old].filter((chain) => !layout.has(chain))
  const fresh = new Map<string, string[]>()
  const edits: string[] = []
  for (const [chain, rules] of layout) {
    const lines = now.chains.has(chain) && edited(chain, now.rules.get(chain) ?? [], rules)
    if (lines) edits.push(...lines)
    else fresh.set(chain, rules)
  }
  return [
    ...[...fresh.keys()].map((chain) => `:${chain} - [0:0]`),
    ...[...fresh].flatMap(([chain, rules]) => rules.map((rule) => `-A ${chain} ${rule}`)),
    ...edits,
    ...jumpLines(now, hooks, jumps),
    ...superfluous.map((chain) => `-F ${chain}`),
    ...superfluous.map((chain) => `-X ${chain}`),
  ]
}

/**
 * The lines that turn a chain's rules into others without touching those that stay; undefined if it
 * is better written anew.
 */
function edited(chain: string, old: string[], rules: string[]): string[] | undefined {
  const wanted = new Set(rules)
  const kept = old.filter((rule) => wanted.has(rule))
  const have = new Set(kept)
  const inOrder = rules.filter((rule) => have.has(rule))
  if (kept.length !== inOrder.length || kept.some((rule, i) => rule !== inOrder[i]))
    return undefined
  if (2 * (old.length + rules.length - 2 * kept.length) > rules.length + 10) return undefined
  return [
    ...old.filter((rule) => !wanted.has(rule)).map((rule) => `-D ${chain} ${rule}`),
    ...rules.flatMap((rule, i) => (have.has(rule) ? [] : [`-I ${chain} ${i + 1} ${rule}`])),
  ]
}

/** Our jumps at the top of each hook, and none elsewhere. */
function jumpLines(now: Dump, hooks: string[], jumps: readonly string[]): string[] {
  const lines: string[] = []
  for (const chain of now.chains) {
    const ours = (now.rules.get(chain) ?? []).filter(isJump)
    const wanted = hooks.includes(chain) ? jumps : []
    if (ours.length === wanted.length && ours.every((rule, i) => rule === wanted[i])) continue
    lines.push(...ours.map((rule) => `-D ${chain} ${rule}`))
    lines.push(...wanted.map((rule, i) => `-I ${chain} ${i + 1} ${rule}`))
  }
  return lines
}

function isJump(rule: string): boolean {
  return rule.includes(`--comment ${MARK} `)
}

/** Everything of ours in a dump, with which hooks there are: one that comes later wants a jump. */
export function ourPart(now: Dump, hooks: string[]): string[] {
  const ours = new Set(ourChains(now))
  const lines: string[] = []
  for (const chain of now.chains) {
    const rules = now.rules.get(chain) ?? []
    if (ours.has(chain) || hooks.includes(chain)) lines.push(`:${chain}`)
    const shown = ours.has(chain) ? rules : rules.filter(isJump)
    lines.push(...shown.map((rule) => `${chain} ${rule}`))
  }
  return lines
}

/** The rules of a jail's chain that block, for whoever comes as far. */
export function blockRules({ jail, services }: Chain, family: Family, blocktype: string): string[] {
  const rules = services.flatMap((service) => matches(service, family))
  return [...rules.map((match) => `${match}-j ${target(family, blocktype)}`), lastRule(jail)]
}

/** The jumps into a jail's chain for what it is about. */
export function jumpsTo({ jail, services }: Chain, family: Family): string[] {
  return services
    .flatMap((service) => matches(service, family))
    .map((match) => `${match}-j ${chainName(jail)}`)
}

/** An address as iptables prints it. */
export function sourceOf(address: Address): string {
  return isSingle(address) ? `${address.text}/${address.prefix}` : address.text
}

/** What blocks, as iptables prints it. */
export function target(family: Family, blocktype: string): string {
  const answer = family === 'inet4' ? 'icmp-port-unreachable' : 'icmp6-port-unreachable'
  return blocktype === 'REJECT' ? `REJECT --reject-with ${answer}` : blocktype
}

function matches({ protocol, ports }: Service, family: Family): string[] {
  if (protocol === 'all') return ['']
  const name = protocol === 'icmp' && family === 'inet6' ? 'ipv6-icmp' : protocol
  if (ports === 'all') return [`-p ${name} `]
  return slots(ports).map((list) => `-p ${name} -m multiport --dports ${list} `)
}

function slots(ports: PortRange[]): string[] {
  const lists: string[][] = [[]]
  let used = 0
  for (const [from, to] of ports) {
    const size = from === to ? 1 : 2
    if (used + size > MULTIPORT) {
      lists.push([])
      used = 0
    }
    used += size
    lists.at(-1)?.push(from === to ? String(from) : `${from}:${to}`)
  }
  return lists.map((list) => list.join(','))
}
