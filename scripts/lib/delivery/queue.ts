import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
} from 'node:fs'
import { ioFailure } from '../failure.ts'

/** Bytes from which a queue that has been read is put away. */
const FULL = 65_536

/**
 * Milliseconds for which a queue that was put away is still watched: for an action line that had it
 * open just then. One that is even slower finds it gone and writes its line again.
 */
const GRACE = 5_000

/** So much is read at a time: a flood is worked off in pieces. */
const SLICE = 1_048_576

/** What stands behind every line; one without it was torn by a full disk, and its writer told so. */
const END = '|.'

/** What a queue's file is called, the newest first: it only ever moves on to the next name. */
const STAGES = ['', '.taken', '.gone'] as const
type Stage = (typeof STAGES)[number]

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants

/** How far a file has been read. */
interface Part {
  fd: number
  /** Tells the file from any other, whatever its name is by now. */
  id: string
  offset: number
  /** Undefined if it has none of the names any more. */
  stage: Stage | undefined
}

/**
 * The lines that action lines append: read while others write, without a lock.
 *
 * A queue that has grown is renamed to `<path>.taken` and watched a while longer; then to
 * `<path>.gone`, read to its end once more and deleted. An action line looks, after it has written,
 * whether its file still has one of the first two names, and writes again if not
 * (action.d/perimeter-queue.conf). So no line is ever in a file that is not read to its end.
 *
 * Who reads need not be who puts away: an account reads, and root, whose folder it is, calls `tidy`
 * in a process of its own with the `position` that the account has kept.
 */
export class Queue {
  readonly path: string
  /** The files, in the order in which they were written to. */
  #parts: Part[] = []
  /** How far files of earlier runs were read; undefined once they have been opened. */
  #known: Map<string, number> | undefined
  readonly #position: string

  /** @param position what `position` said when it was last kept */
  constructor(path: string, position = '') {
    this.path = path
    this.#position = position
    this.#known = new Map(position.split(' ').map((word) => splitLast(word)))
  }

  /** What is to be kept together with the lines that were read: a word per file. */
  position(): string {
    if (this.#known) return this.#position
    return this.#parts.map(({ id, offset }) => `${id}:${offset}`).join(' ')
  }

  /**
   * Complete lines that were not read before, in the order in which they were written.
   *
   * @throws Failure 75
   */
  read(): string[] {
    try {
      this.#look()
      // An action line that wrote into an older file did so before it wrote into a newer one: the end of
      // the newest is fixed first, and a newer one is read only when the older ones are at their end.
      const last = this.#parts.at(-1)
      const newest = last ? sizeOf(last) : 0
      const lines: string[] = []
      for (const part of this.#parts) {
        const end = part === last ? newest : sizeOf(part)
        const more = end - part.offset > SLICE
        lines.push(...linesOf(part, end))
        if (more) break
      }
      return lines
    } catch (error) {
      throw ioFailure(`read "${this.path}"`, error)
    }
  }

  /** Puts away what has been read: call it when that is safe on the disk. @throws Failure 75 */
  tidy(now = Date.now()): void {
    try {
      this.#look()
      const named = (stage: Stage) => this.#parts.find((part) => part.stage === stage)
      const [current, taken, gone] = STAGES.map(named)
      if (gone) {
        if (linesOf({ ...gone }, sizeOf(gone)).length === 0) unlinkSync(`${this.path}.gone`)
      } else if (taken) {
        // Its name was its last change, or a line that came late. A clock may be put back.
        const since = Math.abs(now - fstatSync(taken.fd).ctimeMs)
        if (since > GRACE) renameSync(`${this.path}.taken`, `${this.path}.gone`)
      } else if (current && current.offset > FULL) {
        renameSync(this.path, `${this.path}.taken`)
      }
    } catch (error) {
      throw ioFailure(`put away "${this.path}"`, error)
    }
  }

  close(): void {
    for (const { fd } of this.#parts) closeSync(fd)
    this.#parts = []
  }

  /**
   * Finds the files by their names. One that is renamed meanwhile is seen under one name or the other,
   * since the newest name is looked at first. One that has lost all names is read to its end.
   */
  #look(): void {
    const before = this.#parts
    const named: Part[] = []
    try {
      for (const stage of STAGES) {
        const part = this.#partAt(this.path + stage, named)
        if (!part) continue
        part.stage = stage
        if (!named.includes(part)) named.unshift(part)
      }
    } catch (error) {
      for (const part of named) if (!before.includes(part)) closeSync(part.fd)
      throw error
    }
    const unnamed = before.filter((part) => !named.includes(part))
    const over = unnamed.filter((part) => part.stage === undefined || part.offset >= sizeOf(part))
    for (const { fd } of over) closeSync(fd)
    const left = unnamed.filter((part) => !over.includes(part))
    for (const part of left) part.stage = undefined
    this.#parts = [...left, ...named]
    this.#known = undefined
  }

  /** The file with this name, opened if it was not. */
  #partAt(path: string, others: Part[]): Part | undefined {
    const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false })
    if (!stat) return undefined
    const held = (id: string) => [...this.#parts, ...others].find((part) => part.id === id)
    const known = held(idOf(stat))
    if (known) return known
    const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    const opened = fstatSync(fd, { bigint: true })
    const [id, same] = [idOf(opened), held(idOf(opened))]
    if (same || !opened.isFile()) closeSync(fd)
    if (same) return same
    if (!opened.isFile()) throw new Error('it is no file')
    const offset = this.#known?.get(id) ?? 0
    return { fd, id, offset: offset <= opened.size ? offset : 0, stage: undefined }
  }
}

function idOf({ ino, birthtimeNs }: BigIntStats): string {
  return `${ino}.${birthtimeNs}`
}

function sizeOf({ fd }: Part): number {
  return fstatSync(fd).size
}

function splitLast(word: string): [string, number] {
  const at = word.lastIndexOf(':')
  const offset = Number(word.slice(at + 1))
  return [word.slice(0, at), Number.isSafeInteger(offset) && offset >= 0 ? offset : 0]
}

/** Complete lines from where reading ended to `end`, at most a slice of them. */
function linesOf(part: Part, end: number): string[] {
  const bytes = Buffer.alloc(Math.min(Math.max(end - part.offset, 0), SLICE))
  const got = readSync(part.fd, bytes, 0, bytes.length, part.offset)
  const text = bytes.toString('latin1', 0, got)
  const complete = text.lastIndexOf('\n') + 1
  // A slice without any end of line is nothing that an action line wrote.
  part.offset += complete === 0 && got === SLICE ? got : complete
  return text.slice(0, complete).split('\n').filter(Boolean)
}

/** The words of a line, without its end; undefined if it is torn. */
export function wordsOf(line: string): string[] | undefined {
  return line.endsWith(END) ? line.slice(0, -END.length).split('|') : undefined
}
