import { join } from 'node:path'
import { Journal } from '../journal.ts'
import type { Rejection } from './rejected.ts'

/** How the delivery to one target stands; times in epoch seconds, 0 = never. */
export interface State extends Status {
  /** What the target refuses for good. */
  rejected: Rejection[]
}

export interface Status {
  lastSuccess: number
  /** Since when it has failed without a break; 0 if the last try went well. */
  failingSince: number
  /** The last failure, also when it is over. */
  lastError: { at: number; code: number; message: string } | null
  /** What is wrong with the target's clock, if anything. */
  clock?: string
  /** Changes that wait, and since when the oldest of them does. */
  queued: number
  oldest: number
}

/** How the delivery to the targets of a sibling stands. */
export interface SiblingState {
  sibling: string
  /** Lines that can never work, wherever they go. */
  rejected: Rejection[]
  targets: { target: string; state: State }[]
}

export const FRESH: Status = {
  lastSuccess: 0,
  failingSince: 0,
  lastError: null,
  queued: 0,
  oldest: 0,
}

/** Where the delivery keeps its books and states, and where its socket is. */
export function deliveryDirectory(stateDir: string): string {
  return join(stateDir, 'delivery')
}

/** Where action lines put what is to be delivered; one file per sibling. */
export function queueDirectory(stateDir: string): string {
  return join(stateDir, 'queue')
}

/** What a file of one target begins with: `firewall@edge1`. */
export function fileNameOf(sibling: string, target: string): string {
  return `${sibling}@${target.replace(/[^\w.:-]/g, '_')}`
}

/** What is kept about a target, or about all of a sibling: its status, and what it refuses by key. */
export type Kept = Journal<Partial<Status> | Rejection>

/** No key of what is refused is this one. */
const STATUS = 'status'

export function openKept(directory: string, name: string): Kept {
  return new Journal<Partial<Status> | Rejection>(join(directory, `${name}.state`), (value) => {
    const { rejected = [], ...status } = value as Partial<State>
    return [[STATUS, status], ...rejected.map((one): [string, Rejection] => [one.key, one])]
  })
}

export function statusIn(kept: Kept): Status {
  return { ...FRESH, ...(kept.get(STATUS) as Partial<Status> | undefined) }
}

/** Notes how it stands; `commit` writes it. */
export function noteStatus(kept: Kept, status: Status): void {
  kept.set(STATUS, { ...status })
}

/** What is refused for good, in the order in which it happened. */
export function rejectedIn(kept: Kept): Rejection[] {
  const all = kept.entries().flatMap(([, one]) => ('key' in one ? [one] : []))
  return all.sort((a, b) => a.at - b.at)
}
