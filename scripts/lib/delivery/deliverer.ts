import { mkdirSync, watch } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import type { Address } from '../address.ts'
import { forTargets } from '../delivery-account.ts'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import { neverBan } from '../never.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds, type Kind } from '../siblings.ts'
import type { Call, Target } from '../target.ts'
import { type ConfigState, ConfigWatch } from './config-watch.ts'
import type { Fail2BanBans } from './fail2ban-bans.ts'
import { type Acknowledged, Line, type Synced } from './line.ts'
import type { Log } from './log.ts'
import { queueDirectory, type SiblingState } from './state.ts'
import type { TargetWorker } from './target-worker.ts'

export interface DelivererOptions {
  /** Makes what every verb is told. */
  call(loaded: Loaded, seconds: number): Call
  log: Log
  /** Reads the configuration again. @throws Failure 78 */
  load(): Promise<Loaded>
}

export interface SyncOptions {
  names: string[]
  dryRun: boolean
  sure: boolean
}

/** How the delivery stands, and with what configuration. */
export interface DelivererState {
  config: ConfigState
  siblings: SiblingState[]
}

/** Milliseconds between two looks at the queues and the configuration, should a notification have been lost. */
const LOOK = 1_000

/** Everything that is delivered by this server. Only one process has it: the one with the lock. */
export class Deliverer {
  readonly #options: DelivererOptions
  readonly #watch: ConfigWatch
  #loaded: Loaded
  #lines: Line[]
  #following: Promise<unknown> | undefined
  #stop: () => void = () => {}
  #fail: (error: unknown) => void = () => {}
  /** Syncs that are under way. */
  readonly #syncs = new Set<Promise<unknown>>()
  #refreshing: Promise<void> | undefined

  private constructor(loaded: Loaded, lines: Line[], options: DelivererOptions) {
    this.#options = options
    this.#watch = new ConfigWatch(loaded, options.load)
    this.#loaded = loaded
    this.#lines = lines
  }

  /** Opens the books of all configured siblings. */
  static async open(loaded: Loaded, options: DelivererOptions): Promise<Deliverer> {
    makeDirectory(queueDirectory(loaded.config.state_dir))
    return new Deliverer(loaded, openLines(loaded, await targetsOf(loaded), options), options)
  }

  /**
   * Takes up the configuration if it has changed: what is under way is finished first, and what comes
   * meanwhile waits in the queues. One that cannot be used changes nothing, and `status` says so.
   */
  async refresh(): Promise<void> {
    if (!this.#refreshing && !this.#watch.isChanged) return
    this.#refreshing ??= this.#takeUp().finally(() => {
      this.#refreshing = undefined
    })
    await this.#refreshing
  }

  async #takeUp(): Promise<void> {
    const { log } = this.#options
    const read = await this.#watch.read(async (loaded) => ({
      loaded,
      targets: await targetsOf(loaded),
    }))
    if (!read) {
      log.warn('keeps the old configuration', { reason: this.#watch.state.error })
      return
    }
    if (isDeepStrictEqual(read.loaded.config, this.#loaded.config)) return this.#watch.taken()
    for (const worker of this.#workers()) worker.stop()
    await this.#following
    await Promise.allSettled(this.#syncs)
    // In one go: a client that asks has either the old lines or the new ones.
    const closed = this.#lines.map((line) => line.close())
    this.#loaded = read.loaded
    this.#lines = openLines(read.loaded, read.targets, this.#options)
    this.#watch.taken()
    if (this.#following) this.#start()
    log.info('took up the configuration', { targets: this.names().length })
    await Promise.all(closed)
  }

  /** Reads the queues and hands on what is in them. @returns why some could not be read */
  intake(): Failure[] {
    const { never_ban, min_prefix } = this.#loaded.config
    // Asks the system for its addresses and routes: for lines that have come, not every second.
    let known: Address[] | undefined
    const never = (): Address[] => {
      known ??= neverBan(never_ban)
      return known
    }
    return this.#lines.flatMap((line) => line.read(never, min_prefix) ?? [])
  }

  /** Delivers what there is and ends. @throws Failure if something could not be delivered */
  async drain(): Promise<void> {
    let unread: Failure[]
    for (;;) {
      unread = this.intake()
      const workers = this.#workers().filter((worker) => worker.queued > 0)
      if (workers.length === 0) break
      const worked = await Promise.all(workers.map((worker) => worker.deliver()))
      if (worked.includes(false) || workers.every(({ queued }) => queued > 0)) break
    }
    const failing = this.#workers().filter((worker) => worker.queued > 0)
    const [first] = unread
    if (failing.length === 0) {
      if (first) throw first
      return
    }
    const states = failing.map((worker) => ({ name: worker.target.name, ...worker.state() }))
    const parts = states.map(({ name, failingSince, lastError, queued }) => {
      const why = failingSince && lastError ? lastError.message : 'refused'
      return `to "${name}": ${why} (${queued} wait)`
    })
    const codes = states.map(({ lastError }) => lastError?.code ?? EXIT.refused)
    throw new Failure(Math.max(...codes) as Failure['code'], `Cannot deliver ${parts.join('; ')}`)
  }

  /** Delivers as lines arrive, until `stop`. */
  async follow(): Promise<void> {
    const stopped = new Promise<void>((resolve, reject) => {
      this.#stop = resolve
      this.#fail = reject
    })
    const look = (): void => void this.intake()
    const watcher = watch(queueDirectory(this.#loaded.config.state_dir), look)
    const timer = setInterval(() => {
      look()
      this.refresh().catch(this.#fail)
    }, LOOK)
    this.#start()
    look()
    try {
      await stopped
    } finally {
      clearInterval(timer)
      watcher.close()
    }
    await this.#refreshing
    for (const worker of this.#workers()) worker.stop()
    await this.#following
  }

  #start(): void {
    this.#following = Promise.all(this.#workers().map((worker) => worker.follow()))
    this.#following.catch(this.#fail)
  }

  stop(): void {
    this.#stop()
  }

  /** Closes connections and files after `drain` or `sync`; `follow` has closed its connections. */
  async close(): Promise<void> {
    for (const line of this.#lines) await line.close()
  }

  /** Says that Fail2Ban is going to be asked now: what the queues say from here on is newer. */
  mark(): Record<string, number> {
    this.intake()
    return Object.fromEntries(this.#lines.map((line) => [line.kind.name, line.mark()]))
  }

  /**
   * Makes targets equal to what Fail2Ban has banned.
   *
   * @param truth by sibling, as it was asked for after `mark`
   * @param names the targets that are meant, as `isMeant` takes them; all if there is none
   * @param sure whether Fail2Ban was told to release what it does not name any more
   * @throws Failure 75 if so much has happened since `mark` that Fail2Ban must be asked again
   */
  async sync(
    truth: Map<string, Fail2BanBans>,
    mark: Record<string, number>,
    options: SyncOptions,
  ): Promise<Synced[]> {
    await this.#refreshing
    const work = this.#sync(truth, mark, options)
    this.#syncs.add(work)
    return await work.finally(() => this.#syncs.delete(work))
  }

  async #sync(
    truth: Map<string, Fail2BanBans>,
    mark: Record<string, number>,
    { names, dryRun, sure }: SyncOptions,
  ): Promise<Synced[]> {
    this.intake()
    const known = this.#lines.flatMap((line) => {
      const own = truth.get(line.kind.name)
      return own && (own.used || !line.kind.shared) ? [{ line, own }] : []
    })
    const merged = known.map(({ line, own }) => {
      return { line, own, wishes: line.merge(own, mark[line.kind.name] ?? 0) }
    })
    const work = merged.flatMap(({ line, own, wishes }) => {
      const meant = line.workers.filter(({ target }) => {
        return isMeant(names, line.kind.name, target.name)
      })
      return dryRun ? line.compare(wishes, own, meant) : line.sync(wishes, own, meant, sure)
    })
    return await Promise.all(work)
  }

  /** What could be synced, as `f2b-sync` takes its names. */
  names(): { sibling: string; target: string }[] {
    return this.#lines.flatMap(({ kind, workers }) =>
      workers.map(({ target }) => ({ sibling: kind.name, target: target.name })),
    )
  }

  /** Says that an operator has seen what was rejected. @param word an id, an address, or `all` */
  acknowledge(word: string): Acknowledged[] {
    return this.#lines.flatMap((line) => line.acknowledge(word))
  }

  /** How far the queues were read, as far as that is kept. */
  positions(): Record<string, string> {
    return Object.fromEntries(this.#lines.map((line) => [line.kind.name, line.position()]))
  }

  /** The configuration that is in use. */
  get loaded(): Loaded {
    return this.#loaded
  }

  /** How the delivery stands. */
  status(): DelivererState {
    return { config: this.#watch.state, siblings: this.#lines.map((line) => line.status()) }
  }

  #workers(): TargetWorker[] {
    return this.#lines.flatMap(({ workers }) => workers)
  }
}

function targetsOf(loaded: Loaded): Promise<[Kind, Target[]][]> {
  const kinds = configuredKinds(loaded.config)
  return Promise.all(
    kinds.map(
      async (kind): Promise<[Kind, Target[]]> => [kind, await kind.targets(forTargets(loaded))],
    ),
  )
}

function openLines(
  loaded: Loaded,
  targets: [Kind, Target[]][],
  { call, log }: DelivererOptions,
): Line[] {
  const callFor = (seconds: number): Call => call(loaded, seconds)
  return targets.map(([kind, own]) => new Line(kind, own, loaded, callFor, log))
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
