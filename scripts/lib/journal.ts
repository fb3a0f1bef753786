import { readFileSync } from 'node:fs'
import { appendDurably, replaceDurably } from './durable.ts'

/** Lines beyond those that count before the file is rewritten. */
const ROOM = 200

/**
 * A small map that survives a kill, in a file of JSON lines: `["key",value]`, the last one about a key
 * wins, and null removes it. One process writes it; others may read it at any time.
 *
 * A file that cannot be read is empty, and so is a line: what is kept here can be found anew.
 */
export class Journal<T> {
  readonly #path: string
  readonly #all = new Map<string, T>()
  readonly #changed = new Set<string>()
  /** In the file; infinite if it has to be rewritten, whatever changes. */
  #lines = 0

  /** @param earlier what an earlier version wrote as one JSON value, as entries */
  constructor(path: string, earlier: (value: unknown) => [string, T][]) {
    this.#path = path
    const text = read(path)
    const old = text.startsWith('{') ? parse(text) : undefined
    if (old !== undefined) for (const [key, value] of earlier(old)) this.#all.set(key, value)
    else for (const line of text.split('\n')) this.#take(parse(line))
    const isWhole = old === undefined && (text === '' || text.endsWith('\n'))
    this.#lines = isWhole ? text.split('\n').length - 1 : Infinity
  }

  get size(): number {
    return this.#all.size
  }

  get(key: string): T | undefined {
    return this.#all.get(key)
  }

  entries(): [string, T][] {
    return [...this.#all]
  }

  /** Notes a value; `commit` writes it. */
  set(key: string, value: T): void {
    const known = this.#all.get(key)
    if (known !== undefined && JSON.stringify(known) === JSON.stringify(value)) return
    this.#all.set(key, value)
    this.#changed.add(key)
  }

  /** @returns true if there was one */
  delete(key: string): boolean {
    if (!this.#all.delete(key)) return false
    this.#changed.add(key)
    return true
  }

  /** Forces to the disk what was noted. @throws Failure 75; it is then written with the next */
  commit(): void {
    if (this.#changed.size === 0) return
    const lines = this.#lines + this.#changed.size
    if (lines > 2 * this.#all.size + ROOM) {
      replaceDurably(this.#path, this.#textOf(this.#all.keys()))
      this.#lines = this.#all.size
    } else {
      appendDurably(this.#path, Buffer.from(this.#textOf(this.#changed)))
      this.#lines = lines
    }
    this.#changed.clear()
  }

  #textOf(keys: Iterable<string>): string {
    const line = (key: string) => `${JSON.stringify([key, this.#all.get(key) ?? null])}\n`
    return Array.from(keys, line).join('')
  }

  #take(line: unknown): void {
    if (!Array.isArray(line) || typeof line[0] !== 'string') return
    if (line[1] === null) this.#all.delete(line[0])
    else if (line[1] !== undefined) this.#all.set(line[0], line[1])
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) ?? undefined
  } catch {
    return undefined
  }
}
