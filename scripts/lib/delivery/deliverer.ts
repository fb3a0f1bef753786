import { mkdirSync, watch } from 'node:fs'
import { join } from 'node:path'
import type { Address } from '../address.ts'
import { codeOf, EXIT, Failure, ioFailure, messageOf } from '../failure.ts'
import type { Lease } from '../lease.ts'
import { neverBan } from '../never.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds, type Kind } from '../siblings.ts'
import type { Call, Synced } from '../verbs.ts'
import { Book } from './book.ts'
import { Courier } from './courier.ts'
import type { Log } from './log.ts'
import { type Naming, parseOperation } from './operation.ts'
import { Queue } from './queue.ts'
import {
  deliveryDirectory,
  queueDirectory,
  readState,
  type SiblingState,
  type State,
  writeState,
} from './state.ts'

/** Milliseconds between two looks at the queues, should a notification have been lost. */
const LOOK = 1_000

/** What Fail2Ban has banned for one sibling. */
export interface Truth {
  leases: Lease[]
  namings: Map<string, Naming>
}

/** What a sync did to one target. */
export interface Outcome {
  sibling: string
  target: string
  counts?: Synced
  /** What was shown while it was done. */
  lines: string[]
  failure?: { code: number; message: string }
}

/** A sibling with its queue, its book and its targets. */
interface Line {
  kind: Kind
  book: Book
  queue: Queue
  couriers: Courier[]
  /** Lines that can never work, wherever they go. */
  state: State
}

/** Everything that is delivered by this server. Only one process has it: the one with the lock. */
export class Deliverer {
  readonly #loaded: Loaded
  readonly #directory: string
  readonly #log: Log
  readonly #lines: Line[] = []
  #never: Address[] = []
  #stop: () => void = () => {}

  private constructor(loaded: Loaded, log: Log) {
    this.#loaded = loaded
    this.#directory = deliveryDirectory(loaded.config.state_dir)
    this.#log = log
  }

  /**
   * Opens the books of all configured siblings.
   *
   * @param call makes what every verb is told
   */
  static async open(loaded: Loaded, call: (seconds: number) => Call, log: Log): Promise<Deliverer> {
    const deliverer = new Deliverer(loaded, log)
    const queues = queueDirectory(loaded.config.state_dir)
    makeDirectory(queues)
    for (const kind of configuredKinds(loaded.config)) {
      const { owner } = loaded.config
      const directory = deliverer.#directory
      const book = new Book(directory, kind.name, owner)
      const queue = new Queue(join(queues, kind.name), book.position)
      const targets = await kind.targets(loaded)
      const couriers = targets.map(
        (target) => new Courier({ sibling: kind.name, target, book, directory, owner, call, log }),
      )
      const state = readState(directory, kind.name)
      deliverer.#lines.push({ kind, book, queue, couriers, state })
    }
    return deliverer
  }

  /** Reads the queues and hands on what is in them. Sending need not wait for the disk. */
  intake(): void {
    this.#never = neverBan(this.#loaded.config.never_ban)
    for (const line of this.#lines) {
      if (this.#read(line) > 0) setImmediate(() => this.#keep(line))
      else this.#keep(line)
    }
  }

  /** Delivers what there is and ends. @throws Failure if something could not be delivered */
  async drain(): Promise<void> {
    for (;;) {
      this.intake()
      const couriers = this.#couriers().filter((courier) => courier.queued > 0)
      if (couriers.length === 0) break
      const worked = await Promise.all(couriers.map((courier) => courier.deliver()))
      if (worked.includes(false)) break
    }
    const failing = this.#couriers().filter((courier) => courier.queued > 0)
    const parts = failing.map(({ target, state, queued }) => {
      return `to "${target.name}": ${state.lastError?.message ?? 'refused'} (${queued} wait)`
    })
    const codes = failing.map(({ state }) => state.lastError?.code ?? EXIT.refused)
    if (parts.length > 0) {
      throw new Failure(Math.max(...codes) as Failure['code'], `Cannot deliver ${parts.join('; ')}`)
    }
  }

  /** Delivers as lines arrive, until `stop`. */
  async follow(): Promise<void> {
    const queues = queueDirectory(this.#loaded.config.state_dir)
    const stopped = new Promise<void>((resolve) => {
      this.#stop = resolve
    })
    const look = (): void => {
      try {
        this.intake()
      } catch (error) {
        this.#log.warn('cannot read the queue', { reason: messageOf(error) })
      }
    }
    const watcher = watch(queues, look)
    const timer = setInterval(look, LOOK)
    const following = Promise.all(this.#couriers().map((courier) => courier.follow()))
    look()
    await Promise.race([stopped, following])
    clearInterval(timer)
    watcher.close()
    for (const courier of this.#couriers()) courier.stop()
    await following
  }

  stop(): void {
    this.#stop()
  }

  /** Closes connections and files after `drain` or `sync`; `follow` has closed its connections. */
  async close(): Promise<void> {
    for (const { queue, couriers } of this.#lines) {
      queue.close()
      for (const { target } of couriers) await target.close?.()
    }
  }

  /** Says that Fail2Ban is going to be asked now: what the queues say from here on is newer. */
  mark(): Record<string, number> {
    this.intake()
    return Object.fromEntries(this.#lines.map(({ kind, book }) => [kind.name, book.mark()]))
  }

  /**
   * Makes targets equal to what Fail2Ban has banned.
   *
   * @param truth by sibling, as it was asked for after `mark`
   * @param names the targets that are meant, as they are called in messages; all if there is none
   * @throws Failure 75 if so much has happened since `mark` that Fail2Ban must be asked again
   */
  async sync(
    truth: Map<string, Truth>,
    mark: Record<string, number>,
    { names, dryRun }: { names: string[]; dryRun: boolean },
  ): Promise<Outcome[]> {
    this.intake()
    const wishes = this.#lines.map(({ kind, book }) => {
      const merged = book.merge(truth.get(kind.name)?.leases ?? [], mark[kind.name] ?? 0)
      if (merged) return merged
      throw new Failure(EXIT.temporary, 'Cannot sync: too much has changed meanwhile, try again')
    })
    const work = this.#lines.map((line, i) => {
      const meant = line.couriers.filter(({ target }) =>
        isMeant(names, line.kind.name, target.name),
      )
      if (dryRun)
        return meant.map((one) =>
          outcomeOf(line, one, (show) => one.compare(wishes[i] ?? [], show)),
        )
      const namings = truth.get(line.kind.name)?.namings ?? []
      for (const [jail, naming] of namings) line.book.name(jail, naming)
      const changed = line.book.become(wishes[i] ?? [])
      this.#keep(line)
      const outcomes = meant.map((one) => outcomeOf(line, one, (show) => one.sync(show)))
      // For targets that are not meant, or cannot be reached now. Those that are have their turn.
      for (const key of changed) for (const courier of line.couriers) courier.notice(key)
      return outcomes
    })
    return await Promise.all(work.flat())
  }

  /** What could be synced, as `f2b-sync` takes its names. */
  names(): { sibling: string; target: string }[] {
    return this.#lines.flatMap(({ kind, couriers }) =>
      couriers.map(({ target }) => ({ sibling: kind.name, target: target.name })),
    )
  }

  /** How the delivery stands. */
  status(): SiblingState[] {
    return this.#lines.map(({ kind, couriers, state }) => ({
      sibling: kind.name,
      aside: state.aside,
      targets: couriers.map((one) => ({ target: one.target.name, state: one.refreshState() })),
    }))
  }

  #couriers(): Courier[] {
    return this.#lines.flatMap(({ couriers }) => couriers)
  }

  /** @returns how many lines were read */
  #read({ kind, book, queue, couriers, state }: Line): number {
    const lines = queue.read()
    for (const text of lines) {
      try {
        const operation = parseOperation(text, this.#never, this.#loaded.config.min_prefix)
        if (!operation) continue
        book.take(operation)
        const key = { address: operation.address.text, jail: operation.jail }
        for (const courier of couriers) courier.notice(key)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        const at = Math.floor(Date.now() / 1000)
        state.aside.push({ at, code: error.code, reason: error.message, line: text })
        this.#log.warn('set aside', { sibling: kind.name, line: text, reason: error.message })
        writeState(this.#directory, kind.name, state)
      }
    }
    return lines.length
  }

  /** Puts on the disk what was read and how far; what cannot be kept now is kept with the next. */
  #keep({ book, queue }: Line): void {
    try {
      book.commit(queue.position())
      queue.tidy()
    } catch (error) {
      this.#log.warn('cannot keep the book', { reason: messageOf(error) })
    }
  }
}

async function outcomeOf(
  { kind }: Line,
  { target }: Courier,
  work: (show: (line: string) => void) => Promise<Synced>,
): Promise<Outcome> {
  const lines: string[] = []
  const outcome = { sibling: kind.name, target: target.name, lines }
  try {
    return { ...outcome, counts: await work((line) => lines.push(line)) }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return { ...outcome, failure: { code: codeOf(error), message: error.message } }
  }
}

/** `edge1`, `firewall` or `firewall/edge1`. */
export function isMeant(names: string[], sibling: string, target: string): boolean {
  const own = [sibling, target, `${sibling}/${target}`]
  return names.length === 0 || names.some((name) => own.includes(name))
}

/** The action lines' shells, which are root's, must be able to write here, and we to rename. */
function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw ioFailure(`make "${path}"`, error)
  }
}
