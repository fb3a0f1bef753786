import type { Address } from '../../scripts/lib/address.ts'
import type { Service } from '../../scripts/lib/ports.ts'
import type { Tool } from './tool.ts'

/** A jail's chain, what its jumps match and what it must look for. */
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
  /** All chains, if one is new, gone, has other ports or another width. */
  chains?: Chain[]
  /** Jails among `chains` that are new or have a new width. */
  fresh: string[]
  /** Chains that go, with everything in them; they are no longer among `chains`. */
  drop: Chain[]
  /** The whole never-ban list, if it is another one. */
  never?: Address[]
  enter: Entry[]
  /** Entries that the kernel has with another end. */
  extend: Entry[]
  leave: { address: Address; jail: string }[]
  /** Chains whose entries are replaced as a whole. */
  load: Load[]
}

/**
 * A packet filter: it enters, removes and loads what it is told and remembers nothing. Who holds
 * what, and until when, is the ledger's business.
 */
export interface Backend {
  name: string
  /** False if entries stay until they are removed: the sweeper then does it. */
  expires: boolean
  /** The longest time in seconds that the kernel can count; a longer lease is renewed. */
  longest: number
  works(): Promise<boolean>
  /** What `apply` feeds, if it may be started before. */
  tool?: Tool
  /** @throws Failure 75 if it could not be done: something that should be there is not, say */
  apply(change: Change): Promise<void>
  /** Makes the kernel equal to the contents, whatever was there of ours. @throws Failure 75 */
  rebuild(contents: Contents): Promise<void>
  /** Entries per jail, or undefined if a chain or jump of `chains` is not as it should be. */
  count(chains: Chain[]): Promise<Map<string, number> | undefined>
  /** A cheap look whether our part of the kernel is there at all. */
  present(): Promise<boolean>
  /** Removes everything of ours. */
  remove(): Promise<void>
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
export function loadsOf(chains: Chain[], entries: Entry[]): Load[] {
  const loads = new Map(chains.map((chain) => [chain.jail, { chain, entries: [] as Entry[] }]))
  for (const entry of entries) loads.get(entry.jail)?.entries.push(entry)
  return [...loads.values()]
}
