import { closeSync, existsSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { readFinished, replaceDurably } from '../durable.ts'
import { ioFailure } from '../failure.ts'

/** So many lines more than needed are worth a rewrite. */
const SLACK = 10_000

/**
 * The messages that were seen to their end, on disk, for as long as they could come again: a line
 * `<jti> <until>` each, `until` in epoch seconds. A kill of this process loses nothing; a power cut
 * may lose the last seconds, and what is then done again is done idempotently.
 */
export class SeenMessages {
  readonly #path: string
  readonly #until = new Map<string, number>()
  #lines = 0
  #fd: number | undefined
  /** A full disk took half a line. */
  #torn = false

  /** @param at epoch seconds @throws Failure 75 if the file cannot be read */
  constructor(path: string, at: number) {
    this.#path = path
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    if (!existsSync(path)) return
    for (const line of readFinished(path).toString('latin1').split('\n')) {
      const [jti, until] = line.split(' ')
      if (jti && Number(until) >= at) this.#until.set(jti, Number(until))
    }
    this.#rewrite()
  }

  has(jti: string): boolean {
    return this.#until.has(jti)
  }

  /** Remembers a message until it is stale anyway. @throws Failure 75 if it cannot be written */
  add(jti: string, until: number, at: number): void {
    if (this.#lines > this.#until.size + SLACK) this.#forget(at)
    const end = Math.ceil(until) + 1
    this.#append(`${this.#torn ? '\n' : ''}${jti} ${end}\n`)
    this.#lines++
    this.#until.set(jti, end)
    // The oldest come first, more or less: enough to keep memory in proportion.
    for (const [old, over] of this.#until) {
      if (over >= at) break
      this.#until.delete(old)
    }
  }

  #append(line: string): void {
    const bytes = Buffer.from(line)
    let done = 0
    try {
      this.#fd ??= openSync(this.#path, 'a', 0o600)
      while (done < bytes.length) done += writeSync(this.#fd, bytes, done)
      this.#torn = false
    } catch (error) {
      if (done > 0) this.#torn = true
      throw ioFailure(`write "${this.#path}"`, error)
    }
  }

  #forget(at: number): void {
    for (const [jti, until] of this.#until) if (until < at) this.#until.delete(jti)
    this.#rewrite()
  }

  #rewrite(): void {
    const lines = Array.from(this.#until, ([jti, until]) => `${jti} ${until}\n`)
    replaceDurably(this.#path, lines.join(''))
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
    this.#lines = lines.length
  }
}
