import type { Address } from '../../scripts/lib/address.ts'
import { type Chain, type Change, directOf, isIndexed, loadsOf } from './backend.ts'
import type { Books } from './books.ts'

/**
 * What the kernel must be told of what the books have gone through since they were opened.
 *
 * @param before the chains that it has
 * @param neverChanged whether it has another never-ban list
 */
export function changeOf(books: Books, before: readonly Chain[], neverChanged: boolean): Change {
  const { loads, never } = books
  const now = books.chains()
  const moved = JSON.stringify(now) !== JSON.stringify(before)
  const direct = directOf(now)
  const change: Change = {
    chains: { before, now: moved ? now : before },
    direct,
    enter: [],
    extend: [],
    leave: [],
    free: freeOf(books, before, direct),
    load: [],
  }
  if (now.length > 0 && (neverChanged || moved)) change.never = never
  const after = byJail(now)
  for (const jail of books.touched.keys()) {
    if (after.has(jail) && !loads.has(jail)) addEntries(change, books, jail)
  }
  // What was found without the index has to be in it once there is a second jail.
  if (before.length === 1 && now.length > 1) change.index = books.contents().entries
  const whole = now.filter((chain) => loads.has(chain.jail))
  if (whole.length > 0) change.load = loadsOf(whole, books.contents().entries)
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

/** What somebody no longer bans, and nobody else does. */
function freeOf(books: Books, before: readonly Chain[], direct: string | undefined): Address[] {
  const had = byJail(before)
  const was = directOf(before)
  const free = new Map<string, Address>()
  for (const [jail, addresses] of books.touched) {
    const widths = had.get(jail)?.widths
    for (const [text, address] of addresses) {
      const width = `${address.family}/${address.prefix}`
      const single = address.prefix === (address.family === 'inet4' ? 32 : 128)
      if (!widths || !(single || widths.includes(width))) continue
      if (!isIndexed({ address, jail }, was) || free.has(text)) continue
      const jails = books.jailsWith(text)
      if (!jails.some((held) => isIndexed({ address, jail: held }, direct))) free.set(text, address)
    }
  }
  return [...free.values()]
}

/** Chains by the name of their jail. */
export function byJail(chains: readonly Chain[]): Map<string, Chain> {
  return new Map(chains.map((chain) => [chain.jail, chain]))
}
