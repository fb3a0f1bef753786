import { type Chain, type Change, loadsOf } from './backend.ts'
import type { Books } from './books.ts'

/**
 * What the kernel must be told of what the books have gone through since they were opened.
 *
 * @param before the chains that it has, by jail
 * @param neverChanged whether it has another never-ban list
 */
export function changeOf(
  books: Books,
  before: ReadonlyMap<string, Chain>,
  neverChanged: boolean,
): Change {
  const { loads, fresh, never } = books
  const chains = books.chains()
  const after = byJail(chains)
  const change: Change = {
    drop: [...before.values()].filter((chain) => !after.has(chain.jail)),
    fresh: [...after.keys()].filter((jail) => !before.has(jail) || fresh.has(jail)),
    enter: [],
    extend: [],
    leave: [],
    load: [],
  }
  const moved = chains.some((chain) => !sameServices(chain, before.get(chain.jail)))
  if (moved || change.drop.length + change.fresh.length > 0) change.chains = chains
  if (neverChanged || change.chains) change.never = never
  for (const jail of books.touched.keys()) {
    if (after.has(jail) && !loads.has(jail)) addEntries(change, books, jail)
  }
  const whole = chains.filter((chain) => loads.has(chain.jail))
  const unknown = whole.filter((chain) => loads.get(chain.jail) === undefined)
  if (unknown.length > 0) change.load = loadsOf(unknown, books.contents().entries)
  for (const chain of whole) {
    const entries = loads.get(chain.jail)
    if (entries) change.load.push({ chain, entries })
  }
  return change
}

/** Each touched address of a jail, as it was and as it is now. */
function addEntries(change: Change, books: Books, jail: string): void {
  for (const address of books.touched.get(jail)?.values() ?? []) {
    const { before, now: expires } = books.ends(address.text, jail)
    if (expires === undefined) change.leave.push({ address, jail })
    else if (before === undefined) change.enter.push({ address, jail, expires })
    else change.extend.push({ address, jail, expires })
  }
}

/** Chains by the name of their jail. */
export function byJail(chains: readonly Chain[]): Map<string, Chain> {
  return new Map(chains.map((chain) => [chain.jail, chain]))
}

function sameServices(a: Chain, b: Chain | undefined): boolean {
  return JSON.stringify(a.services) === JSON.stringify(b?.services)
}
