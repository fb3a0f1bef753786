import { setTimeout as sleep } from 'node:timers/promises'
import { parseAddress } from '../address.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { alive, type Lease, later } from '../lease.ts'
import { type Ledger, type Line, RELEASED } from '../ledger.ts'
import { type Call, type Change, LostGeneration, type Synced, type Target } from '../verbs.ts'
import { type Book, type Key, openLedger, textOf, tidyLedger, type Wish } from './book.ts'
import { byHand, makeChanges } from './change.ts'
import type { Log } from './log.ts'
import { fileNameOf, readState, type State, writeState } from './state.ts'

/** Changes that travel together. */
const BATCH = 1000

/** Seconds for a batch, for a sync, and for what cannot be ended sooner when we are to stop. */
const DEADLINE = { batch: 20, sync: 600 }

/** Milliseconds between two tries: the first pause, the longest, and between two looks. */
const PAUSE = { first: 500, longest: 30_000, look: 1_000 }

/** Seconds for which a change that the target refuses is tried again, and between two such tries. */
const REFUSED = { patience: 600, again: 10 }

/** Milliseconds between two exchanges that only keep the connection, and notice its end. */
const KEEP = 15_000

/** Milliseconds after which the state of a target is written again, if it has changed. */
const KEEP_STATE = 5_000

/** Something to be delivered. */
interface Pending extends Key {
  /** Epoch milliseconds. */
  since: number
}

export interface CourierOptions {
  sibling: string
  target: Target
  book: Book
  directory: string
  owner: string
  /** Makes what every verb is told, with so many seconds to live. */
  call(seconds: number): Call
  log: Log
}

/**
 * Brings one target what the book of its sibling wants: in order, in batches, again until it works.
 * What the target has confirmed stands in a ledger of its own, so what is to be delivered is the
 * difference of two ledgers, whatever was killed in between.
 */
export class Courier {
  readonly name: string
  readonly target: Target
  readonly state: State
  readonly #options: CourierOptions
  readonly #confirmed: Ledger
  readonly #pending = new Map<string, Pending>()
  /** What the target refuses, and since when: it is tried again from time to time. */
  readonly #refused = new Map<string, { pending: Pending; since: number }>()
  /** What the target was told and has not confirmed yet. */
  #sending: Pending[] = []
  /** What is under way; the next thing begins behind it. */
  #turn: Promise<unknown> = Promise.resolve()
  #failures = 0
  #wake: () => void = () => {}
  #stopping = new AbortController()
  #stateKept = 0
  #told: { changes: number; ms: number; timer: NodeJS.Timeout | undefined } = {
    changes: 0,
    ms: 0,
    timer: undefined,
  }

  constructor(options: CourierOptions) {
    const { sibling, target, directory } = options
    this.#options = options
    this.target = target
    this.name = fileNameOf(sibling, target.name)
    this.state = readState(directory, this.name)
    this.#confirmed = openLedger(directory, `${this.name}.confirmed`)
    const now = Date.now() / 1000
    for (const line of [...this.#confirmed.living(now)]) this.notice(line)
    for (const key of options.book.keys()) this.notice(key)
    this.#dropDone()
  }

  /** Says that the book has changed about a lease. */
  notice({ address, jail }: Key): void {
    const key = `${address} ${jail}`
    const since = this.#pending.get(key)?.since ?? Date.now()
    this.#pending.delete(key)
    this.#pending.set(key, { address, jail, since })
    this.#wake()
  }

  get queued(): number {
    return this.#pending.size + this.#sending.length + this.#refused.size
  }

  /** Delivers as long as there is something, and then waits for more; ends with `stop`. */
  async follow(): Promise<void> {
    let works = await this.#keep()
    while (!this.#stopping.signal.aborted) {
      if (!works) await this.#pause()
      else if (this.#pending.size === 0) await this.#nextWake()
      works = this.#pending.size > 0 ? await this.deliver() : await this.#keep()
    }
    await this.#turn
    this.#keepState(true)
    await this.target.close?.()
  }

  /** Opens the connection before the first ban needs it, and fills a target that lost everything. */
  async #keep(): Promise<boolean> {
    if (!this.target.keep || this.#stopping.signal.aborted) return true
    return await this.#inTurn(async () => {
      try {
        await this.target.keep?.(this.#call(DEADLINE.batch))
        this.#succeeded()
        return true
      } catch (error) {
        if (error instanceof LostGeneration && !(await this.#refill([])).failure) return true
        this.#failed(error)
        return false
      }
    })
  }

  /** Ends `follow` after the batch that is under way. */
  stop(): void {
    this.#stopping.abort()
    this.#wake()
  }

  /** Tries to deliver what is pending now. @returns false if the target fails */
  async deliver(): Promise<boolean> {
    return await this.#inTurn(async () => {
      while (this.#pending.size > 0 && !this.#stopping.signal.aborted) {
        const failure = await this.#deliverBatch()
        if (failure) return false
      }
      return true
    })
  }

  /** Makes the target equal to the book, whatever it has. @throws Failure */
  async sync(show: (line: string) => void): Promise<Synced> {
    return await this.#inTurn(async () => {
      try {
        const counts = await this.#syncTarget({ ...this.#call(DEADLINE.sync), show })
        this.#succeeded()
        return counts
      } catch (error) {
        this.#failed(error)
        throw error
      }
    })
  }

  /** Shows what a sync would change. @throws Failure */
  async compare(wishes: Wish[], show: (line: string) => void): Promise<Synced> {
    const call = { ...this.#call(DEADLINE.sync), show, dryRun: true }
    return await this.#inTurn(() => this.#send(call, wishes))
  }

  /** What the target was last known to have. */
  *confirmed(): Generator<Line> {
    yield* this.#confirmed.living(Date.now() / 1000)
  }

  async #syncTarget(call: Call): Promise<Synced> {
    const wishes = [...this.#options.book.living()]
    const counts = await this.#send(call, wishes)
    const { owner } = this.#options
    const lines = wishes.map((wish) => ({ ...wish, owner }))
    const now = Date.now() / 1000
    for (const line of this.#confirmed.difference(owner, undefined, lines, now).changes) {
      this.#confirmed.put(line)
    }
    this.#commit()
    this.state.aside = []
    this.#refused.clear()
    this.#dropDone()
    return counts
  }

  async #send(call: Call, wishes: Wish[]): Promise<Synced> {
    const leases = wishes.map((wish) => leaseOf(wish, wish.expires, this.#options.owner))
    if (await this.target.has?.(call, leases)) {
      return { added: 0, extended: 0, removed: 0, unchanged: leases.length }
    }
    return await this.target.sync(call, [...(await byHand(this.target, call)), ...leases])
  }

  async #deliverBatch(): Promise<Failure | undefined> {
    const { book, owner } = this.#options
    const began = Date.now()
    const batch: { pending: Pending; changes: Change[]; wanted: number }[] = []
    for (const pending of this.#pending.values()) {
      if (batch.length >= BATCH) break
      const wanted = book.wants(pending)
      const changes = this.#changesFor(pending, wanted, owner)
      this.#pending.delete(textOf(pending))
      if (changes.length > 0) batch.push({ pending, changes, wanted })
    }
    if (batch.length === 0) return undefined
    const changes = batch.flatMap((one) => one.changes)
    this.#sending = batch.map(({ pending }) => pending)
    const { results, failure } = await this.#make(changes)
    this.#sending = []
    let at = 0
    const again: Pending[] = []
    for (const { pending, changes, wanted } of batch) {
      const own = results.slice(at, at + changes.length)
      at += changes.length
      const wrong = own.find((result) => result !== undefined)
      if (own.length < changes.length) again.push(pending)
      else if (!wrong) this.#confirm(pending, wanted)
      else if (!this.#mayWork(pending, wrong)) this.#setAside(pending, wrong, changes)
    }
    this.#commit()
    this.#putBack(again)
    if (failure) this.#failed(failure)
    else this.#succeeded()
    this.#tell(batch.length - again.length, Date.now() - began)
    return failure
  }

  /** Logs what was delivered: at once, but in a flood a line a second. */
  #tell(changes: number, ms: number): void {
    const told = this.#told
    told.changes += changes
    told.ms = Math.max(told.ms, ms)
    if (told.timer || told.changes === 0) return
    const say = (): void => {
      if (told.changes > 0) {
        const { sibling, target, log } = this.#options
        const about = { target: `${sibling}/${target.name}`, changes: told.changes, ms: told.ms }
        log.info('delivered', about)
      }
      told.changes = 0
      told.ms = 0
    }
    say()
    told.timer = setTimeout(() => {
      told.timer = undefined
      say()
    }, 1_000).unref()
  }

  /** What the target must be told so that it has the lease until `wanted`. */
  #changesFor(key: Key, wanted: number, owner: string): Change[] {
    const now = Date.now() / 1000
    const has = this.#has(key)
    const address = parseAddress(key.address)
    const unban: Change = { verb: 'unban', address, jail: key.jail }
    if (!alive(wanted, now)) {
      // What ended by itself has ended there as well.
      const over = wanted !== RELEASED || (has !== undefined && !alive(has, now))
      return over ? [] : [unban]
    }
    if (has === wanted) return []
    const ban: Change = { verb: 'ban', lease: leaseOf(key, wanted, owner) }
    const shorter = has !== undefined && alive(has, now) && later(has, wanted) !== wanted
    return shorter ? [unban, ban] : [ban]
  }

  async #make(changes: Change[]) {
    try {
      return await makeChanges(this.target, this.#call(DEADLINE.batch), changes)
    } catch (error) {
      if (error instanceof LostGeneration) return await this.#refill(changes)
      if (error instanceof Failure) return { results: [], failure: error }
      throw error
    }
  }

  /** The target has nothing of ours any more: it gets everything, in one go. */
  async #refill(changes: Change[]) {
    this.#options.log.info('lost generation', { target: this.target.name })
    try {
      await this.#syncTarget(this.#call(DEADLINE.sync))
      return { results: changes.map(() => undefined) }
    } catch (error) {
      if (error instanceof Failure) return { results: [], failure: error }
      throw error
    }
  }

  #has({ address, jail }: Key): number | undefined {
    return this.#confirmed.held(address).find((row) => row.jail === jail)?.expires
  }

  /** Forgets what the target has already. */
  #dropDone(): void {
    const { book, owner } = this.#options
    for (const key of [...this.#pending.values()]) {
      const changes = this.#changesFor(key, book.wants(key), owner)
      if (changes.length === 0) this.#pending.delete(textOf(key))
    }
  }

  #confirm(key: Key, expires: number): void {
    this.#refused.delete(textOf(key))
    const { address, jail } = key
    this.#confirmed.put({ address, jail, expires, owner: this.#options.owner })
  }

  /** What cannot be written now is written with the next: at worst it is delivered twice. */
  #commit(): void {
    try {
      this.#confirmed.commit()
      this.#confirmed.settle()
      tidyLedger(this.#confirmed, () => [])
    } catch (error) {
      this.#options.log.warn('cannot keep what was confirmed', { reason: messageOf(error) })
    }
  }

  /** Those that failed come first again, unless something newer is known about them. */
  #putBack(keys: Pending[]): void {
    if (keys.length === 0) return
    const newer = [...this.#pending]
    this.#pending.clear()
    for (const key of keys) this.#pending.set(textOf(key), key)
    for (const [text, key] of newer) {
      this.#pending.delete(text)
      this.#pending.set(text, key)
    }
  }

  /** A refusal may be lifted, when the target has room again for instance. */
  #mayWork(pending: Pending, { code }: Failure): boolean {
    if (code !== EXIT.refused) return false
    const now = Date.now()
    const since = this.#refused.get(textOf(pending))?.since ?? now
    this.#refused.set(textOf(pending), { pending, since })
    return now - since < REFUSED.patience * 1000
  }

  #setAside(key: Key, { code, message }: Failure, changes: Change[]): void {
    this.#refused.delete(textOf(key))
    const line = `${changes.at(-1)?.verb} ${key.address} ${key.jail}`
    this.state.aside.push({ at: Math.floor(Date.now() / 1000), code, reason: message, line })
    this.#options.log.warn('set aside', { target: this.target.name, line, code, reason: message })
    this.#keepState(true)
  }

  #succeeded(): void {
    if (this.#failures > 0) this.#options.log.info('works again', { target: this.target.name })
    this.#failures = 0
    this.state.lastSuccess = Math.floor(Date.now() / 1000)
    const wasFailing = this.state.failingSince !== 0
    this.state.failingSince = 0
    this.#keepState(wasFailing)
  }

  #failed(error: unknown): void {
    const code = error instanceof Failure ? error.code : EXIT.bug
    const at = Math.floor(Date.now() / 1000)
    const first = this.#failures++ === 0
    this.state.lastError = { at, code, message: messageOf(error) }
    this.state.failingSince ||= at
    // A target that is away for a night fills no journal.
    if (first) {
      this.#options.log.warn('fails', { target: this.target.name, code, reason: messageOf(error) })
    }
    this.#keepState(first)
  }

  #keepState(now: boolean): void {
    this.refreshState()
    if (!now && Date.now() - this.#stateKept < KEEP_STATE) return
    this.#stateKept = Date.now()
    try {
      writeState(this.#options.directory, this.name, this.state)
    } catch (error) {
      this.#options.log.warn('cannot keep state', { reason: messageOf(error) })
    }
  }

  refreshState(): State {
    const [first, next] = [this.#sending[0], this.#pending.values().next().value]
    const oldest = Math.min(first?.since ?? Infinity, next?.since ?? Infinity)
    this.state.queued = this.queued
    this.state.oldest = oldest < Infinity ? Math.floor(oldest / 1000) : 0
    return this.state
  }

  /** Waits until the next try is due, or the target that was away answers again. */
  async #pause(): Promise<void> {
    const longest = Math.min(PAUSE.first * 2 ** (this.#failures - 1), PAUSE.longest)
    const end = Date.now() + longest * (0.5 + Math.random() / 2)
    let away = false
    while (Date.now() < end && !this.#stopping.signal.aborted) {
      const isThere = (await this.target.probe?.(this.#call(DEADLINE.batch))) ?? true
      if (away && isThere) return
      away = !isThere
      const wait = Math.min(end - Date.now(), PAUSE.look)
      await sleep(wait, undefined, { signal: this.#stopping.signal }).catch(() => {})
    }
  }

  /** Waits for news, or for the next time to try what the target refused. */
  async #nextWake(): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      this.#wake = resolve
      const wait = this.#refused.size > 0 ? REFUSED.again * 1000 : KEEP
      timer = setTimeout(resolve, wait)
    })
    clearTimeout(timer)
    this.#wake = () => {}
    if (this.#pending.size > 0) return
    for (const { pending } of this.#refused.values()) this.#pending.set(textOf(pending), pending)
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work)
    this.#turn = result.catch(() => {})
    return result
  }

  #call(seconds: number): Call {
    return { ...this.#options.call(seconds), namings: this.#options.book.namings }
  }
}

function leaseOf({ address, jail }: Key, expires: number, owner: string): Lease {
  return { address: parseAddress(address), jail, expires, owner }
}
