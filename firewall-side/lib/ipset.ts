import { type Address, type Family, isSingle, parseAddress } from '../../scripts/lib/address.ts'
import { pieces } from '../../scripts/lib/bulk.ts'
import { run } from '../../scripts/lib/run.ts'
import {
  AT_ONCE,
  type Backend,
  type Chain,
  type Change,
  directOf,
  type Entry,
  type Held,
  isIndexed,
  type Load,
  loadsOf,
  nearOf,
  secondsLeft,
  shapeOf,
} from './backend.ts'
import type { FirewallConfig } from './config.ts'
import { chainName } from './names.ts'
import * as netfilter from './netfilter.ts'
import { Tool } from './tool.ts'

/** ipset counts milliseconds in 32 bits. */
const LONGEST = 2_147_483

/** The default of 65536 makes every ban after it fail ("Hash is full"). */
const OPTIONS = 'timeout 0 maxelem 4194304'

const TYPES = { inet4: 'hash:net family inet', inet6: 'hash:net family inet6' } as const

/** Chains and sets of the index; the sets end in `-4` or `-6`. */
const NEVER = 'perimeter-never'
const BANNED = 'perimeter-banned'
const RANGES = 'perimeter-ranges'

/**
 * iptables chains with sets behind them: for each jail one of single addresses (`fail2ban-sshd-4`)
 * and one of ranges (`fail2ban-sshd-4r`), and the index. `hash:net` looks once for each prefix
 * length in it, and a change costs the same at any size. In the index a range is the block that it is
 * in (`nearOf`), so that there is one length more to look for and not one for each that is in use.
 *
 *   FORWARD           perimeter-banned-4 -> perimeter-banned   the index of all jails
 *   perimeter-banned  perimeter-ranges-4 -> perimeter-ranges   jail by jail, ranges
 *                     fail2ban-web-4 -> fail2ban-web           jail by jail
 *   fail2ban-web      perimeter-never-4 -> RETURN
 *                     -p tcp -m multiport --dports 80 -j DROP
 */
export function ipset(config: FirewallConfig): Backend {
  const { hooks, blocktype } = config
  const tool = new Tool('ipset', ['-exist', 'restore'])

  /**
   * Makes sets, fills them, and only then leads packets to them.
   *
   * @returns the chains that other programs have made; they are left alone
   */
  const makeChains = async (
    before: readonly Chain[],
    chains: readonly Chain[],
    known: readonly Chain[],
    fill: Iterable<string>,
  ): Promise<string[]> => {
    const wanted = setsOf(chains)
    const gone = new Set(setsOf(before))
    const foreign = new Set<string>()
    await feed(tool, both(wanted.map(create), fill))
    for (const family of netfilter.FAMILIES) {
      const now = await netfilter.dump(family)
      if (!now) continue
      const theirs = netfilter.checkForeign(now, chains, known)
      for (const chain of theirs) foreign.add(chain)
      const ours = chains.filter(({ jail }) => !theirs.has(chainName(jail)))
      // Also what was to go when a process was killed.
      for (const chain of netfilter.ourChains(now)) {
        for (const suffix of SUFFIXES) gone.add(chain + suffix)
      }
      const names = before.map(({ jail }) => chainName(jail))
      const { layout, jumps } = layoutOf(family, ours, blocktype)
      await netfilter.restore(family, netfilter.layoutLines(now, layout, hooks, jumps, names))
    }
    const left = new Set(wanted)
    await destroy(
      tool,
      [...gone].filter((set) => !left.has(set)),
    )
    return [...foreign]
  }

  return {
    name: 'ipset',
    expires: true,
    longest: LONGEST,
    atOnce: AT_ONCE,
    tool,

    async works() {
      const lists = await run('ipset', ['list', '-n'])
      return lists.code === 0 && (await netfilter.dump('inet4')) !== undefined
    },

    async apply(change) {
      const { before, now } = change.chains
      if (before === now) return await feed(tool, both(enterLines(change), leaveLines(change)))
      await makeChains(before, now, before, enterLines(change))
      await feed(tool, leaveLines(change))
    },

    async rebuild({ chains, entries, never }) {
      const direct = directOf(chains)
      const load = loadsOf(chains, entries)
      const fill = enterLines({ direct, never, load, enter: [], extend: [], index: entries })
      return await makeChains([], chains, chains, chains.length > 0 ? fill : [])
    },

    async shape(chains) {
      const names = (await run('ipset', ['list', '-n'])).stdout.split('\n')
      const lines = setsOf(chains).filter((set) => names.includes(set))
      for (const family of netfilter.FAMILIES) {
        const now = await netfilter.dump(family)
        if (now) lines.push(...netfilter.ourPart(now, hooks))
        const never = await run('ipset', ['save', setName(NEVER, family)])
        lines.push(...never.stdout.split('\n').slice(1).sort())
      }
      return shapeOf(lines.join('\n'))
    },

    async held(chains) {
      return heldIn((await run('ipset', ['save'])).stdout, chains)
    },

    async remove() {
      const chains = new Set([NEVER, BANNED, RANGES, 'f2b-swap'])
      for (const family of netfilter.FAMILIES) {
        const now = await netfilter.dump(family)
        if (!now) continue
        for (const chain of netfilter.ourChains(now)) chains.add(chain)
        await netfilter.restore(family, netfilter.layoutLines(now, new Map(), hooks, []))
      }
      await destroy(
        tool,
        [...chains].flatMap((chain) => SUFFIXES.map((suffix) => chain + suffix)),
      )
    },
  }
}

const SUFFIXES = ['-4', '-6', '-4r', '-6r']

/** Every chain of one family, and what leads there from the hooks. */
function layoutOf(family: Family, chains: readonly Chain[], blocktype: string) {
  const layout: netfilter.Layout = new Map()
  const [first] = chains
  if (!first) return { layout, jumps: [] }
  const ranged = chains.filter((chain) => hasRanges(chain, family))
  const to = (set: string, chain: string) => `-m set --match-set ${set} src -j ${chain}`
  const single = ({ jail }: Chain) => to(setName(chainName(jail), family), chainName(jail))
  const range = ({ jail }: Chain) => to(rangeSet(chainName(jail), family), chainName(jail))
  // In the hooks themselves: a chain between would cost every packet another 4 % of its way.
  const jump = (chain: string) =>
    netfilter.jumpTo(chain, `-m set --match-set ${setName(chain, family)} src `)
  const direct = chains.length === 1
  const jumps = direct ? [jump(chainName(first.jail))] : []
  if (!direct || ranged.length > 0) {
    jumps.push(jump(BANNED))
    layout.set(BANNED, [
      ...(ranged.length > 0 ? [to(setName(RANGES, family), RANGES)] : []),
      ...(direct ? [] : chains.map(single)),
      netfilter.lastRule(BANNED),
    ])
  }
  if (ranged.length > 0) layout.set(RANGES, [...ranged.map(range), netfilter.lastRule(RANGES)])
  for (const chain of chains) {
    const free = to(setName(NEVER, family), 'RETURN')
    layout.set(chainName(chain.jail), [free, ...netfilter.blockRules(chain, family, blocktype)])
  }
  return { layout, jumps }
}

function hasRanges({ widths }: Chain, family: Family): boolean {
  return widths.some((width) => width.startsWith(family))
}

/** Every set that there should be. */
function setsOf(chains: readonly Chain[]): string[] {
  if (chains.length === 0) return []
  return netfilter.FAMILIES.flatMap((family) => {
    const ranged = chains.filter((chain) => hasRanges(chain, family))
    const index = [
      NEVER,
      ...(chains.length > 1 || ranged[0] ? [BANNED] : []),
      ...(ranged[0] ? [RANGES] : []),
    ]
    return [
      ...[...index, ...chains.map(({ jail }) => chainName(jail))].map((name) =>
        setName(name, family),
      ),
      ...ranged.map(({ jail }) => rangeSet(chainName(jail), family)),
    ]
  })
}

/** Has ipset work on the first lines while the last ones are still made. */
async function feed(tool: Tool, lines: Iterable<string>): Promise<void> {
  const rest = ended(lines)
  const first = rest.next()
  if (first.done) return
  const all = function* () {
    yield first.value
    yield* rest
  }
  await tool.feed(all())
}

function* ended(lines: Iterable<string>): Generator<string, void> {
  for (const line of lines) yield `${line}\n`
}

/** Destroys those of the sets that there are. */
async function destroy(tool: Tool, sets: string[]): Promise<void> {
  if (sets.length === 0) return
  const names = new Set((await run('ipset', ['list', '-n'])).stdout.split('\n'))
  await feed(
    tool,
    sets.filter((set) => names.has(set)).map((set) => `destroy ${set}`),
  )
}

function setName(chain: string, family: Family): string {
  return `${chain}-${family === 'inet4' ? 4 : 6}`
}

function rangeSet(chain: string, family: Family): string {
  return `${setName(chain, family)}r`
}

function setOf({ jail, address }: { jail: string; address: Address }): string {
  return (isSingle(address) ? setName : rangeSet)(chainName(jail), address.family)
}

function create(set: string): string {
  return `create ${set} ${TYPES[/-4r?$/.test(set) ? 'inet4' : 'inet6']} ${OPTIONS}`
}

/** What a change puts into sets. */
type Entering = Omit<Change, 'chains' | 'leave' | 'free'>

function* enterLines({ direct, never, load, enter, extend, index }: Entering) {
  if (never) yield* neverLines(never)
  if (index) yield* reindexing(index, direct)
  else yield* indexing([...load.flatMap(({ entries }) => entries), ...enter, ...extend], direct)
  yield* loadLines(load)
  yield* pieces([...enter, ...extend], (e) => `add ${setOf(e)} ${element(e)}`, '\n')
}

function* leaveLines({ leave, free }: Change) {
  yield* pieces(leave, (e) => `del ${setOf(e)} ${e.address.text}`, '\n')
  yield* pieces(free, (address) => `del ${indexSet(address)} ${address.text}`, '\n')
}

function* both(first: Iterable<string>, then: Iterable<string>): Generator<string> {
  yield* first
  yield* then
}

function* neverLines(never: Address[]): Generator<string> {
  for (const family of netfilter.FAMILIES) {
    const elements = never.filter((a) => a.family === family)
    yield* replaced(setName(NEVER, family), elements, (a) => a.text)
  }
}

function* loadLines(loads: Load[]): Generator<string> {
  for (const { chain, entries } of loads) {
    for (const family of netfilter.FAMILIES) {
      const own = entries.filter((e) => e.address.family === family)
      const singles = own.filter((e) => isSingle(e.address))
      yield* replaced(setName(chainName(chain.jail), family), singles, element)
      if (!hasRanges(chain, family)) continue
      const ranges = own.filter((e) => !isSingle(e.address))
      yield* replaced(rangeSet(chainName(chain.jail), family), ranges, element)
    }
  }
}

/** Fills a set beside the one in use and swaps the two, so that nobody is free in between. */
function* replaced<T>(
  set: string,
  elements: readonly T[],
  text: (element: T) => string,
): Generator<string> {
  const beside = `f2b-swap-${/-4r?$/.test(set) ? 4 : 6}`
  yield `${create(beside)}\nflush ${beside}`
  yield* pieces(elements, (one) => `add ${beside} ${text(one)}`, '\n')
  yield `swap ${beside} ${set}\ndestroy ${beside}`
}

/**
 * Makes the index find entries. Its elements have no end: what only the index still has costs a
 * packet from there a look, and goes with a later `index`.
 */
function* indexing(entries: readonly Entry[], direct: string | undefined): Generator<string> {
  for (const [set, texts] of indexOf(entries, direct)) {
    yield* pieces([...texts], (text) => `add ${set} ${text}`, '\n')
  }
}

function* reindexing(entries: readonly Entry[], direct: string | undefined): Generator<string> {
  for (const [set, texts] of indexOf(entries, direct)) {
    yield* replaced(set, [...texts], (text) => text)
  }
}

/** What has to be in which set of the index. */
function indexOf(entries: readonly Entry[], direct: string | undefined): Map<string, Set<string>> {
  const sets = new Map<string, Set<string>>()
  const add = (set: string, text: string): void => {
    const texts = sets.get(set)
    if (texts) texts.add(text)
    else sets.set(set, new Set([text]))
  }
  for (const entry of entries) {
    if (!isIndexed(entry, direct)) continue
    const { address } = entry
    add(indexSet(address), address.text)
    if (!isSingle(address)) add(setName(BANNED, address.family), nearText(address))
  }
  return sets
}

function indexSet(address: Address): string {
  return setName(isSingle(address) ? BANNED : RANGES, address.family)
}

/** One wider than a block is its own. */
function nearText(range: Address): string {
  return (nearOf(range) ?? range).text
}

function element({ address, expires }: Entry): string {
  return `${address.text} timeout ${expires ? secondsLeft(expires, LONGEST) : 0}`
}

/** Reads `ipset save`: an entry counts if a packet finds it. */
function heldIn(saved: string, chains: readonly Chain[]): Held {
  const sets = new Map<string, Set<string>>()
  for (const line of saved.split('\n')) {
    const [word, set = '', text = ''] = line.split(' ', 3)
    if (word === 'create') sets.set(set, new Set())
    else if (word === 'add') sets.get(set)?.add(text)
  }
  const direct = directOf(chains)
  const has = (set: string, text: string) => sets.get(set)?.has(text) === true
  const blocks = new Set<string>()
  for (const { jail } of chains) {
    const chain = chainName(jail)
    for (const suffix of SUFFIXES) {
      for (const text of sets.get(chain + suffix) ?? []) {
        const address = parseAddress(text)
        const near = isSingle(address) || has(setName(BANNED, address.family), nearText(address))
        const indexed = !isIndexed({ address, jail }, direct) || has(indexSet(address), text)
        if (near && indexed) blocks.add(`${chain} ${address.text}`)
      }
    }
  }
  const index = [BANNED, RANGES].flatMap((name) =>
    netfilter.FAMILIES.map((family) => sets.get(setName(name, family))?.size ?? 0),
  )
  return { blocks, indexed: index.reduce((sum, size) => sum + size, 0) }
}
