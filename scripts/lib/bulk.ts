import { type Address, keyOf } from './address.ts'
import { later } from './lease.ts'

// What a sync of 100,000 leases would otherwise spend its time on: the garbage collector carries
// every single string along that lives for long, and a map costs four times what sorting does.

/** The texts of many things in one. */
export function joined<T>(list: readonly T[], text: (one: T) => string, separator: string): string {
  return [...pieces(list, text, separator)].join(separator)
}

/** The same in pieces, each made when it is asked for. */
export function* pieces<T>(
  list: readonly T[],
  text: (one: T) => string,
  separator: string,
): Generator<string> {
  for (let at = 0; at < list.length; at += 500) {
    yield list
      .slice(at, at + 500)
      .map(text)
      .join(separator)
  }
}

/** One for each address, with the latest end that it has in the list; in the order of the list. */
export function latestEach<T extends { address: Address; expires: number }>(
  list: readonly T[],
): readonly T[] {
  if (allDiffer(list)) return list
  const kept = new Map<string | number, T>()
  for (const one of list) {
    const key = keyOf(one.address)
    const known = kept.get(key)
    kept.set(key, known ? { ...known, expires: later(known.expires, one.expires) } : one)
  }
  return [...kept.values()]
}

/** True if no address comes twice; false also where that cannot be told from sorted numbers. */
function allDiffer(list: readonly { address: Address }[]): boolean {
  const sorted = new Uint32Array(list.length)
  let count = 0
  for (const { address } of list) {
    const key = keyOf(address)
    if (typeof key !== 'number') return false
    sorted[count++] = key
  }
  sorted.sort()
  for (let i = 1; i < count; i++) if (sorted[i] === sorted[i - 1]) return false
  return true
}
