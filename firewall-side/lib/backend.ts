import { type Address, isSingle, parseAddress } from '../../scripts/lib/address.ts'
import type { Service } from '../../scripts/lib/ports.ts'
import type { Tool } from './tool.ts'

/** A jail's chain, what it blocks of a packet's kinds and what it must look for. */
export interface Chain {
  jail: string
  /** The union of what all owners named. */
  services: Service[]
  /** Prefix lengths of the ranges in it, such as `inet4/24`. */
  widths: string[]
}

/** An address to block in a jail's chain, until the latest end that any owner's lease has. */
export interface Entry {
  address: Address
  jail: string
  /** Epoch seconds, 0 = never. */
  expires: number
}

/** What takes a kernel with sets some tenths of a second (`npm run bench -- turns`). */
export const AT_ONCE = 10_000

/** A chain and everything that is to be in it. */
export interface Load {
  chain: Chain
  entries: readonly Entry[]
}

/** Everything that the kernel should hold. */
export interface Contents {
  chains: Chain[]
  entries: Entry[]
  never: Address[]
}

/** What is to be different in the kernel, in one transaction where the kernel has such a thing. */
export interface Change {
  /** All chains; the same list twice unless one is new, gone, has other ports or another width. */
  chains: { before: readonly Chain[]; now: readonly Chain[] }
  /** The jail whose single addresses are looked for without the index, see `isIndexed`. */
  direct: string | undefined
  /** The whole never-ban list, if it is another one. */
  never?: Address[]
  enter: Entry[]
  /** Entries that the kernel has with another end. */
  extend: Entry[]
  leave: { address: Address; jail: string }[]
  /** Addresses that the index has to find no longer. */
  free: Address[]
  /** Chains whose entries are replaced as a whole. */
  load: Load[]
  /** Everything that the index is to find, if it is made anew. */
  index?: readonly Entry[]
}

/** What the kernel holds of ours, as its own dump shows it. */
export interface Held {
  /** `<chain> <address>` of everything that is blocked: a packet from there comes as far as a drop. */
  blocks: Set<string>
  /** Entries in the index, also those that nothing needs any more. */
  indexed: number
}

/**
 * A packet filter: it enters, removes and loads what it is told and remembers nothing. Who holds
 * what, and until when, is the ledger's business.
 *
 * A packet whose source nobody bans pays for a few look-ups, whatever the number of jails and bans:
 * an index says whether a source is banned at all, and only those are looked for jail by jail.
 */
export interface Backend {
  name: string
  /** False if entries stay until they are removed: the sweeper then does it. */
  expires: boolean
  /** The longest time in seconds that the kernel can count; a longer lease is renewed. */
  longest: number
  /** So many entries are changed in one transaction; other owners come in between. */
  atOnce: number
  works(): Promise<boolean>
  /** What `apply` feeds, if it may be started before. */
  tool?: Tool
  /** @throws Failure 75 if it could not be done: something that should be there is not, say */
  apply(change: Change): Promise<void>
  /**
   * Makes the kernel equal to the contents, whatever was there of ours.
   *
   * @returns chains that could not be made because another program has them
   * @throws Failure 75
   */
  rebuild(contents: Contents): Promise<string[]>
  /**
   * A digest of the kernel's own dump of all that is ours but the entries: chains, jumps, sets, who is
   * never blocked. What it was after our last change tells whether another program has changed it.
   */
  shape(chains: readonly Chain[]): Promise<string>
  /** Reads back what the kernel holds. */
  held(chains: readonly Chain[]): Promise<Held>
  /** Removes everything of ours. */
  remove(): Promise<void>
}

/** The only jail of a firewall needs no index: it would be as many look-ups, and each ban twice. */
export function directOf(chains: readonly Chain[]): string | undefined {
  return chains.length === 1 ? chains[0]?.jail : undefined
}

/** True if packets find an entry by the index: all but the single addresses of the only jail. */
export function isIndexed(
  { address, jail }: { address: Address; jail: string },
  direct: string | undefined,
): boolean {
  return jail !== direct || !isSingle(address)
}

/** A range of a length in this block or a longer one is looked for only if something is in the block. */
export const NEAR = { inet4: 24, inet6: 48 } as const

/** The block that a range is in; undefined for one that is wider than that. */
export function nearOf(address: Address): Address | undefined {
  const width = NEAR[address.family]
  return address.prefix < width ? undefined : parseAddress(`${hostOf(address)}/${width}`)
}

/** The address without its prefix length. */
export function hostOf({ text }: Address): string {
  const slash = text.indexOf('/')
  return slash < 0 ? text : text.slice(0, slash)
}

/** All prefix lengths in use. */
export function widthsOf(chains: readonly Chain[]): string[] {
  return [...new Set(chains.flatMap((chain) => chain.widths))].sort()
}

/** Seconds until a moment, for a kernel timeout: at least 1, at most what the kernel can count. */
export function secondsLeft(expires: number, longest: number): number {
  return Math.min(Math.max(1, Math.ceil(expires - Date.now() / 1000)), longest)
}

/** The same to the millisecond, for a kernel that counts so: a ban of 8 seconds shall not last 9. */
export function millisecondsLeft(expires: number, longest: number, at = Date.now()): number {
  return Math.min(Math.max(1000, Math.ceil(expires * 1000 - at)), longest * 1000)
}

/** Sorts entries to their chains. */
export function loadsOf(chains: readonly Chain[], entries: readonly Entry[]): Load[] {
  const loads = new Map(chains.map((chain) => [chain.jail, { chain, entries: [] as Entry[] }]))
  for (const entry of entries) loads.get(entry.jail)?.entries.push(entry)
  return [...loads.values()]
}

/** A few bytes that tell one dump from any other. */
export function shapeOf(dump: string): string {
  const { createHash } = process.getBuiltinModule('node:crypto')
  return createHash('sha256').update(dump).digest('base64url')
}
