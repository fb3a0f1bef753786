import { statSync } from 'node:fs'
import { join } from 'node:path'
import type { Address } from '../address.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import type { Loaded } from '../settled.ts'
import type { Kind } from '../siblings.ts'
import type { Call, Counts, Target } from '../target.ts'
import { DesiredLeases, type Wish } from './desired-leases.ts'
import type { Fail2BanBans } from './fail2ban-bans.ts'
import type { Log } from './log.ts'
import { parseOperation, refusedOf } from './operation.ts'
import { Queue } from './queue.ts'
import { banKey, type Rejection, Rejections } from './rejected.ts'
import {
  deliveryDirectory,
  type Kept,
  openKept,
  queueDirectory,
  type SiblingState,
} from './state.ts'
import { TargetWorker } from './target-worker.ts'

/** What a sync did to one target. */
export interface Synced {
  sibling: string
  target: string
  counts?: Counts
  /** What was shown while it was done. */
  lines: string[]
  failure?: { code: number; message: string }
}

/** What was acknowledged, and whose it is. */
export interface Acknowledged extends Rejection {
  sibling: string
  /** Undefined if it would be refused wherever it goes. */
  target: string | undefined
}

/** Why a sync has released no address. */
function doubt(leases: number): { code: number; message: string } {
  const what = `Fail2Ban names ${leases} bans no more, most of all, and was not told to end them`
  return { code: EXIT.temporary, message: `${what}: they stay until it says so in a minute, too` }
}

/** One sibling's way from its queue over its book to its targets. */
export class Line {
  readonly kind: Kind
  readonly workers: TargetWorker[]
  readonly #book: DesiredLeases
  readonly #queue: Queue
  readonly #kept: Kept
  readonly #log: Log
  readonly #tidies: boolean
  /** Lines that can never work, wherever they go. */
  readonly #rejected: Rejections
  /** Why the queue could not be read the last time: said once. */
  #unreadable = ''

  /** Closed, it keeps nothing any more: another line may have its files. */
  #closed = false

  /** @param call makes what every verb is told */
  constructor(
    kind: Kind,
    targets: Target[],
    { config: { owner, state_dir } }: Loaded,
    call: (seconds: number) => Call,
    log: Log,
  ) {
    const directory = deliveryDirectory(state_dir)
    const book = new DesiredLeases(directory, kind.name, owner)
    this.kind = kind
    this.workers = targets.map(
      (target) =>
        new TargetWorker({ sibling: kind.name, target, book, directory, owner, call, log }),
    )
    this.#book = book
    const queues = queueDirectory(state_dir)
    this.#queue = new Queue(join(queues, kind.name), book.position)
    this.#tidies = statSync(queues).uid === process.getuid?.()
    this.#log = log
    this.#kept = openKept(directory, kind.name)
    this.#rejected = new Rejections(kind.name, this.#kept)
  }

  /**
   * Reads the queue and hands on what is in it. Sending need not wait for the disk: what is sent
   * twice after a kill does no harm.
   *
   * @returns why it cannot be read; other siblings are served all the same
   */
  read(never: () => Address[], prefixes: { ipv4: number; ipv6: number }): Failure | undefined {
    let lines: string[]
    try {
      lines = this.#queue.read()
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      if (error.message !== this.#unreadable) this.#log.warn(error.message)
      this.#unreadable = error.message
      return error
    }
    this.#unreadable = ''
    let rejected = false
    for (const text of lines) rejected = this.#take(text, never(), prefixes) || rejected
    if (rejected) this.#keepState()
    if (lines.length > 0) setImmediate(() => this.keep())
    else this.keep()
    return undefined
  }

  /** Puts on the disk what was read and how far; what cannot be kept now is kept with the next. */
  keep(): void {
    if (this.#closed) return
    try {
      this.#book.commit(this.#queue.position())
      if (this.#tidies) this.#queue.tidy()
    } catch (error) {
      this.#log.warn('cannot keep the book', { reason: messageOf(error) })
    }
  }

  /** How far the queue was read, as the book has it on the disk. */
  position(): string {
    return this.#book.position
  }

  /** Says that Fail2Ban is going to be asked now. */
  mark(): number {
    return this.#book.mark()
  }

  /** @returns what is to be; see DesiredLeases.merge @throws Failure 75 if Fail2Ban must be asked again */
  merge(truth: Fail2BanBans, mark: number): Wish[] {
    const merged = this.#book.merge(truth, mark)
    if (merged) return merged
    throw new Failure(EXIT.temporary, 'Cannot sync: too much has changed meanwhile, try again')
  }

  /** Shows what a sync of these targets would change. */
  compare(said: Wish[], truth: Fail2BanBans, meant: TargetWorker[]): Promise<Synced>[] {
    const wishes = this.#book.withHeld(said)
    return meant.map((one) => this.#outcome(one, (show) => one.compare(wishes, truth, show)))
  }

  /**
   * Makes the book and these targets equal to what is to be.
   *
   * @param sure whether Fail2Ban was told to release what it does not name any more. Of bans past the
   *   queue we know nothing: what is held back would be banned again.
   */
  sync(said: Wish[], truth: Fail2BanBans, meant: TargetWorker[], sure: boolean): Promise<Synced>[] {
    const { wishes, heldBack } = this.#book.believe(said, truth.instance, sure || truth.direct)
    for (const [jail, naming] of truth.namings) this.#book.name(jail, naming)
    const changed = this.#book.become(wishes)
    this.keep()
    this.#forgetTaken(wishes)
    const outcomes = meant.map(async (one) => {
      const outcome = await this.#outcome(one, (show) => one.sync(truth, show))
      return heldBack > 0 && !outcome.failure ? { ...outcome, failure: doubt(heldBack) } : outcome
    })
    // For targets that are not meant, or cannot be reached now. Those that are have their turn.
    for (const key of changed) for (const worker of this.workers) worker.notice(key)
    return outcomes
  }

  /** How the delivery stands. */
  status(): SiblingState {
    this.#rejected.forgetOld()
    const targets = this.workers.map((one) => ({ target: one.target.name, state: one.state() }))
    return { sibling: this.kind.name, rejected: this.#rejected.list(), targets }
  }

  async close(): Promise<void> {
    this.keep()
    this.#closed = true
    this.#queue.close()
    for (const { target } of this.workers) await target.close?.()
  }

  /** @returns true if what was rejected has changed */
  #take(text: string, never: Address[], prefixes: { ipv4: number; ipv6: number }): boolean {
    try {
      const operation = parseOperation(text, never, prefixes)
      if (!operation) return false
      const keys = this.#book.take(operation)
      for (const key of keys) for (const worker of this.workers) worker.notice(key)
      const known = keys.map(({ address, jail }) => this.#rejected.forget(banKey(address, jail)))
      return known.includes(true)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#reject(text, error)
      return true
    }
  }

  #reject(line: string, why: Failure): void {
    const { key, refused } = refusedOf(line)
    if (!refused) this.#rejected.forget(key)
    if (!refused || !this.#rejected.note(refused, why)) return
    const { change } = refused
    this.#log.warn('rejected', { sibling: this.kind.name, change, reason: why.message })
  }

  /** @param word see `Rejections.acknowledge` */
  acknowledge(word: string): Acknowledged[] {
    const sibling = this.kind.name
    const own = this.#rejected.acknowledge(word)
    if (own.length > 0) this.#keepState()
    const theirs = this.workers.flatMap((worker) =>
      worker.acknowledge(word).map((one) => ({ ...one, sibling, target: worker.target.name })),
    )
    return [...own.map((one) => ({ ...one, sibling, target: undefined })), ...theirs]
  }

  /** What was refused and is not refused any more, after a change of `never_ban` for instance. */
  #forgetTaken(wishes: Wish[]): void {
    if (this.#rejected.list().length === 0) return
    const taken = wishes.filter(({ address, jail }) => this.#rejected.forget(banKey(address, jail)))
    if (taken.length > 0) this.#keepState()
  }

  #keepState(): void {
    this.#rejected.forgetOld()
    try {
      this.#kept.commit()
    } catch (error) {
      this.#log.warn('cannot keep state', { reason: messageOf(error) })
    }
  }

  async #outcome(
    { target }: TargetWorker,
    work: (show: (line: string) => void) => Promise<Counts>,
  ): Promise<Synced> {
    const lines: string[] = []
    const outcome = { sibling: this.kind.name, target: target.name, lines }
    try {
      return { ...outcome, counts: await work((line) => lines.push(line)) }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return { ...outcome, failure: { code: codeOf(error), message: error.message } }
    }
  }
}
