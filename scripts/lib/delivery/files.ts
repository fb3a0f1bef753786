import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Address, overlaps, parseAddress } from '../address.ts'
import { now } from '../lease.ts'
import { LOOK_ONLY } from '../ledger.ts'
import type { Config } from '../settings/schema.ts'
import { DesiredLeases, type Key, openLedger } from './desired-leases.ts'
import { canonicalText } from './operation.ts'
import { Queue, wordsOf } from './queue.ts'
import { Rejections } from './rejected.ts'
import {
  deliveryDirectory,
  fileNameOf,
  openKept,
  queueDirectory,
  rejectedIn,
  type State,
  statusIn,
} from './state.ts'
import { changesFor } from './target-worker.ts'

/** A change that a target is still to be told. */
export interface Waiting {
  verb: 'ban' | 'unban'
  address: string
  jail: string
}

/** What the words of a queue come to. */
const VERBS: Record<string, Waiting['verb']> = {
  ban: 'ban',
  hold: 'ban',
  unban: 'unban',
  release: 'unban',
}

/**
 * The files of the delivery to one sibling as they are now, read without a lock and without any
 * change: what is queued, what is wanted, and what each target has confirmed.
 */
export class DeliveryFiles {
  readonly #sibling: string
  readonly #owner: string
  readonly #queue: string
  readonly #directory: string
  #desired: DesiredLeases | undefined

  constructor({ owner, state_dir }: Config, sibling: string) {
    this.#sibling = sibling
    this.#owner = owner
    this.#queue = join(queueDirectory(state_dir), sibling)
    this.#directory = deliveryDirectory(state_dir)
  }

  /** True if bans go through a queue: an action line has written into one. */
  get isQueued(): boolean {
    return ['', '.taken', '.gone'].some((end) => existsSync(this.#queue + end))
  }

  /** What the targets are to have, as far as f2b-deliver has read the queue. @throws Failure 75 */
  get desired(): DesiredLeases {
    this.#desired ??= new DesiredLeases(this.#directory, this.#sibling, this.#owner, LOOK_ONLY)
    return this.#desired
  }

  /** How the delivery to a target stands, with what f2b-deliver has not read yet. @throws Failure 75 */
  state(target: string): State {
    const kept = openKept(this.#directory, fileNameOf(this.#sibling, target))
    const status = statusIn(kept)
    const unread = this.#unread()
    const waiting = this.#waiting(target).length
    const since = [
      ...(unread.length > 0 ? [this.#oldest(unread)] : []),
      ...(waiting > 0 && status.oldest > 0 ? [status.oldest] : []),
    ]
    const oldest = since.length > 0 ? Math.min(...since) : 0
    return { ...status, queued: unread.length + waiting, oldest, rejected: rejectedIn(kept) }
  }

  /** What is on its way about an address: to this target, or to all of the sibling's. */
  about(address: Address, target: string): Waiting[] {
    const unread = this.#unread().flatMap(([word = '', ip = '', jail = '']) => {
      const verb = VERBS[word]
      return verb ? [{ verb, address: canonicalText(ip), jail }] : []
    })
    const isMeant = (one: { address: string }): boolean => touches(one.address, address)
    return [...unread.filter(isMeant), ...this.#waiting(target, isMeant)]
  }

  /** What a target refuses for good; without one, the lines that can never work. */
  rejected(target?: string): Rejections {
    const name = target === undefined ? this.#sibling : fileNameOf(this.#sibling, target)
    return new Rejections(name, openKept(this.#directory, name))
  }

  /** What the target is to be told, given what it has confirmed. */
  #waiting(target: string, isMeant: (key: Key) => boolean = () => true): Waiting[] {
    const name = `${fileNameOf(this.#sibling, target)}.confirmed`
    const confirmed = openLedger(this.#directory, name, LOOK_ONLY)
    const keys = new Map<string, Key>()
    for (const { address, jail } of [...this.desired.keys(), ...confirmed.living(now())]) {
      if (isMeant({ address, jail })) keys.set(`${address} ${jail}`, { address, jail })
    }
    return [...keys.values()].flatMap((key) => {
      const has = confirmed.held(key.address).find(({ jail }) => jail === key.jail)?.expires
      const changes = changesFor(key, this.desired.wants(key), has, this.#owner)
      return changes.slice(-1).map(({ verb }) => ({ verb, ...key }))
    })
  }

  /** The words of the lines that f2b-deliver has not read. @throws Failure 75 */
  #unread(): string[][] {
    const queue = new Queue(this.#queue, this.desired.position)
    const lines: string[][] = []
    try {
      for (let read = queue.read(); read.length > 0; read = queue.read()) {
        for (const line of read) lines.push(wordsOf(line) ?? [])
      }
    } finally {
      queue.close()
    }
    return lines.filter((words) => words.length > 0)
  }

  /** A line says when its ban began, which may be long before it was written: after a restart. */
  #oldest(lines: string[][]): number {
    const moments = lines
      .flatMap(([verb, , , time]) => (verb === 'ban' ? [Number(time)] : []))
      .filter(Number.isFinite)
    const file = statSync(this.#queue, { throwIfNoEntry: false })
    const read = statSync(join(this.#directory, `${this.#sibling}.wanted`), {
      throwIfNoEntry: false,
    })
    const since = (read ?? file)?.[read ? 'mtimeMs' : 'birthtimeMs'] ?? Date.now()
    const first = moments.length > 0 ? Math.min(...moments) : 0
    return Math.floor(Math.min(Math.max(since / 1000, first), Date.now() / 1000))
  }
}

/** True if a text is an address that has something in common with this one. */
function touches(text: string, address: Address): boolean {
  try {
    return overlaps(parseAddress(text), address)
  } catch {
    return false
  }
}
