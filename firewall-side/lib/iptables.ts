import { type Address, type Family, parseAddress } from '../../scripts/lib/address.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { type Backend, type Chain, type Change, loadsOf, shapeOf } from './backend.ts'
import type { FirewallConfig } from './config.ts'
import { indexOf, LOOK } from './iptables-index.ts'
import { chainName } from './names.ts'
import * as netfilter from './netfilter.ts'

const BLOCKS = / -j (DROP|REJECT)\b/

/** Where the jails' chains are jumped to from, for whoever is banned at all. */
const BANNED = 'perimeter-banned'

/** The chains of the index, which `held` looks at. */
const INDEX = /^perimeter-(?!banned$)/

/**
 * One rule per address: the document's own rules, for machines with nothing else. The kernel cannot
 * end a rule, so the sweeper removes what is over; a change costs more the longer the chains are. The
 * index, which is made anew of the chains with each change, is in iptables-index.ts.
 */
export function iptables(config: FirewallConfig): Backend {
  const { hooks, blocktype } = config

  /**
   * Makes both families as they should be, in one transaction each.
   *
   * @param bodyOf the rules of a jail's chain but the last, made of those that it has
   * @returns the chains that other programs have made
   */
  const write = async (
    chains: readonly Chain[],
    before: readonly Chain[],
    bodyOf: (chain: Chain, family: Family, old: string[]) => string[],
  ): Promise<string[]> => {
    const foreign = new Set<string>()
    for (const family of netfilter.FAMILIES) {
      const now = await netfilter.dump(family)
      if (!now) continue
      const theirs = netfilter.checkForeign(now, chains, before)
      for (const chain of theirs) foreign.add(chain)
      const ours = chains.filter(({ jail }) => !theirs.has(chainName(jail)))
      const layout = layoutOf(family, ours, blocktype, (chain) =>
        bodyOf(chain, family, now.rules.get(chainName(chain.jail)) ?? []),
      )
      const gone = before.map(({ jail }) => chainName(jail))
      const jumps = layout.size > 0 ? [netfilter.jumpTo(LOOK)] : []
      await netfilter.restore(family, netfilter.layoutLines(now, layout, hooks, jumps, gone))
    }
    return [...foreign]
  }

  return {
    name: 'iptables',
    expires: false,
    longest: Number.MAX_SAFE_INTEGER,
    // Each change reads all rules: smaller pieces would keep others waiting less, but take for ever.
    atOnce: 1000,

    async works() {
      return (await netfilter.dump('inet4')) !== undefined
    },

    async apply(change) {
      const { before, now } = change.chains
      const changed = before !== now || change.never
      const { enter, extend, leave, load } = change
      if (!changed && enter.length + extend.length + leave.length + load.length === 0) return
      const known = new Set(before.map(({ jail }) => jail))
      await write(now, before, (chain, family, old) => {
        if (known.has(chain.jail) && old.length === 0) throw lost(chain)
        const free = change.never ? texts(change.never, family) : sources(old, 'RETURN')
        const blocked = wantedSources(chain.jail, family, sources(old, blocktype), change)
        return bodyRules(family, free, blocked, blocktype)
      })
    },

    async rebuild({ chains, entries, never }) {
      const loads = new Map(loadsOf(chains, entries).map((load) => [load.chain.jail, load.entries]))
      return await write(chains, chains, ({ jail }, family) => {
        const blocked = (loads.get(jail) ?? []).map((entry) => entry.address)
        return bodyRules(family, texts(never, family), texts(blocked, family), blocktype)
      })
    },

    async shape(chains) {
      const names = new Set(chains.map(({ jail }) => chainName(jail)))
      const lines: string[] = []
      for (const family of netfilter.FAMILIES) {
        const now = await netfilter.dump(family)
        if (!now) continue
        for (const line of netfilter.ourPart(now, hooks)) {
          const [chain = '', flag] = line.split(' ', 2)
          if (INDEX.test(chain.replace(/^:/, ''))) continue
          if (flag !== '-s' || !names.has(chain) || !BLOCKS.test(line)) lines.push(line)
        }
      }
      return shapeOf(lines.join('\n'))
    },

    async held(chains) {
      const blocks = new Set<string>()
      for (const family of netfilter.FAMILIES) {
        const { rules } = (await netfilter.dump(family)) ?? { rules: new Map<string, string[]>() }
        const found = chains.flatMap(({ jail }) => {
          const name = chainName(jail)
          const blocked = addressesIn(rules.get(name) ?? [], family, blocktype)
          return blocked.map((address) => ({ name, address }))
        })
        const index = indexOf(
          Array.from(found, ({ address }) => address),
          BANNED,
        )
        // With another index a packet may find nothing.
        if (![...index].every(([name, wanted]) => isSame(rules.get(name), wanted))) continue
        for (const { name, address } of found) blocks.add(`${name} ${address.text}`)
      }
      return { blocks, indexed: 0 }
    },

    async remove() {
      await write([], [], () => [])
    },
  }
}

function layoutOf(
  family: Family,
  chains: readonly Chain[],
  blocktype: string,
  bodyOf: (chain: Chain) => string[],
): netfilter.Layout {
  if (chains.length === 0) return new Map()
  const { lastRule } = netfilter
  const bodies = new Map(chains.map((chain) => [chain, bodyOf(chain)]))
  const layout = indexOf(addressesIn([...bodies.values()].flat(), family, blocktype), BANNED)
  const jumps = chains.flatMap((chain) => netfilter.jumpsTo(chain, family))
  layout.set(BANNED, [...jumps, lastRule(BANNED)])
  for (const [{ jail }, body] of bodies) layout.set(chainName(jail), [...body, lastRule(jail)])
  return layout
}

function isSame(rules: readonly string[] | undefined, wanted: readonly string[]): boolean {
  return rules?.length === wanted.length && wanted.every((rule, i) => rule === rules[i])
}

/** Another program flushed a chain: with it went what it blocked. */
function lost({ jail }: Chain): Failure {
  return new Failure(EXIT.temporary, `Cannot change chain "${chainName(jail)}": it is not there`)
}

/** Who is never blocked comes first. */
function bodyRules(
  family: Family,
  free: Iterable<string>,
  blocked: Iterable<string>,
  blocktype: string,
): string[] {
  const target = netfilter.target(family, blocktype)
  return [
    ...Array.from(free, (source) => `-s ${source} -j RETURN`),
    ...Array.from(blocked, (source) => `-s ${source} -j ${target}`),
  ]
}

/** What a chain should block in the end. */
function wantedSources(
  jail: string,
  family: Family,
  old: string[],
  { load, enter, extend, leave }: Change,
): Set<string> {
  const loaded = load.find(({ chain }) => chain.jail === jail)
  const addresses = loaded?.entries.map((entry) => entry.address)
  const wanted = new Set(addresses ? texts(addresses, family) : old)
  const own = <T extends { jail: string }>(list: readonly T[]) =>
    list.filter((item) => item.jail === jail)
  for (const { address } of own(leave)) wanted.delete(netfilter.sourceOf(address))
  for (const { address } of [...own(enter), ...own(extend)]) {
    if (address.family === family) wanted.add(netfilter.sourceOf(address))
  }
  return wanted
}

function texts(list: readonly Address[], family: Family): string[] {
  return list.filter((address) => address.family === family).map(netfilter.sourceOf)
}

function addressesIn(rules: string[], family: Family, target: string): Address[] {
  const addresses = sources(rules, target).map(parseAddress)
  return addresses.filter((address) => address.family === family)
}

/** The sources that a chain's rules block or let pass. */
function sources(rules: string[], target: string): string[] {
  return rules.flatMap((rule) => {
    const [, source, action] = /^-s (\S+) -j (\S+)/.exec(rule) ?? []
    return source && action === target ? [source] : []
  })
}
