import { statSync } from 'node:fs'
import { promisify } from 'node:util'
import type { Worker } from 'node:worker_threads'
import { gzip } from 'node:zlib'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import { now } from '../lease.ts'
import type { Part, Rules, Snapshot, search } from './render.ts'

const compress = promisify(gzip)

// Up to this size a request waits for the new content (some 10 ms); above it, it gets the content of
// a moment ago while the new one is made, so that latency does not depend on how often bans come.
const SMALL_LIST = 256 * 1024
// But not content that has been out of date for longer, whatever keeps the worker busy.
const MAX_BEHIND_MS = 5_000

/** One route's content; the same object as long as it is the same content. */
export interface Served {
  bytes: Uint8Array
  etag: string
  gzipped: boolean
  /** Epoch seconds. */
  modified: number
}

export type Question = { search: string; limit: number } | { render: true }

/** The list as it was when it was last looked at. */
interface Look {
  /** When, as performance.now(). */
  at: number
  stamp: string
  size: number
}

/** The state of the list that we have. */
interface Known {
  stamp: string
  value: Snapshot
  /** When this was last what the list says; as performance.now(). */
  current: number
}

type Answer = { id: number; value?: unknown; failure?: string }

/** What devices fetch, always as the list is now; made by a worker, so that nobody waits for it. */
export class Feed {
  readonly #rules: Rules
  readonly #start: () => Worker
  #worker: Worker | undefined
  #waiting = new Map<number, (answer: Answer) => void>()
  #asked = 0
  #snapshot: Known | undefined
  #making: Promise<Snapshot> | undefined
  #served = new WeakMap<Snapshot, Map<string, Served | Promise<Served>>>()

  /** Called with every new snapshot. */
  onSnapshot: (snapshot: Snapshot) => void = () => {}

  constructor(rules: Rules, start: () => Worker) {
    this.#rules = rules
    this.#start = start
  }

  /**
   * One route's content as it is now; a promise only where it has to be made first.
   *
   * @throws Failure 75 if the list is missing or unreadable
   */
  serve(part: Part, gzipped: boolean): Served | Promise<Served> {
    const snapshot = this.#newest(this.#stamp())
    if (snapshot) return this.#servedOf(snapshot, part, gzipped)
    return this.snapshot().then((made) => this.#servedOf(made, part, gzipped))
  }

  #servedOf(snapshot: Snapshot, part: Part, gzipped: boolean): Served | Promise<Served> {
    const known = this.#served.get(snapshot) ?? new Map<string, Served | Promise<Served>>()
    this.#served.set(snapshot, known)
    const key = gzipped ? `${part} gzip` : part
    const ready = known.get(key)
    if (ready) return ready
    const served = makeServed(snapshot, part, gzipped)
    known.set(key, served)
    if (served instanceof Promise) {
      served.then(
        (made) => known.set(key, made),
        () => known.delete(key), // whoever waits for it is told; the next one tries again
      )
    }
    return served
  }

  /** The state that we have, if the list has not changed since and no lease in it has ended. */
  #newest({ at, stamp }: Look): Snapshot | undefined {
    const known = this.#snapshot
    if (known?.stamp !== stamp || now() >= known.value.until) return undefined
    known.current = at
    return known.value
  }

  /**
   * The newest state of the list.
   *
   * @param patience how often to wait once more because the list changed meanwhile
   * @throws Failure 75
   */
  async snapshot(patience = 3): Promise<Snapshot> {
    const look = this.#stamp()
    const newest = this.#newest(look)
    if (newest) return newest
    const known = this.#snapshot
    // What somebody else is waiting for may be older than the change that we have just seen.
    const joined = this.#making !== undefined
    this.#making ??= this.#make(look).finally(() => {
      this.#making = undefined
    })
    if (known && look.size > SMALL_LIST && look.at - known.current < MAX_BEHIND_MS) {
      this.#making.catch(() => {}) // the next request meets the same trouble, and waits for it
      return known.value
    }
    const made = await this.#making
    return joined && patience > 0 ? this.snapshot(patience - 1) : made
  }

  /** Addresses for the status page. */
  search(words: string, limit: number): Promise<ReturnType<typeof search>> {
    return this.#ask({ search: words, limit }) as Promise<ReturnType<typeof search>>
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
  }

  async #make({ at, stamp }: Look): Promise<Snapshot> {
    const value = (await this.#ask({ render: true })) as Snapshot
    this.#snapshot = { stamp, value, current: at }
    this.onSnapshot(value)
    return value
  }

  #stamp(): Look {
    try {
      const { ino, size, mtimeMs } = statSync(this.#rules.path)
      return { at: performance.now(), stamp: `${ino} ${size} ${mtimeMs}`, size }
    } catch (error) {
      throw ioFailure(`read "${this.#rules.path}"`, error)
    }
  }

  async #ask(question: Question): Promise<unknown> {
    this.#worker ??= this.#launch()
    const id = ++this.#asked
    const answer = await new Promise<Answer>((resolve) => {
      this.#waiting.set(id, resolve)
      this.#worker?.postMessage({ id, question, rules: this.#rules })
    })
    if (answer.failure !== undefined) throw new Failure(EXIT.temporary, answer.failure)
    return answer.value
  }

  #launch(): Worker {
    const worker = this.#start()
    worker.unref()
    worker.on('message', (answer: Answer) => {
      this.#waiting.get(answer.id)?.(answer)
      this.#waiting.delete(answer.id)
    })
    worker.on('error', (error) => this.#lost(worker, error.message))
    worker.on('exit', () => this.#lost(worker, 'the worker ended'))
    return worker
  }

  /** The next question starts a new worker. */
  #lost(worker: Worker, failure: string): void {
    if (this.#worker !== worker) return
    this.#worker = undefined
    for (const [id, resolve] of this.#waiting) resolve({ id, failure })
    this.#waiting.clear()
  }
}

function makeServed(
  { parts, modified }: Snapshot,
  part: Part,
  gzipped: boolean,
): Served | Promise<Served> {
  const { bytes, hash } = parts[part]
  if (!gzipped) return { bytes, etag: `"${hash}"`, gzipped, modified }
  const etag = `"${hash}-gzip"`
  return compress(bytes).then((zipped) => ({ bytes: zipped, etag, gzipped, modified }))
}
