import { type Address, type Family, isSingle, parseAddress } from '../../scripts/lib/address.ts'
import { joined } from '../../scripts/lib/bulk.ts'
import { run } from '../../scripts/lib/run.ts'
import {
  AT_ONCE,
  type Backend,
  type Chain,
  type Change,
  directOf,
  type Entry,
  type Held,
  hostOf,
  isIndexed,
  millisecondsLeft,
  nearOf,
  shapeOf,
} from './backend.ts'
import type { FirewallConfig } from './config.ts'
import { chainName } from './names.ts'
import { FAMILIES, type Layout, layoutLines, layoutOf, TABLE } from './nft-layout.ts'
import { Tool } from './tool.ts'

const HOOKS: Record<string, string> = {
  INPUT: 'input',
  FORWARD: 'forward',
  // Docker's chain is called from FORWARD; our base chain comes before both.
  'DOCKER-USER': 'forward',
}

/** A year; nft 1.0.6 takes that and refuses six. A longer lease is renewed by the sweeper. */
const LONGEST = 31_536_000

/**
 * A table of our own, with base chains that come before everybody else's filter; see nft-layout.ts.
 * Every address is in a hash set of its jail and prefix length (`fail2ban-sshd/inet4` for single
 * ones, `fail2ban-sshd/inet4/24` for ranges of that length, matched after masking). So ranges may
 * overlap and a change costs the same at any size; an interval set would cost linear time.
 */
export function nftables(config: FirewallConfig): Backend {
  const hooks = [...new Set(config.hooks.flatMap((hook) => HOOKS[hook] ?? []))]
  const verdict = config.blocktype === 'REJECT' ? 'reject' : 'drop'
  const layout = (chains: readonly Chain[]): Layout => layoutOf(chains, hooks, verdict)
  const tool = new Tool('nft', ['-f', '-'])
  const commit = (lines: string[]) => tool.feed(`${lines.join('\n')}\n`)

  return {
    name: 'nftables',
    expires: true,
    longest: LONGEST,
    atOnce: AT_ONCE,
    tool,

    async works() {
      // Changes nothing, but needs the program, the kernel's support and the right to use it.
      return hooks.length > 0 && (await run('nft', ['list', 'tables'])).code === 0
    },

    async apply(change) {
      const { before, now } = change.chains
      const entries = entryLines(change)
      const { first, last } = before === now ? NONE : layoutLines(layout(before), layout(now))
      const lines = [...first, ...entries, ...last]
      if (lines.length > 0) await commit(lines)
    },

    async rebuild({ chains, entries, never }) {
      const { first } = layoutLines(layout([]), layout(chains))
      const direct = directOf(chains)
      const all = { direct, never, enter: entries, extend: [], leave: [], free: [], load: [] }
      const fill = chains.length > 0 ? entryLines(all) : []
      await commit([`add table ${TABLE}`, `delete table ${TABLE}`, ...first, ...fill])
      return []
    },

    async shape() {
      // Neither entries, which are many, nor counters. Only `list ruleset` does without reading the
      // entries: 0.04 s instead of 1 s for 100,000 (nft 1.0.6).
      const listed = await Promise.all([
        run('nft', ['-t', '-s', 'list', 'ruleset', 'inet']),
        ...Object.values(FAMILIES).map(({ never }) =>
          run('nft', ['-s', 'list', 'set', ...TABLE.split(' '), never]),
        ),
      ])
      const [ruleset = '', ...never] = listed.map(({ stdout }) => stdout)
      const [, ours = ''] = ruleset.split(`table ${TABLE} {\n`)
      return shapeOf([ours.split('\n}\n')[0], ...never].join('\n'))
    },

    async held(chains) {
      const { code, stdout } = await run('nft', ['-j', 'list', 'table', ...TABLE.split(' ')])
      return heldIn(code === 0 ? stdout : '{"nftables":[]}', chains)
    },

    async remove() {
      await commit([`add table ${TABLE}`, `delete table ${TABLE}`])
    },
  }
}

const NONE = { first: [], last: [] }

function entryLines(change: Omit<Change, 'chains'>): string[] {
  const { direct, never, load, enter, extend, leave, free, index } = change
  return [
    ...(never ? neverLines(never) : []),
    ...load.flatMap(({ chain, entries }) => [...flushSets(chain), ...adding(entries)]),
    ...adding(enter),
    // An element that is there may keep its old timeout when it is added again, depending on the
    // kernel, and deleting one that is not there fails: add, delete, add is right in every case.
    ...adding(extend),
    ...deleting(extend),
    ...adding(extend),
    ...adding(leave, 60),
    ...deleting(leave),
    ...indexing([...load.flatMap(({ entries }) => entries), ...enter, ...extend], direct),
    ...unindexing(free),
    ...(index ? reindexing(index, direct) : []),
  ]
}

function neverLines(never: Address[]): string[] {
  return (Object.keys(FAMILIES) as Family[]).flatMap((family) => {
    const set = FAMILIES[family].never
    const elements = never.filter((a) => a.family === family).map((a) => a.text)
    return [
      `flush set ${TABLE} ${set}`,
      ...(elements.length > 0 ? [`add element ${TABLE} ${set} { ${elements.join(', ')} }`] : []),
    ]
  })
}

function flushSets({ jail, widths }: Chain): string[] {
  const sets = ['inet4', 'inet6', ...widths].map((width) => `${chainName(jail)}/${width}`)
  return sets.map((set) => `flush set ${TABLE} ${set}`)
}

function widthOf(address: Address): string {
  return isSingle(address) ? address.family : `${address.family}/${address.prefix}`
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
      return hostOf(address) + (time ? ` timeout ${Math.floor(time / 1000)}s${time % 1000}ms` : '')
    }
    return `add element ${TABLE} ${set} { ${joined(list, element, ', ')} }`
  })
}

function deleting(entries: Omit<Entry, 'expires'>[]): string[] {
  return bySet(entries).map(([set, list]) => {
    return `delete element ${TABLE} ${set} { ${list.map((e) => hostOf(e.address)).join(', ')} }`
  })
}

function bySet<T extends Omit<Entry, 'expires'>>(entries: readonly T[]): [string, T[]][] {
  const sets = new Map<string, T[]>()
  let last: T | undefined
  let list: T[] = []
  for (const entry of entries) {
    if (!last || !sameSet(last, entry)) {
      const set = `${chainName(entry.jail)}/${widthOf(entry.address)}`
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

/**
 * Makes the index find entries. Its elements have no end, so adding one again is nothing; what only
 * the index still has costs a packet from there a look, and goes with a later `index`.
 */
function indexing(entries: readonly Entry[], direct: string | undefined): string[] {
  return [...indexOf(entries, direct)].map(
    ([set, keys]) => `add element ${TABLE} ${set} { ${[...keys].join(', ')} }`,
  )
}

function unindexing(free: readonly Address[]): string[] {
  const sets = new Map<string, string[]>()
  for (const address of free) {
    const set = `banned/${widthOf(address)}`
    const hosts = sets.get(set)
    if (hosts) hosts.push(hostOf(address))
    else sets.set(set, [hostOf(address)])
  }
  return [...sets].flatMap(([set, hosts]) => {
    const elements = `element ${TABLE} ${set} { ${hosts.join(', ')} }`
    return [`add ${elements}`, `delete ${elements}`]
  })
}

function reindexing(entries: readonly Entry[], direct: string | undefined): string[] {
  const sets = [...indexOf(entries, direct).keys()]
  return [...sets.map((set) => `flush set ${TABLE} ${set}`), ...indexing(entries, direct)]
}

/** What has to be in which set of the index. */
function indexOf(entries: readonly Entry[], direct: string | undefined): Map<string, Set<string>> {
  const sets = new Map<string, Set<string>>()
  const add = (set: string, key: string): void => {
    const keys = sets.get(set)
    if (keys) keys.add(key)
    else sets.set(set, new Set([key]))
  }
  for (const entry of entries) {
    if (!isIndexed(entry, direct)) continue
    const { address } = entry
    add(`banned/${widthOf(address)}`, hostOf(address))
    const near = isSingle(address) ? undefined : nearOf(address)
    if (near) add(`near/${near.family}`, hostOf(near))
  }
  return sets
}

interface Listed {
  set?: { name: string; elem?: (string | { elem: { val: string } })[] }
}

/** Reads nft's JSON: an entry counts if a packet finds it. */
function heldIn(json: string, chains: readonly Chain[]): Held {
  const sets = new Map<string, Set<string>>()
  for (const { set } of (JSON.parse(json) as { nftables: Listed[] }).nftables) {
    if (!set || set.name.startsWith('never-ban')) continue
    const keys = set.elem?.map((item) => (typeof item === 'string' ? item : item.elem.val))
    sets.set(set.name, new Set(keys))
  }
  const direct = directOf(chains)
  const has = (set: string, address: Address) => sets.get(set)?.has(hostOf(address)) === true
  const blocks = new Set<string>()
  for (const { jail, widths } of chains) {
    const chain = chainName(jail)
    for (const width of ['inet4', 'inet6', ...widths]) {
      const suffix = /\/\d+$/.exec(width)?.[0] ?? ''
      for (const host of sets.get(`${chain}/${width}`) ?? []) {
        const address = parseAddress(host + suffix)
        const near = isSingle(address) ? undefined : nearOf(address)
        const found =
          (!isIndexed({ address, jail }, direct) || has(`banned/${width}`, address)) &&
          (!near || has(`near/${near.family}`, near))
        if (found) blocks.add(`${chain} ${address.text}`)
      }
    }
  }
  const index = [...sets].filter(([name]) => /^(banned|near)\//.test(name))
  return { blocks, indexed: index.reduce((sum, [, keys]) => sum + keys.size, 0) }
}
