import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
} from 'node:fs'
import { ioFailure } from '../failure.ts'

/** Bytes from which a queue that has been read is put away. */
const FULL = 65_536

/**
 * Milliseconds for which a queue that was put away is still watched: for whoever had it open just
 * then. Whoever is even slower finds it gone and writes his line again.
 */
const GRACE = 5_000

/** So much is read at a time: a flood is worked off in pieces. */
const SLICE = 1_048_576

/** What stands behind every line; one without it was torn by a full disk, and its writer told so. */
const END = '|.'

const STAGES = ['gone', 'taken', 'current'] as const
type Stage = (typeof STAGES)[number]

/** How far a file has been read. */
interface Part {
  fd: number
  /** Tells the file from any other, whatever its name is by now. */
  id: string
  offset: number
}

/**
 * The lines that action lines append: read while others write, without a lock.
 *
 * A queue that has grown is renamed to `<path>.taken` and watched a while longer; then to
 * `<path>.gone`, read to its end once more and deleted. An action line looks, after it has written,
 * whether its file still has one of the first two names, and writes again if not
 * (action.d/perimeter-queue.conf). So no line is ever in a file that nobody will read.
 */
export class Queue {
  readonly path: string
  /** The files in the order in which they were written to. */
  readonly #parts: Record<Stage, Part | undefined> = {
    gone: undefined,
    taken: undefined,
    current: undefined,
  }
  #takenAt = Date.now()
  /** How far files of earlier runs were read. */
  #known: Map<string, number> | undefined

  /** @param position what `position` said when it was last kept */
  constructor(path: string, position = '') {
    this.path = path
    this.#known = new Map(position.split(' ').map((word) => splitLast(word)))
  }

  /** What is to be kept together with the lines that were read: a word per file. */
  position(): string {
    if (this.#known) return [...this.#known].map(([id, offset]) => `${id}:${offset}`).join(' ')
    return this.#open()
      .map(({ id, offset }) => `${id}:${offset}`)
      .join(' ')
  }

  /**
   * Complete lines that were not read before, in the order in which they were written.
   *
   * @throws Failure 75
   */
  read(): string[] {
    try {
      this.#openAll()
      const { current } = this.#parts
      // Whoever wrote into an older file had done so before he wrote into a newer one: so the end of
      // the newest is fixed first, and a newer one is read only when the older ones are at their end.
      const newest = current ? sizeOf(current) : 0
      const lines: string[] = []
      for (const part of this.#open()) {
        const end = part === current ? newest : sizeOf(part)
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
    const { gone, taken, current } = this.#parts
    try {
      if (gone) {
        if (linesOf({ ...gone }, sizeOf(gone)).length > 0) return
        closeSync(gone.fd)
        unlinkSync(this.#name('gone'))
        this.#parts.gone = undefined
      } else if (taken && now - this.#takenAt > GRACE) {
        renameSync(this.#name('taken'), this.#name('gone'))
        this.#parts.gone = taken
        this.#parts.taken = undefined
      } else if (!taken && current && current.offset > FULL) {
        renameSync(this.path, this.#name('taken'))
        this.#parts.taken = current
        this.#parts.current = undefined
        this.#takenAt = now
      }
    } catch (error) {
      throw ioFailure(`put away "${this.path}"`, error)
    }
  }

  close(): void {
    for (const stage of STAGES) {
      const part = this.#parts[stage]
      if (part) closeSync(part.fd)
      this.#parts[stage] = undefined
    }
  }

  /** Opens the files that an earlier run has left, and later only the one that is written to. */
  #openAll(): void {
    for (const stage of this.#known ? STAGES : (['current'] as const)) {
      this.#parts[stage] ??= openPart(this.#name(stage), this.#known ?? new Map())
    }
    this.#known = undefined
  }

  #open(): Part[] {
    return STAGES.flatMap((stage) => this.#parts[stage] ?? [])
  }

  #name(stage: Stage): string {
    return stage === 'current' ? this.path : `${this.path}.${stage}`
  }
}

function openPart(path: string, known: Map<string, number>): Part | undefined {
  if (!existsSync(path)) return undefined
  const fd = openSync(path, 'r')
  const { ino, birthtimeNs, size } = fstatSync(fd, { bigint: true })
  const id = `${ino}.${birthtimeNs}`
  const offset = known.get(id) ?? 0
  return { fd, id, offset: offset <= size ? offset : 0 }
}

function sizeOf({ fd }: Part): number {
  return fstatSync(fd).size
}

function splitLast(word: string): [string, number] {
  const at = word.lastIndexOf(':')
  return [word.slice(0, at), Number(word.slice(at + 1))]
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
