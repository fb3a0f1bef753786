import { readFileSync, writeFileSync } from 'node:fs'
import type { Claims } from './message.ts'

/** Which message came last, and in which run of the server. */
interface Last {
  run: string
  seq: number
  /** Some before the one with this number are missing, and the server has not made up for it. */
  missed?: number | undefined
  /** Seconds that this machine's clock was ahead of the server's. */
  ahead?: number | undefined
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

  /**
   * Goes on to a message. All between it and the last one are missing; what the server sent last
   * before it was killed may be. Of another server that took over nothing is asked without need: it
   * may know less than this node.
   */
  advance({ run = '', seq = 0 }: Pick<Claims, 'run' | 'seq'>): void {
    const last = this.#last
    const isSame = run === last.run
    if (isSame && seq <= last.seq) return
    this.#last = { ...last, run, seq }
    const another = last.run !== '' && serverOf(run) !== serverOf(last.run)
    const next = isSame ? last.seq + 1 : 1
    if (seq !== next || !(isSame || another)) this.#last.missed = seq
  }

  /** The server must tell everything again: a message could not be obeyed. */
  miss({ seq = 0 }: Pick<Claims, 'seq'>): void {
    this.#last.missed = seq + 1
  }

  /** The server has told everything, from this number on. */
  told(since: number): void {
    if (this.#last.missed !== undefined && this.#last.missed <= since) this.#last.missed = undefined
  }

  /** True until the server has told everything, however often that was asked for in vain. */
  get hasMissed(): boolean {
    return this.#last.missed !== undefined
  }

  /** Seconds that this machine's clock was ahead of the server's, if that is known. */
  get ahead(): number | undefined {
    return this.#last.ahead
  }

  /** Lost, it costs a snapshot that changes nothing. */
  save(ahead: number | undefined): void {
    this.#last.ahead = ahead
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

/** See `Publisher`: which server a run is of. */
function serverOf(run: string): string {
  return run.slice(0, 8)
}

function read(path: string): Last {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Last
  } catch {
    return { run: '', seq: 0 }
  }
}
