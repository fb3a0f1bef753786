import { type Address, type MinPrefix, whyNever } from './address.ts'

/**
 * `checkBannable` for many addresses: a sync of 100,000 would spend most of its time comparing each
 * with every entry. The IPv4 part of the list is searched as sorted intervals that do not overlap.
 *
 * @returns a function that tells whether an address may be banned
 */
export function bannable(never: readonly Address[], min: MinPrefix): (address: Address) => boolean {
  const [starts, ends] = intervals(never)
  return (address) => {
    const { bits, prefix } = address
    if (typeof bits !== 'number') return whyNever(address, never, min) === undefined
    if (prefix < min.ipv4) return false
    // The last interval that begins no later than the address ends is the only one it can touch.
    const last = lastUpTo(starts, lastOf(bits, prefix))
    return last < 0 || (ends[last] ?? 0) < bits
  }
}

function intervals(never: readonly Address[]): [Float64Array, Float64Array] {
  const all = never
    .flatMap(({ bits, prefix }) => (typeof bits === 'number' ? [[bits, lastOf(bits, prefix)]] : []))
    .sort(([a = 0], [b = 0]) => a - b)
  const merged: number[][] = []
  for (const [start = 0, end = 0] of all) {
    const before = merged.at(-1)
    if (before && start <= (before[1] ?? 0)) before[1] = Math.max(before[1] ?? 0, end)
    else merged.push([start, end])
  }
  const column = (i: number) => Float64Array.from(merged, (pair) => pair[i] ?? 0)
  return [column(0), column(1)]
}

function lastUpTo(starts: Float64Array, value: number): number {
  let low = 0
  let high = starts.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((starts[middle] ?? 0) <= value) low = middle + 1
    else high = middle
  }
  return low - 1
}

/** The last address of an IPv4 range. */
function lastOf(bits: number, prefix: number): number {
  return bits + (prefix === 32 ? 0 : 0xffffffff >>> prefix)
}
