import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { isSingle, parseAddress } from '../address.ts'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import type { Lease } from '../lease.ts'
import { type Line, RELEASED } from '../ledger.ts'
import { lock, tryLock } from '../lock.ts'
import {
  type Call,
  type Change,
  type Counts,
  describeChange,
  type Outcome,
  Refusal,
  subjectOf,
} from '../target.ts'
import { Book } from './book.ts'
import { type Answer, type Ask, send } from './http.ts'
import {
  type Bucket,
  type Clock,
  FIRST_RETRY,
  isForgotten,
  isTime,
  type Kind,
  type Pace,
  pause,
  readPace,
  reset,
  returned,
  spend,
  systemClock,
  tripped,
  waitFor,
  waitForQuiet,
  writePace,
} from './pace.ts'
import { isPublic } from './public.ts'
import { push, waitTurn } from './push.ts'
import { retryAfter, type Service } from './service.ts'

/**
 * Milliseconds that a verb may spend waiting for its turn. Fail2Ban stands still for a single one;
 * a long one outlasts a minute's budget, but is not what keeps other targets from their sync.
 */
export const PATIENCE = { single: 5_000, check: 15_000, long: 90_000 }

/** What the service is told, in this order. */
const KINDS = ['report', 'withdrawal'] as const

interface Options {
  clock?: Clock
  /** Starts a process that does `report`, for what the verb leaves; the deliverer has its `f2b-sync`. */
  later?(call: Call): void
}

/** What the verbs of a reporter are made of, whichever service it reports to. */
export class Reporter {
  readonly service: Service
  readonly clock: Clock
  readonly #directory: string
  readonly #later: Options['later']
  #book: Book | undefined

  /** @param directory `state_dir` */
  constructor(service: Service, directory: string, { clock = systemClock, later }: Options = {}) {
    this.service = service
    this.clock = clock
    this.#directory = directory
    this.#later = later
  }

  /** Remembers changes under one lock, and tells them in as few calls as there can be. */
  async change(call: Call, changes: readonly Change[]): Promise<Outcome[]> {
    const outcomes = changes.map((change) => {
      const range = change.verb === 'ban' && !isSingle(change.lease.address)
      return range ? new Refusal(EXIT.input, 'a range cannot be reported') : undefined
    })
    const fit = changes.filter((change, i) => !outcomes[i] && isReported(call, change))
    if (call.dryRun) for (const change of fit) call.show(describeChange(call, change))
    if (call.dryRun) return outcomes
    const turns = await this.locked(call, (book, pace) => {
      const news = new Set(fit.flatMap((change) => this.#note(book, call, change) ?? []))
      // A command tells what is its own; the deliverer all that is kept.
      const kinds = KINDS.filter((kind) => news.has(kind) || !this.#later)
      return kinds.map((kind) => ({ kind, turn: this.#turn(pace, kind) }))
    })
    for (const { kind, turn } of turns) await this.#tell(call, kind, turn)
    return outcomes
  }

  /** @returns what the service is to be told now, if anything */
  #note(book: Book, call: Call, change: Change): Kind | undefined {
    if (change.verb === 'ban') {
      return book.want(lineOf(change.lease), this.seconds()) ? 'report' : undefined
    }
    const line = { address: change.address.text, jail: change.jail, owner: call.owner }
    return book.release(line, this.seconds()) ? 'withdrawal' : undefined
  }

  /** What to do about something new to tell: tell it now, or start a process that will. */
  #turn(pace: Pace, kind: Kind): 'now' | 'later' | undefined {
    const now = this.clock.now()
    if (isTime(pace, kind, now)) return 'now'
    return this.#later && isForgotten(pace, now) ? 'later' : undefined
  }

  async #tell(call: Call, only: Kind, turn: 'now' | 'later' | undefined): Promise<void> {
    if (turn === 'later') this.#later?.(call)
    if (turn !== 'now') return
    let told = false
    try {
      told = await push(this, call, { patience: PATIENCE.single, only })
    } finally {
      const isLeft = (_: Book, pace: Pace) => isForgotten(pace, this.clock.now())
      if (!told && this.#later && (await this.locked(call, isLeft))) this.#later(call)
    }
  }

  /**
   * Tells what is kept: after the burst, when the budget or the breaker allows, until nothing is
   * left. This is for the background, so that no ban depends on another that comes after it.
   *
   * @throws Failure 75 if the verb must be over before that; 76, 77 as the service answers
   */
  async report(call: Call): Promise<void> {
    if (call.dryRun) return call.show('report what is kept')
    for (let least = 0; ; ) {
      const wait = await this.locked(call, (book, pace) => this.#untilTime(book, pace, least))
      if (wait === undefined) return
      if (wait === 0) least = (await this.#isTold(call)) ? 0 : FIRST_RETRY
      else {
        await waitTurn(this, call, wait)
        if (!existsSync(this.#directory)) return // All of it was uninstalled meanwhile.
        least = 0
      }
    }
  }

  /** Milliseconds to wait before what is kept may be told; undefined if nothing is. */
  #untilTime(book: Book, pace: Pace, least: number): number | undefined {
    const at = this.seconds()
    const wait = waitForQuiet(pace, this.clock.now(), least)
    if (book.toReport(at).length + book.toWithdraw(at).length > 0) return wait
    pace.awake = 0
    return undefined
  }

  /** @returns false for a failure that may pass by itself. @throws Failure for any other */
  async #isTold(call: Call): Promise<boolean> {
    try {
      return await push(this, call, { patience: PATIENCE.long })
    } catch (error) {
      const mayPass: number[] = [EXIT.temporary, EXIT.unreachable]
      if (error instanceof Failure && mayPass.includes(error.code)) return false
      throw error
    }
  }

  /** Makes the leases exactly these, then reports what is new and withdraws what ended. */
  async sync(call: Call, leases: readonly Lease[]): Promise<Counts> {
    const fit = leases.filter(({ address }) => isPublic(address))
    const lines = fit.map(lineOf)
    const { changes, ...counts } = await this.locked(call, (book) => {
      const found = book.wanted.diff(call.owner, call.jail, lines, this.seconds())
      if (!call.dryRun) for (const line of found.changes) book.wanted.put(line)
      return found
    })
    if (call.dryRun) for (const line of changes) call.show(wordsOf(line))
    else await push(this, call, { patience: PATIENCE.long })
    return { ...counts, refused: leases.length - fit.length }
  }

  /** This owner's leases (of `call.jail`) that the service was told about. */
  async leases(call: Call): Promise<Lease[]> {
    const now = this.seconds()
    const lines = await this.locked(call, (book) =>
      Array.from(book.wanted.living(now)).filter(
        ({ address, jail, owner }) =>
          owner === call.owner && jail === (call.jail ?? jail) && book.isReported(address, now),
      ),
    )
    return lines.map((line) => ({ ...line, address: parseAddress(line.address) }))
  }

  /** This owner's leases of `call.jail`, whether the service was told about them or not. */
  async wanted(call: Call): Promise<Lease[]> {
    const lines = await this.locked(call, (book) =>
      Array.from(book.wanted.living(this.seconds())).filter(
        ({ jail, owner }) => owner === call.owner && jail === call.jail,
      ),
    )
    return lines.map((line) => ({ ...line, address: parseAddress(line.address) }))
  }

  /** Forgets every lease and report: the account was emptied. */
  async forget(call: Call): Promise<void> {
    await this.locked(call, (book) => book.forget(this.seconds()))
  }

  /** Fails if reports are stopped; a key that was refused and works now starts them again. */
  async resume(call: Call): Promise<void> {
    await this.locked(call, (_, pace) => {
      const stopped = tripped(pace, this.clock.now())
      if (stopped && stopped.code !== EXIT.refused) throw stopped
      reset(pace)
    })
  }

  /**
   * One call beside the reports: a question, or a command for the whole account. It keeps to the
   * bucket's limits and waits for them, and for a 429, as long as `patience` (ms) allows.
   *
   * @throws Failure 69, 75, 76, 77
   */
  async ask(call: Call, bucket: Bucket, ask: Ask, patience: number): Promise<Answer> {
    for (let left = patience; ; ) {
      const wait = await this.locked(call, (_, pace) => turn(pace, bucket, this.clock.now()))
      if (wait > left) throw tooManyCalls(wait)
      left -= wait
      if (wait > 0) await this.clock.wait(wait, call.signal)
      else {
        call.say(`${ask.method} ${ask.url}`)
        const answer = await send(this.service.key, ask, call.signal)
        const later = answer.status === 429
        await this.locked(call, (_, pace) => {
          const now = this.clock.now()
          returned(pace, bucket, now)
          if (later) pause(pace, bucket, now, retryAfter(answer))
        })
        if (!later) return answer
      }
    }
  }

  /** Does something with the ledgers and the pace, under the lock, and writes both. */
  async locked<T>(call: Call, work: (book: Book, pace: Pace) => T): Promise<T> {
    makeDirectory(this.#directory)
    const release = await lock(this.#file('lock'))
    try {
      this.#book ??= new Book(this.#directory, this.service, call.owner)
      this.#book.refresh()
      const pace = readPace(this.#file('pace'))
      const before = JSON.stringify(pace)
      const result = work(this.#book, pace)
      this.#book.commit()
      if (JSON.stringify(pace) !== before) writePace(this.#file('pace'), pace)
      return result
    } finally {
      release()
    }
  }

  /** The right to send, which one process has at a time; undefined if another has it. */
  async sender(wait: number): Promise<(() => void) | undefined> {
    return tryLock(this.#file('send'), Math.ceil(wait / 1000))
  }

  /** Now, in epoch seconds. */
  seconds(): number {
    return Math.floor(this.clock.now() / 1000)
  }

  #file(kind: string): string {
    return join(this.#directory, `${this.service.name}.${kind}`)
  }
}

function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw ioFailure(`make "${path}"`, error)
  }
}

/** Milliseconds to wait for a call; 0 = it is yours, and counted. */
function turn(pace: Pace, bucket: Bucket, now: number): number {
  const wait = waitFor(pace, bucket, now)
  if (wait === 0) spend(pace, bucket, now)
  return wait
}

function tooManyCalls(wait: number): Failure {
  const seconds = Math.ceil(wait / 1000)
  return new Failure(EXIT.temporary, `too many calls (429), the next try is in ${seconds} s`)
}

function isReported(call: Call, change: Change): boolean {
  const { address } = subjectOf(change)
  if (isPublic(address)) return true
  if (change.verb === 'ban') call.say(`${address.text} is not public: not reported`)
  return false
}

function lineOf({ address, jail, expires, owner }: Lease): Line {
  return { address: address.text, jail, expires, owner }
}

function wordsOf({ address, jail, expires, owner }: Line): string {
  if (expires === RELEASED) return `unban ${address} ${jail} ${owner}`
  return `ban ${address} ${jail} ${expires} ${owner}`
}
