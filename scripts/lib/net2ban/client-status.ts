import { existsSync, readFileSync } from 'node:fs'
import { replaceDurably } from '../durable.ts'

/** What the server knows about a client beyond what is in its queue. */
export interface Status {
  /** Something was lost, or the client asked: it must be told everything again. */
  due: boolean
  /** Messages that died: expired, or came back too often. */
  dead: number
  /** The number of the last message to it. */
  seq: number
  /** In which run that was; known only while no server runs, and if the last one ended in peace. */
  run?: string | undefined
  /** Its clock is more than a minute off. */
  skewed?: boolean
  /** The jail that it sends back when it is told all of it: `<file> for <name>`. */
  failing?: string | undefined
}

/** How the clients stand, on disk: `net2banctl status` reads it. */
export class ClientStatus {
  readonly #path: string
  #all: Record<string, Status>
  /** How often each has become due. */
  readonly #asked = new Map<string, number>()

  /** @throws Error if another program wrote into the file */
  constructor(path: string) {
    this.#path = path
    this.#all = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {}
  }

  /** The clients that are due. */
  clients(): string[] {
    return Object.keys(this.#all).filter((name) => this.#all[name]?.due)
  }

  /** The clients that cannot do what they are told. */
  failing(): string[] {
    return Object.keys(this.#all).filter((name) => this.#all[name]?.failing)
  }

  of(client: string): Status {
    return this.#all[client] ?? { due: false, dead: 0, seq: 0 }
  }

  /** Tells one time of being due from the next. */
  asked(client: string): number {
    return this.#asked.get(client) ?? 0
  }

  /**
   * Where the run before this one ended. It is forgotten first: were this one killed, its numbers
   * would be given twice.
   *
   * @throws Failure 75 if that cannot be written
   */
  resume(client: string): { run: string; seq: number } | undefined {
    const { run, seq } = this.of(client)
    if (run === undefined) return undefined
    this.set(client, { run: undefined })
    return { run, seq }
  }

  /** @throws Failure 75 if it cannot be written */
  set(client: string, change: Partial<Status>): void {
    const old = this.of(client)
    if (change.due) this.#asked.set(client, this.asked(client) + 1)
    const status = { ...old, ...change }
    if (JSON.stringify(old) === JSON.stringify(status)) return
    const all = { ...this.#all, [client]: status }
    replaceDurably(this.#path, `${JSON.stringify(all)}\n`)
    this.#all = all
  }
}
