import { codeOf, type Failure, messageOf } from '../failure.ts'
import type { Log } from './log.ts'
import type { PendingQueue } from './pending-queue.ts'
import { type Refused, Rejections } from './rejected.ts'
import { type Kept, noteStatus, openKept, type State, type Status, statusIn } from './state.ts'

/** Milliseconds after which a state is written again that has not changed much. */
const KEEP = 5_000

/** How the delivery to one target stands: kept in a file for f2b-status, and told to the journal. */
export class TargetStatus {
  readonly #status: Status
  readonly rejected: Rejections
  readonly #kept: Kept
  readonly #target: string
  readonly #log: Log
  readonly #pending: PendingQueue
  #failures = 0
  #keptAt = 0
  #told: { changes: number; ms: number; timer: NodeJS.Timeout | undefined } = {
    changes: 0,
    ms: 0,
    timer: undefined,
  }

  /** @param name of the file; @param target as the journal shows it */
  constructor(directory: string, name: string, target: string, log: Log, backlog: PendingQueue) {
    this.#kept = openKept(directory, name)
    this.#status = statusIn(this.#kept)
    this.rejected = new Rejections(target, this.#kept)
    this.#target = target
    this.#log = log
    this.#pending = backlog
  }

  /** Tries that have failed in a row. */
  get failures(): number {
    return this.#failures
  }

  succeeded(): void {
    if (this.#failures > 0) this.#log.info('works again', { target: this.#target })
    this.#failures = 0
    this.#status.lastSuccess = seconds()
    const wasFailing = this.#status.failingSince !== 0
    this.#status.failingSince = 0
    this.keep(wasFailing)
  }

  failed(error: unknown): void {
    const [code, message] = [codeOf(error), messageOf(error)]
    const first = this.#failures++ === 0
    this.#status.lastError = { at: seconds(), code, message }
    this.#status.failingSince ||= seconds()
    // A target that is away for a night fills no journal.
    if (first) this.#log.warn('fails', { target: this.#target, code, reason: message })
    this.keep(first)
  }

  /** Notes what the target refuses for good; `keep` writes it. */
  reject(refused: Refused, why: Failure): void {
    if (!this.rejected.note(refused, why)) return
    const { code, message } = why
    const about = { target: this.#target, change: refused.change, code, reason: message }
    this.#log.warn('rejected', about)
  }

  /** @param wrong what is wrong with the target's clock; undefined if nothing is */
  clock(wrong: string | undefined): void {
    if (this.#status.clock === wrong) return
    if (wrong === undefined) delete this.#status.clock
    else {
      this.#status.clock = wrong
      this.#log.warn('clock', { target: this.#target, reason: wrong })
    }
    this.keep(true)
  }

  lostGeneration(): void {
    this.#log.info('lost generation', { target: this.#target })
  }

  /** Logs what was delivered: at once, but in a flood a line a second. */
  delivered(changes: number, ms: number): void {
    const told = this.#told
    told.changes += changes
    told.ms = Math.max(told.ms, ms)
    if (told.timer || told.changes === 0) return
    this.#sayDelivered()
    told.timer = setTimeout(() => {
      told.timer = undefined
      this.#sayDelivered()
    }, 1_000).unref()
  }

  /** What cannot be kept for later use is only logged. */
  keep(now: boolean): void {
    if (!now && Date.now() - this.#keptAt < KEEP) return
    this.#keptAt = Date.now()
    try {
      this.#refresh()
      noteStatus(this.#kept, this.#status)
      this.#kept.commit()
    } catch (error) {
      this.warn('cannot keep state', error)
    }
  }

  warn(what: string, error: unknown): void {
    this.#log.warn(what, { target: this.#target, reason: messageOf(error) })
  }

  state(): State {
    this.#refresh()
    return { ...this.#status, rejected: this.rejected.list() }
  }

  #refresh(): void {
    this.rejected.forgetOld()
    this.#status.queued = this.#pending.size
    this.#status.oldest = this.#pending.oldest
  }

  #sayDelivered(): void {
    const { changes, ms } = this.#told
    this.#told.changes = 0
    this.#told.ms = 0
    if (changes > 0) this.#log.info('delivered', { target: this.#target, changes, ms })
  }
}

function seconds(): number {
  return Math.floor(Date.now() / 1000)
}
