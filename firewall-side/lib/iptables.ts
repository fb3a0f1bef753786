import { type Address, type Family, parseAddress } from '../../scripts/lib/address.ts'
import { type Backend, type Chain, type Change, type Entry, loadsOf } from './backend.ts'
import type { FirewallConfig } from './config.ts'
import { foreignFailure } from './ipset.ts'
import { chainName } from './names.ts'
import type { Dump } from './netfilter.ts'
import * as netfilter from './netfilter.ts'

/**
 * One rule per address: the document's own rules, for machines with nothing else. The kernel cannot
 * end a rule, so the sweeper removes what is over; a change costs more the longer the chains are.
 */
export function iptables(config: FirewallConfig): Backend {
  const { hooks, blocktype } = config

  /** Writes whole chains anew. The entries of a chain not in `entries` are taken from the kernel. */
  const writeChains = async (
    chains: Chain[],
    never: Address[] | undefined,
    entries: (jail: string) => readonly Entry[] | undefined,
  ): Promise<void> => {
    for (const family of netfilter.FAMILIES) {
      const now = await netfilter.dump(family)
      if (!now) continue
      const foreign = netfilter.foreignChain(now, chains)
      if (foreign) throw foreignFailure(foreign)
      const body = ({ jail }: Chain): string[] => {
        const rules = now.rules.get(chainName(jail)) ?? []
        const free = never ? texts(never, family) : sources(rules, 'RETURN')
        const blocked = entries(jail)?.map((e) => e.address)
        return [
          ...free.map((source) => `-s ${source} -j RETURN`),
          ...(blocked ? texts(blocked, family) : sources(rules, blocktype)).map(
            (source) => `-s ${source} -j ${blocktype}`,
          ),
        ]
      }
      await netfilter.restore(family, netfilter.chainLines(family, now, chains, hooks, body))
    }
  }

  return {
    name: 'iptables',
    expires: false,
    longest: Number.MAX_SAFE_INTEGER,

    async works() {
      return (await netfilter.dump('inet4')) !== undefined
    },

    async apply(change) {
      if (change.chains) await writeChains(change.chains, change.never, () => undefined)
      for (const family of netfilter.FAMILIES) {
        const now = await netfilter.dump(family)
        if (now) await netfilter.restore(family, changeLines(family, now, change, blocktype))
      }
    },

    async rebuild({ chains, entries, never }) {
      const byJail = new Map(
        loadsOf(chains, entries).map((load) => [load.chain.jail, load.entries]),
      )
      await writeChains(chains, never, (jail) => byJail.get(jail))
    },

    async count(chains) {
      const counts = new Map<string, number>()
      for (const family of netfilter.FAMILIES) {
        const now = await netfilter.dump(family)
        if (!now) continue
        if (!netfilter.intact(family, now, chains, hooks)) return undefined
        for (const { jail } of chains) {
          const rules = sources(now.rules.get(chainName(jail)) ?? [], blocktype)
          counts.set(jail, (counts.get(jail) ?? 0) + rules.length)
        }
      }
      return counts
    },

    async present() {
      const now = await netfilter.dump('inet4')
      return now !== undefined && netfilter.ourJumps(now).length > 0
    },

    async remove() {
      await writeChains([], [], () => [])
    },
  }
}

/** Single rules to enter and remove, looked up first, so that nothing is doubled. */
function changeLines(family: Family, now: Dump, change: Change, blocktype: string): string[] {
  const free = change.never && texts(change.never, family)
  const lines = free ? netfilter.ourChains(now).flatMap((chain) => freeLines(chain, now, free)) : []
  for (const [jail, wanted] of wantedSources(family, now, change, blocktype)) {
    const chain = chainName(jail)
    const rules = now.rules.get(chain) ?? []
    const have = new Set(sources(rules, blocktype))
    const first = (free ?? sources(rules, 'RETURN')).length + 1
    for (const source of have) {
      if (!wanted.has(source)) lines.push(`-D ${chain} -s ${source} -j ${blocktype}`)
    }
    for (const source of wanted) {
      if (!have.has(source)) lines.push(`-I ${chain} ${first} -s ${source} -j ${blocktype}`)
    }
  }
  return lines
}

/** Who is never blocked comes first in every chain. */
function freeLines(chain: string, now: Dump, free: string[]): string[] {
  const old = sources(now.rules.get(chain) ?? [], 'RETURN')
  return [
    ...old.map((source) => `-D ${chain} -s ${source} -j RETURN`),
    ...free.map((source) => `-I ${chain} 1 -s ${source} -j RETURN`),
  ]
}

/** What each chain that the change is about should block in the end. */
function wantedSources(
  family: Family,
  now: Dump,
  change: Change,
  blocktype: string,
): Map<string, Set<string>> {
  const wanted = new Map<string, Set<string>>()
  const of = (jail: string): Set<string> => {
    const known = wanted.get(jail)
    if (known) return known
    const fresh = new Set(sources(now.rules.get(chainName(jail)) ?? [], blocktype))
    wanted.set(jail, fresh)
    return fresh
  }
  for (const { chain, entries } of change.load) {
    const addresses = entries.map((entry) => entry.address)
    wanted.set(chain.jail, new Set(texts(addresses, family)))
  }
  for (const { jail, address } of change.leave) of(jail).delete(address.text)
  for (const { jail, address } of [...change.enter, ...change.extend]) {
    if (address.family === family) of(jail).add(address.text)
  }
  return wanted
}

function texts(list: Address[], family: Family): string[] {
  return list.filter((address) => address.family === family).map((address) => address.text)
}

/** The sources that a chain's rules block or let pass. */
function sources(rules: string[], target: string): string[] {
  return rules.flatMap((rule) => {
    const [, source, action] = /^-A \S+ -s (\S+) -j (\S+)/.exec(rule) ?? []
    return source && action === target ? [parseAddress(source).text] : []
  })
}
