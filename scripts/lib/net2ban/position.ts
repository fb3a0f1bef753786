import { readFileSync, writeFileSync } from 'node:fs'
import type { Claims } from './message.ts'

/** Which message came last, and in which run of the server. */
interface Last {
  run: string
  seq: number
}

/** How far a node has come in what the server sends it, so that it notices what is missing. */
export class Position {
  readonly #path: string
  #last: Last
  #saved = ''

  constructor(path: string) {
    this.#path = path
    this.#last = read(path)
  }

  /** Goes on to a message. @returns false if others before it are missing */
  advance({ run = '', seq = 0 }: Pick<Claims, 'run' | 'seq'>): boolean {
    const last = this.#last
    const gap = run === last.run ? seq > last.seq + 1 : seq !== 1 || last.run === ''
    if (run !== last.run || seq > last.seq) this.#last = { run, seq }
    return !gap
  }

  /** Lost, it costs a snapshot that changes nothing. */
  save(): void {
    const text = JSON.stringify(this.#last)
    if (text === this.#saved) return
    try {
      writeFileSync(this.#path, text, { mode: 0o600 })
      this.#saved = text
    } catch {
      // A full disk: the next time.
    }
  }
}

function read(path: string): Last {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Last
  } catch {
    return { run: '', seq: 0 }
  }
}
