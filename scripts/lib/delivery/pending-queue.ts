import { EXIT, type Failure } from '../failure.ts'
import { type Key, textOf } from './desired-leases.ts'

/** Seconds for which a change that the target refuses is tried again, and between two such tries. */
const REFUSED = { patience: 600, again: 10 }

/** Something to be delivered. */
export interface Pending extends Key {
  /** Epoch milliseconds. */
  since: number
}

/** What one target has not confirmed yet, in the order in which it came. */
export class PendingQueue {
  readonly #waiting = new Map<string, Pending>()
  /** What the target was told and has not answered yet. */
  #sending: Pending[] = []
  /** What the target refuses, and since when: it is tried again from time to time. */
  readonly #refused = new Map<string, { pending: Pending; since: number }>()

  /** How many wait to be tried now. */
  get waiting(): number {
    return this.#waiting.size
  }

  get size(): number {
    return this.#waiting.size + this.#sending.length + this.#refused.size
  }

  /** Since when the oldest waits, epoch seconds; 0 if none does. */
  get oldest(): number {
    const [first] = this.#waiting.values()
    const oldest = Math.min(first?.since ?? Infinity, this.#sending[0]?.since ?? Infinity)
    return oldest < Infinity ? Math.floor(oldest / 1000) : 0
  }

  /** Milliseconds until what was refused is to be tried again; undefined if nothing was. */
  get again(): number | undefined {
    return this.#refused.size > 0 ? REFUSED.again * 1000 : undefined
  }

  /** Adds a lease about which there is news; of several news only the last counts. */
  add({ address, jail }: Key): void {
    const text = textOf({ address, jail })
    const since = this.#waiting.get(text)?.since ?? Date.now()
    this.#waiting.delete(text)
    this.#waiting.set(text, { address, jail, since })
  }

  /** Takes out those, in order, for which `pick` finds something to send, at most so many. */
  take<T>(most: number, pick: (pending: Pending) => T | undefined): T[] {
    const taken: T[] = []
    for (const [text, pending] of this.#waiting) {
      if (taken.length >= most) break
      this.#waiting.delete(text)
      const found = pick(pending)
      if (found === undefined) continue
      taken.push(found)
      this.#sending.push(pending)
    }
    return taken
  }

  /** Says that what was taken was answered. Those that failed come first, but for newer news. */
  answered(again: Pending[]): void {
    this.#sending = []
    if (again.length === 0) return
    const newer = [...this.#waiting]
    this.#waiting.clear()
    for (const pending of again) this.#waiting.set(textOf(pending), pending)
    for (const [text, pending] of newer) {
      this.#waiting.delete(text)
      this.#waiting.set(text, pending)
    }
  }

  /** Says that the target has confirmed it. */
  confirm(pending: Pending): void {
    this.#refused.delete(textOf(pending))
  }

  /**
   * Notes that the target refuses it. It may be lifted, when the target has room again for instance.
   *
   * @returns false if there is no hope left
   */
  refuse(pending: Pending, { code }: Failure): boolean {
    const text = textOf(pending)
    const since = this.#refused.get(text)?.since ?? Date.now()
    const hopeful = code === EXIT.refused && Date.now() - since < REFUSED.patience * 1000
    if (hopeful) this.#refused.set(text, { pending, since })
    else this.#refused.delete(text)
    return hopeful
  }

  /** Puts what was refused back, to be tried once more. */
  retry(): void {
    for (const { pending } of this.#refused.values()) this.add(pending)
  }

  /** Forgets what the target has after all. */
  drop(isDone: (pending: Pending) => boolean): void {
    for (const [text, pending] of [...this.#waiting])
      if (isDone(pending)) this.#waiting.delete(text)
    for (const [text, { pending }] of [...this.#refused]) {
      if (isDone(pending)) this.#refused.delete(text)
    }
  }
}
