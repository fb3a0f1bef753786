import {
  type Address,
  compareAddresses,
  overlaps,
  parseAddress,
} from '../../scripts/lib/address.ts'
import { hostOf } from './backend.ts'
import { blockChain } from './names.ts'
import { type Layout, lastRule, sourceOf } from './netfilter.ts'

// Rules are looked through one by one, so the index of the backend `iptables` is a tree of chains: a
// packet goes from wider blocks of addresses to narrower ones until it is known to be banned or not.
//
//   perimeter-look           -s 100.64.0.0/22 -g perimeter-100.64.0.0/22
//   perimeter-100.64.0.0/22  -s 100.64.0.0/26 -g perimeter-100.64.0.0/26
//                            -s 100.64.1.7/32 -g perimeter-banned
//
// A chain is named after its block, so that a ban changes the chains around it and no others.

/** What the hooks jump to: it finds out whether a source is banned at all. */
export const LOOK = 'perimeter-look'

/** A packet is compared with so many blocks in a chain at most. */
const BLOCKS = 16

/** The kernel follows 16 jumps; this leaves room for the hook's own chains and ours around. */
const DEEPEST = 9

/** The chains that lead a packet from there to `banned`, and everybody else back to the hook. */
export function indexOf(addresses: Iterable<Address>, banned: string): Layout {
  const layout: Layout = new Map()
  const add = (name: string, groups: Address[][], depth: number): void => {
    const rules: string[] = []
    layout.set(name, rules)
    for (const group of groups) {
      const block = blockOf(group)
      if (!block) continue
      const chain = group.length === 1 ? banned : blockChain(block.text)
      rules.push(`-s ${sourceOf(block)} -g ${chain}`)
      if (group.length > 1)
        add(chain, spread(group, depth < DEEPEST ? BLOCKS : Infinity), depth + 1)
    }
    rules.push(lastRule(name))
  }
  const all = outermost(addresses)
  // One block around everything, unless that is the whole of the internet.
  const isWhole = all.length > 1 && sharedBits(all[0], all.at(-1)) === 0
  add(LOOK, isWhole ? spread(all, BLOCKS) : [all], 1)
  return layout
}

/** In order, and without what is inside of another one. */
function outermost(addresses: Iterable<Address>): Address[] {
  const found: Address[] = []
  for (const address of [...addresses].sort(compareAddresses)) {
    const last = found.at(-1)
    if (!last || !overlaps(last, address)) found.push(address)
  }
  return found
}

/** Halves the block with the most in it until there are enough of them, or nothing is left to halve. */
function spread(addresses: Address[], blocks: number): Address[][] {
  const groups = [addresses]
  while (groups.length < blocks) {
    const sizes = groups.map((group) => group.length)
    const most = Math.max(...sizes)
    if (most === 1) break
    const at = sizes.indexOf(most)
    const group = groups[at] ?? []
    const middle = middleOf(group)
    groups.splice(at, 1, group.slice(0, middle), group.slice(middle))
  }
  return groups
}

/** Where the upper half of the narrowest block around sorted addresses begins. */
function middleOf(group: Address[]): number {
  const shared = sharedBits(group[0], group.at(-1))
  let [low, high] = [0, group.length - 1]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (sharedBits(group[0], group[middle]) > shared) low = middle
    else high = middle
  }
  return high
}

/** The narrowest block around sorted addresses. */
function blockOf(group: Address[]): Address | undefined {
  const [first] = group
  if (!first || group.length === 1) return first
  return parseAddress(`${hostOf(first)}/${sharedBits(first, group.at(-1))}`)
}

/** How many bits two addresses begin with, neither of which is inside of the other. */
function sharedBits(one: Address | undefined, other: Address | undefined): number {
  const differing = BigInt(one?.bits ?? 0) ^ BigInt(other?.bits ?? 0)
  return (one?.family === 'inet4' ? 32 : 128) - differing.toString(2).length
}
