import { existsSync } from 'node:fs'
import { appendDurably, readFinished, replaceDurably } from '../durable.ts'
import type { Call } from './call.ts'

/** A call that a node could not carry out yet. */
export interface Entry {
  jti: string
  iss: string
  iat: number
  call: Call
}

/** So many lines more than entries are worth a rewrite. */
const SLACK = 1000

/**
 * The calls that failed and are to be tried again, on disk: once here, a message may be acknowledged,
 * and a failing address does not hold up the others behind it. At most one for each (file, name,
 * address): a later call about the same address supersedes it.
 */
export class Parked {
  readonly #path: string
  readonly #entries = new Map<string, Entry>()
  #lines = 0

  /** @throws Failure 75 if the file cannot be read */
  constructor(path: string) {
    this.#path = path
    if (!existsSync(path)) return
    for (const line of readFinished(path).toString('utf8').split('\n')) {
      if (line === '') continue
      const { key, entry } = JSON.parse(line) as { key: string; entry?: Entry }
      if (entry) this.#entries.set(key, entry)
      else this.#entries.delete(key)
    }
    this.#rewrite()
  }

  get(key: string): Entry | undefined {
    return this.#entries.get(key)
  }

  keys(): string[] {
    return [...this.#entries.keys()]
  }

  /** @throws Failure 75 if it cannot be written */
  put(key: string, entry: Entry): void {
    this.#append({ key, entry })
    this.#entries.set(key, entry)
  }

  /** @throws Failure 75 if it cannot be written */
  drop(keys: readonly string[]): void {
    for (const key of keys) {
      if (!this.#entries.has(key)) continue
      this.#append({ key })
      this.#entries.delete(key)
    }
  }

  #append(line: { key: string; entry?: Entry }): void {
    if (this.#lines > this.#entries.size + SLACK) this.#rewrite()
    appendDurably(this.#path, Buffer.from(`${JSON.stringify(line)}\n`))
    this.#lines++
  }

  #rewrite(): void {
    const lines = Array.from(this.#entries, ([key, entry]) => JSON.stringify({ key, entry }))
    replaceDurably(this.#path, lines.map((line) => `${line}\n`).join(''))
    this.#lines = lines.length
  }
}
