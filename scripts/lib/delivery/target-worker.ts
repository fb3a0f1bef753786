import { setTimeout as sleep } from 'node:timers/promises'
import { parseAddress } from '../address.ts'
import { Failure } from '../failure.ts'
import { inTurn } from '../in-turn.ts'
import { alive, type Lease, later, NO_JAIL, now } from '../lease.ts'
import { type Ledger, RELEASED } from '../ledger.ts'
import {
  type Call,
  type Change,
  type Counts,
  LostGeneration,
  NewSession,
  type Outcome,
  Refusal,
  type Target,
} from '../target.ts'
import { type DesiredLeases, type Key, openLedger, textOf, type Wish } from './desired-leases.ts'
import { type Fail2BanBans, isKept } from './fail2ban-bans.ts'
import type { Log } from './log.ts'
import { type Pending, PendingQueue } from './pending-queue.ts'
import { banKey, type Rejection } from './rejected.ts'
import { fileNameOf, type State } from './state.ts'
import { TargetStatus } from './target-status.ts'

/** Changes that travel together. */
const BATCH = 1000

/** Seconds for a batch, and for a sync. */
const DEADLINE = { batch: 20, sync: 600 }

/** Milliseconds between two tries: the first pause, the longest, and between two looks. */
const PAUSE = { first: 500, longest: 30_000, look: 1_000 }

/** Milliseconds between two exchanges that only keep the connection, and notice its end. */
const KEEP = 15_000

export interface WorkerOptions {
  sibling: string
  target: Target
  book: DesiredLeases
  directory: string
  owner: string
  /** Makes what every verb is told, with so many seconds to live. */
  call(seconds: number): Call
  log: Log
}

/** What one lease needs. */
interface PendingChange {
  pending: Pending
  changes: Change[]
  /** The end that the target has when they are made. */
  wanted: number
}

/**
 * Brings one target what the book of its sibling wants: in order, in batches, again until it works.
 * What the target has confirmed stands in a ledger of its own, so what is to be delivered is the
 * difference of two ledgers, whatever was killed in between.
 */
export class TargetWorker {
  readonly target: Target
  readonly #options: WorkerOptions
  readonly #confirmed: Ledger
  readonly #pending = new PendingQueue()
  readonly #status: TargetStatus
  readonly #inTurn = inTurn()
  #wake: () => void = () => {}
  #isOpened = false
  /** Since `deliver` has begun. */
  #refilled = false
  #stopping = new AbortController()

  constructor(options: WorkerOptions) {
    const { sibling, target, directory, log } = options
    const name = fileNameOf(sibling, target.name)
    this.#options = options
    this.target = target
    this.#confirmed = openLedger(directory, `${name}.confirmed`)
    const shown = `${sibling}/${target.name}`
    this.#status = new TargetStatus(directory, name, shown, log, this.#pending)
    for (const line of this.#confirmed.living(Date.now() / 1000)) this.#pending.add(line)
    for (const key of options.book.keys()) this.#pending.add(key)
    this.#dropDone()
  }

  /** Says that the book has changed about a lease. */
  notice(key: Key): void {
    this.#pending.add(key)
    this.#wake()
  }

  get queued(): number {
    return this.#pending.size
  }

  /** How the delivery stands. */
  state(): State {
    return this.#status.state()
  }

  /** Delivers as long as there is something, and then waits for more; ends with `stop`. */
  async follow(): Promise<void> {
    let works = await this.#keep()
    while (!this.#stopping.signal.aborted) {
      if (!works) await this.#pause()
      else if (this.#pending.waiting === 0) await this.#nextWake()
      works = this.#pending.waiting > 0 ? await this.deliver() : await this.#keep()
    }
    await this.#inTurn(() => {})
    this.#status.keep(true)
    await this.target.close?.()
  }

  /** Ends `follow` after the batch that is under way. */
  stop(): void {
    this.#stopping.abort()
    this.#wake()
  }

  /** Tries to deliver what waits now. @returns false if the target fails */
  async deliver(): Promise<boolean> {
    return await this.#inTurn(async () => {
      this.#refilled = false
      while (this.#pending.waiting > 0 && !this.#stopping.signal.aborted) {
        if (!(await this.#deliverBatch())) return false
      }
      return true
    })
  }

  /** Makes the target equal to the book, whatever it has. @throws Failure */
  async sync(truth: Fail2BanBans, show: (line: string) => void): Promise<Counts> {
    return await this.#inTurn(async () => {
      try {
        const counts = await this.#syncTarget({ ...this.#call(DEADLINE.sync), show }, truth)
        this.#status.succeeded()
        // What it did not take is tried one by one: then it says why.
        while (counts.refused && this.#pending.waiting > 0) {
          if (!(await this.#deliverBatch())) break
        }
        return counts
      } catch (error) {
        this.#status.failed(error)
        throw error
      }
    })
  }

  /** Shows what a sync would change. @throws Failure */
  async compare(
    wishes: Wish[],
    truth: Fail2BanBans,
    show: (line: string) => void,
  ): Promise<Counts> {
    const call = { ...this.#call(DEADLINE.sync), show, dryRun: true }
    return await this.#inTurn(() => this.#send(call, this.#possible(wishes), truth))
  }

  /** @returns false if the target fails */
  async #deliverBatch(): Promise<boolean> {
    const began = Date.now()
    const taken = this.#pending.take(BATCH, (pending) => this.#changeFor(pending))
    if (taken.length === 0) return true
    const { outcomes, failure } = await this.#make(taken.flatMap(({ changes }) => changes))
    const again: Pending[] = []
    let at = 0
    let rejected = false
    for (const one of taken) {
      const own = outcomes.slice(at, at + one.changes.length)
      at += one.changes.length
      const wrong = own.find((outcome) => outcome !== undefined)
      if (own.length < one.changes.length || own.some(isOfTarget)) again.push(one.pending)
      else if (wrong) rejected = this.#refused(one, wrong) || rejected
      else this.#confirm(one)
    }
    this.#commit()
    this.#pending.answered(again)
    if (failure) this.#status.failed(failure)
    else this.#status.succeeded()
    if (rejected) this.#status.keep(true)
    this.#status.delivered(taken.length - again.length, Date.now() - began)
    return failure === undefined
  }

  /** What the target must be told about a lease; undefined if nothing. */
  #changeFor(pending: Pending): PendingChange | undefined {
    const { book, owner } = this.#options
    const wanted = book.wants(pending)
    if (this.#isRejected({ ...pending, expires: wanted })) return undefined
    const changes = changesFor(pending, wanted, this.#has(pending), owner)
    return changes.length > 0 ? { pending, changes, wanted } : undefined
  }

  #confirm({ pending, wanted }: PendingChange): void {
    const { address, jail } = pending
    this.#pending.confirm(pending)
    this.#confirmed.put({ address, jail, expires: wanted, owner: this.#options.owner })
    this.#status.rejected.forget(banKey(address, jail))
  }

  /** @returns true if there is no hope for it */
  #refused({ pending, changes, wanted }: PendingChange, why: Failure): boolean {
    if (this.#pending.refuse(pending, why)) return false
    const { address, jail } = pending
    const verb = changes.at(-1)?.verb ?? 'ban'
    const key = verb === 'ban' ? banKey(address, jail) : `${verb} ${address} ${jail}`
    const change = `${verb} ${address} in ${jail}`
    this.#status.reject({ change, key, expires: wanted }, why)
    return true
  }

  /** True if the target has said that it will not have this very ban. */
  #isRejected({ address, jail, expires }: Wish): boolean {
    return this.#status.rejected.refuses(banKey(address, jail), expires)
  }

  /** @returns no outcomes where everything is to be tried again, and why the target fails, if it does */
  async #make(changes: Change[]): Promise<{ outcomes: Outcome[]; failure: Failure | undefined }> {
    try {
      if (!this.#isOpened) await this.#open()
      const outcomes = await this.target.change(this.#call(DEADLINE.batch), changes)
      return { outcomes, failure: outcomes.find(isOfTarget) }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return { outcomes: [], failure: await this.#mend(error) }
    }
  }

  /** Brings the target to where changes can be made. @returns why that cannot be done */
  async #mend(failure: Failure): Promise<Failure | undefined> {
    if (failure instanceof NewSession) return await this.#lookAnew()
    // After it was filled, it is told what it still lacks.
    if (failure instanceof LostGeneration && !this.#refilled) return await this.#refill()
    return failure
  }

  async #open(): Promise<void> {
    this.#isOpened = true
    await this.target.open?.(this.#call(DEADLINE.batch))
  }

  /**
   * An earlier session of ours may have died with changes on their way: what the target has is taken
   * for confirmed, and what the book wants otherwise is to be delivered. What the book does not know
   * is left to a sync, which has asked Fail2Ban.
   */
  async #lookAnew(): Promise<Failure | undefined> {
    const { book, owner } = this.#options
    const call = this.#call(DEADLINE.sync)
    try {
      const wishes = this.#possible([...book.living()])
      const leases = wishes.map((wish) => leaseOf(wish, wish.expires, owner))
      if (await this.target.inSync?.(call, leases)) {
        this.#haveAll(wishes)
        this.#dropDone()
        return undefined
      }
      const has = new Map<string, Wish>()
      for (const { address, jail, expires } of await this.target.list(call)) {
        const wish = { address: address.text, jail, expires }
        if (book.knows(wish)) has.set(textOf(wish), wish)
      }
      for (const line of [...this.#confirmed.living(Date.now() / 1000)]) {
        if (!has.has(textOf(line))) this.#confirmed.put({ ...line, expires: RELEASED })
      }
      for (const wish of has.values()) this.#confirmed.put({ ...wish, owner })
      this.#commit()
      for (const key of [...has.values(), ...wishes]) {
        if (this.#changeFor({ ...key, since: 0 })) this.#pending.add(key)
      }
      return undefined
    } catch (error) {
      if (error instanceof Failure) return error
      throw error
    }
  }

  /** The target has nothing of ours any more: it gets everything, in one go. */
  async #refill(): Promise<Failure | undefined> {
    this.#status.lostGeneration()
    this.#refilled = true
    try {
      await this.#syncTarget(this.#call(DEADLINE.sync))
      return undefined
    } catch (error) {
      if (error instanceof Failure) return error
      throw error
    }
  }

  /** @param truth says which leases of the target stay that the book does not know */
  async #syncTarget(call: Call, truth?: Fail2BanBans): Promise<Counts> {
    const wishes = this.#possible([...this.#options.book.living()])
    const counts = await this.#send(call, wishes, truth)
    const lacks = counts.refused ? await this.#lackedOf(call, wishes) : new Set<Wish>()
    this.#haveAll(wishes.filter((wish) => !lacks.has(wish)))
    for (const wish of lacks) this.#pending.add(wish)
    this.#dropDone()
    return counts
  }

  /** The target has exactly these. */
  #haveAll(wishes: readonly Wish[]): void {
    const { owner } = this.#options
    const lines = wishes.map((wish) => ({ ...wish, owner }))
    for (const line of this.#confirmed.diff(owner, undefined, lines, now()).changes) {
      this.#confirmed.put(line)
    }
    this.#commit()
  }

  /** Without what the target has refused for good. */
  #possible(wishes: Wish[]): Wish[] {
    return wishes.filter((wish) => !this.#isRejected(wish))
  }

  /** What a target that has refused some of a sync, and does not say which, does not have. */
  async #lackedOf(call: Call, wishes: Wish[]): Promise<Set<Wish>> {
    const leases = await this.target.list({ ...call, jail: undefined })
    const has = new Set(leases.map(({ address, jail }) => `${address.text} ${jail}`))
    return new Set(wishes.filter((wish) => !has.has(textOf(wish))))
  }

  /** @param word see `Rejections.acknowledge` */
  acknowledge(word: string): Rejection[] {
    const done = this.#status.rejected.acknowledge(word)
    if (done.length > 0) this.#status.keep(true)
    return done
  }

  async #send(call: Call, wishes: Wish[], truth?: Fail2BanBans): Promise<Counts> {
    const leases = wishes.map((wish) => leaseOf(wish, wish.expires, this.#options.owner))
    if (await this.target.inSync?.(call, leases)) {
      return { added: 0, extended: 0, removed: 0, unchanged: leases.length }
    }
    return await this.target.sync(call, await withKept(this.target, call, leases, truth))
  }

  #has({ address, jail }: Key): number | undefined {
    return this.#confirmed.held(address).find((row) => row.jail === jail)?.expires
  }

  /** Forgets what the target has already. */
  #dropDone(): void {
    this.#pending.drop((pending) => this.#changeFor(pending) === undefined)
  }

  /** What cannot be written now is written with the next: at worst it is delivered twice. */
  #commit(): void {
    try {
      this.#confirmed.commit()
      this.#confirmed.settle()
      this.#confirmed.tidy(now())
    } catch (error) {
      this.#status.warn('cannot keep what was confirmed', error)
    }
  }

  /** Opens the connection before the first ban needs it, and fills a target that lost everything. */
  async #keep(): Promise<boolean> {
    if (!this.target.open || this.#stopping.signal.aborted) return true
    return await this.#inTurn(async () => {
      this.#refilled = false
      try {
        await this.#open()
        this.#status.clock(this.target.complaint?.())
      } catch (error) {
        const failure = error instanceof Failure ? await this.#mend(error) : error
        if (failure) this.#status.failed(failure)
        if (failure) return false
      }
      this.#status.succeeded()
      return true
    })
  }

  /** Waits until the next try is due, or the target that was away answers again. */
  async #pause(): Promise<void> {
    const longest = Math.min(PAUSE.first * 2 ** (this.#status.failures - 1), PAUSE.longest)
    const end = Date.now() + longest * (0.5 + Math.random() / 2)
    let away = false
    while (Date.now() < end && !this.#stopping.signal.aborted) {
      const isThere = (await this.target.probe?.()) ?? true
      if (away && isThere) return
      away = !isThere
      const wait = Math.max(0, Math.min(end - Date.now(), PAUSE.look))
      await sleep(wait, undefined, { signal: this.#stopping.signal }).catch(() => {})
    }
  }

  /** Waits for news, or for the next time to try what the target refused. */
  async #nextWake(): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      this.#wake = resolve
      timer = setTimeout(resolve, this.#pending.again ?? KEEP)
    })
    clearTimeout(timer)
    this.#wake = () => {}
    if (this.#pending.waiting === 0) this.#pending.retry()
  }

  #call(seconds: number): Call {
    return { ...this.#options.call(seconds), namings: this.#options.book.namings }
  }
}

/**
 * What a target must be told so that it has a lease until `wanted`.
 *
 * @param has its end as the target has confirmed it
 */
export function changesFor(
  key: Key,
  wanted: number,
  has: number | undefined,
  owner: string,
): Change[] {
  const at = now()
  const address = parseAddress(key.address)
  const unban: Change = { verb: 'unban', address, jail: key.jail }
  if (!alive(wanted, at)) {
    // What ended by itself has ended there as well.
    const over = wanted !== RELEASED || (has !== undefined && !alive(has, at))
    return over ? [] : [unban]
  }
  if (has === wanted) return []
  const ban: Change = { verb: 'ban', lease: leaseOf(key, wanted, owner) }
  // A ban never cuts: what is to end sooner is given back first.
  const sooner = has !== undefined && alive(has, at) && later(has, wanted) !== wanted
  return sooner ? [unban, ban] : [ban]
}

function leaseOf({ address, jail }: Key, expires: number, owner: string): Lease {
  return { address: parseAddress(address), jail, expires, owner }
}

/** True for what is wrong with the target, and not with a change alone. */
function isOfTarget(outcome: Outcome): outcome is Failure {
  return outcome !== undefined && !(outcome instanceof Refusal)
}

/**
 * What a target is to have: these leases, and of those that it has what stays without being asked
 * for: what was banned by hand and without a jail, and the leases of jails that are not understood.
 */
export async function withKept(
  target: Target,
  call: Call,
  leases: Lease[],
  truth: Fail2BanBans | undefined,
): Promise<Lease[]> {
  const quiet = { ...call, jail: NO_JAIL, dryRun: false }
  const manual = target.manual
    ? await target.manual(quiet)
    : (await target.list(quiet)).filter(({ jail }) => jail === NO_JAIL)
  const isOdd = truth !== undefined && (truth.keepsOthers || truth.kept.size > 0)
  const others = isOdd ? await target.list({ ...quiet, jail: undefined }) : []
  const known = new Set(leases.map(keyOf))
  return [
    ...manual.filter((lease) => !known.has(keyOf(lease))),
    ...others.filter((lease) => {
      return (
        truth && lease.jail !== NO_JAIL && isKept(truth, lease.jail) && !known.has(keyOf(lease))
      )
    }),
    ...leases,
  ]
}

function keyOf({ address, jail }: Lease): string {
  return `${address.text} ${jail}`
}
