import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { replaceDurably } from '../durable.ts'
import { ioFailure } from '../failure.ts'
import type { Rejection } from './rejected.ts'

/** How the delivery to one target stands; times in epoch seconds, 0 = never. */
export interface State {
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
  /** What the target refuses for good. */
  rejected: Rejection[]
}

/** How the delivery to the targets of a sibling stands. */
export interface SiblingState {
  sibling: string
  /** Lines that can never work, wherever they go. */
  rejected: Rejection[]
  targets: { target: string; state: State }[]
}

export const FRESH: State = {
  lastSuccess: 0,
  failingSince: 0,
  lastError: null,
  queued: 0,
  oldest: 0,
  rejected: [],
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

export function readState(directory: string, name: string): State {
  try {
    const kept = JSON.parse(readFileSync(join(directory, `${name}.state`), 'utf8'))
    return { ...FRESH, ...kept }
  } catch {
    return FRESH
  }
}

/** @throws Failure 75 */
export function writeState(directory: string, name: string, state: State): void {
  const text = JSON.stringify(state, null, 1)
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw ioFailure(`make "${directory}"`, error)
  }
  replaceDurably(join(directory, `${name}.state`), `${text}\n`)
}
