import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Address, overlaps, parseAddress } from '../address.ts'
import { alive, now } from '../lease.ts'
import { Ledger, type Line, LOOK_ONLY, RELEASED } from '../ledger.ts'
import type { Config } from '../settings/schema.ts'
import { BY_HAND, endIn, textOf } from './book.ts'
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
  #read: Ledger | undefined

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

  /** How the delivery to a target stands, with what f2b-deliver has not read yet. @throws Failure 75 */
  state(target: string): State {
    const kept = openKept(this.#directory, fileNameOf(this.#sibling, target))
    const status = statusIn(kept)
    const unread = this.#unread()
    const waiting = this.waiting(target).length
    const since = [
      ...(unread.length > 0 ? [this.#oldest(unread)] : []),
      ...(waiting > 0 && status.oldest > 0 ? [status.oldest] : []),
    ]
    const oldest = since.length > 0 ? Math.min(...since) : 0
    return { ...status, queued: unread.length + waiting, oldest, rejected: rejectedIn(kept) }
  }

  /** When the lease is to end, for those that know it to a second otherwise. */
  wants(address: string, jail: string): number | undefined {
    return endIn(this.#wanted, this.#owner, { address, jail })
  }

  /** What is banned by hand. */
  held(): Line[] {
    return [...this.#wanted.living(now())].filter(({ owner }) => owner === BY_HAND)
  }

  /** What the target is to be told, given what it has confirmed. */
  waiting(target: string): Waiting[] {
    const [wanted, at] = [this.#wanted, now()]
    const confirmed = this.#open(`${fileNameOf(this.#sibling, target)}.confirmed`)
    const all = new Map<string, Line>()
    for (const lines of [wanted.living(at), wanted.ended(at), confirmed.living(at)]) {
      for (const line of lines) if (this.#isOwn(line)) all.set(textOf(line), line)
    }
    return [...all.values()].flatMap(({ address, jail }) => {
      const expires = this.wants(address, jail) ?? RELEASED
      if (!isDue(expires, endIn(confirmed, this.#owner, { address, jail }), at)) return []
      return [{ verb: alive(expires, at) ? 'ban' : 'unban', address, jail }]
    })
  }

  /** What is on its way about an address: to this target, or to all of the sibling's. */
  about(address: Address, target: string): Waiting[] {
    const unread = this.#unread().flatMap(([word = '', ip = '', jail = '']) => {
      const verb = VERBS[word]
      return verb ? [{ verb, address: canonicalText(ip), jail }] : []
    })
    return [...unread, ...this.waiting(target)].filter((one) => touches(one.address, address))
  }

  /** What a target refuses for good; without one, the lines that can never work. */
  rejected(target?: string): Rejections {
    const name = target === undefined ? this.#sibling : fileNameOf(this.#sibling, target)
    return new Rejections(name, openKept(this.#directory, name))
  }

  /** The jails that the address is, or was, to be banned in. */
  jails(address: string): string[] {
    const rows = this.#wanted.held(address).filter((row) => this.#isOwn(row))
    return rows.map(({ jail }) => jail)
  }

  #isOwn({ owner }: { owner: string }): boolean {
    return owner === this.#owner || owner === BY_HAND
  }

  /** The words of the lines that f2b-deliver has not read. @throws Failure 75 */
  #unread(): string[][] {
    const queue = new Queue(this.#queue, this.#position())
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

  get #wanted(): Ledger {
    this.#read ??= this.#open(`${this.#sibling}.wanted`)
    return this.#read
  }

  #open(name: string): Ledger {
    const ledger = new Ledger(join(this.#directory, name), LOOK_ONLY)
    ledger.refresh()
    return ledger
  }

  /** How far the queue has been read: the last remark of that kind counts. */
  #position(): string {
    const read = this.#wanted.remarks().filter((line) => line.startsWith('# read '))
    return read.at(-1)?.slice('# read '.length) ?? ''
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

/** Whether a target that has a lease until `has` must be told, if it is wanted until `wanted`. */
function isDue(wanted: number, has: number | undefined, at: number): boolean {
  if (alive(wanted, at)) return has !== wanted
  return wanted === RELEASED && (has === undefined || alive(has, at))
}

/** True if a text is an address that has something in common with this one. */
function touches(text: string, address: Address): boolean {
  try {
    return overlaps(parseAddress(text), address)
  } catch {
    return false
  }
}
