import { codeOf, type Failure, messageOf } from '../failure.ts'
import type { Backlog } from './backlog.ts'
import type { Log } from './log.ts'
import { type Refused, Rejections } from './rejected.ts'
import { readState, type State, writeState } from './state.ts'

/** Milliseconds after which a state is written again that has not changed much. */
const KEEP = 5_000

/** How the delivery to one target stands: kept in a file for f2b-status, and told to the journal. */
export class Standing {
  readonly state: State
  readonly rejected: Rejections
  readonly #directory: string
  readonly #name: string
  readonly #target: string
  readonly #log: Log
  readonly #backlog: Backlog
  #failures = 0
  #kept = 0
  #told: { changes: number; ms: number; timer: NodeJS.Timeout | undefined } = {
    changes: 0,
    ms: 0,
    timer: undefined,
  }

  /** @param name of the file; @param target as the journal shows it */
  constructor(directory: string, name: string, target: string, log: Log, backlog: Backlog) {
    this.state = { ...readState(directory, name) }
    this.rejected = new Rejections(target, this.state.rejected)
    this.#directory = directory
    this.#name = name
    this.#target = target
    this.#log = log
    this.#backlog = backlog
  }

  /** Tries that have failed in a row. */
  get failures(): number {
    return this.#failures
  }

  succeeded(): void {
    if (this.#failures > 0) this.#log.info('works again', { target: this.#target })
    this.#failures = 0
    this.state.lastSuccess = seconds()
    const wasFailing = this.state.failingSince !== 0
    this.state.failingSince = 0
    this.keep(wasFailing)
  }

  failed(error: unknown): void {
    const [code, message] = [codeOf(error), messageOf(error)]
    const first = this.#failures++ === 0
    this.state.lastError = { at: seconds(), code, message }
    this.state.failingSince ||= seconds()
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
    if (this.state.clock === wrong) return
    if (wrong === undefined) delete this.state.clock
    else {
      this.state.clock = wrong
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
    if (!now && Date.now() - this.#kept < KEEP) return
    this.#kept = Date.now()
    try {
      writeState(this.#directory, this.#name, this.refresh())
    } catch (error) {
      this.warn('cannot keep state', error)
    }
  }

  warn(what: string, error: unknown): void {
    this.#log.warn(what, { target: this.#target, reason: messageOf(error) })
  }

  refresh(): State {
    this.rejected.forgetOld()
    this.state.rejected = this.rejected.list()
    this.state.queued = this.#backlog.size
    this.state.oldest = this.#backlog.oldest
    return this.state
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
