import {
  appendDurably,
  readFinished,
  readWhole,
  replaceDurably,
  stampOf,
  truncateDurably,
} from './durable.ts'

const MARK = Buffer.from('\ufeff')

/**
 * The text file under a ledger: what stands on the disk, read once for as long as no other process
 * changes it, and the way back to what stood there before. The caller holds a lock.
 */
export class LedgerFile {
  readonly #path: string
  readonly #mode: number | undefined
  #bytes: Buffer = Buffer.alloc(0)
  /** What was appended to the file since. */
  #tail: Buffer[] = []
  #stamp = ''
  /** The file as it was before the first change since the last `settle`: its bytes or their number. */
  #before: Buffer | number | undefined

  /**
   * Reads nothing yet: without the lock, another writer's unfinished line would be cut off.
   *
   * @param mode of a file that readers without our lock see, too: it is always whole
   */
  constructor(path: string, mode: number | undefined) {
    this.#path = path
    this.#mode = mode
  }

  /** Tells this content of the file from any other; empty if there is no file. */
  get stamp(): string {
    return this.#stamp
  }

  /** Bytes in the file. */
  get size(): number {
    return this.#tail.reduce((sum, bytes) => sum + bytes.length, this.#bytes.length)
  }

  /**
   * Reads the file again if somebody else changed it.
   *
   * @returns what was appended since; undefined if anything else has changed
   */
  refresh(): Buffer | undefined {
    return this.#become(() => {
      const bytes = this.#read()
      return { bytes, stamp: stampOf(this.#path) }
    })
  }

  /** The same without the lock: it is looked at again under it, and a line that is being written left. */
  look(): Buffer | undefined {
    return this.#become(() => {
      const bytes = this.#withoutMark(readWhole(this.#path))
      return { bytes: bytes.subarray(0, bytes.lastIndexOf(10) + 1), stamp: 'stale' }
    })
  }

  #become(read: () => { bytes: Buffer; stamp: string }): Buffer | undefined {
    const found = stampOf(this.#path)
    if (found === this.#stamp) return Buffer.alloc(0)
    const before = this.whole()
    const { bytes, stamp } = found === '' ? { bytes: Buffer.alloc(0), stamp: '' } : read()
    this.#bytes = bytes
    this.#stamp = stamp
    const grown = before.length > 0 && bytes.subarray(0, before.length).equals(before)
    return grown ? bytes.subarray(before.length) : undefined
  }

  /** Lets go of its content; `refresh` reads it again. */
  forget(): void {
    this.#bytes = Buffer.alloc(0)
    this.#tail = []
    this.#stamp = 'stale'
  }

  /** Reads it again, whatever we believe. */
  reread(): void {
    this.#stamp = 'stale'
    this.refresh()
  }

  /** The whole file as it is on the disk. */
  whole(): Buffer {
    if (this.#tail.length > 0) this.#bytes = Buffer.concat([this.#bytes, ...this.#tail])
    this.#tail = []
    return this.#bytes
  }

  /** The lines without their ends, a character for each byte. */
  lines(): string[] {
    const lines = this.whole().toString('latin1').split('\n')
    if (lines.at(-1) === '') lines.pop()
    return lines
  }

  /** Where a text stands at the beginning of a line, without parsing the others. */
  *startsWith(text: string): Generator<number> {
    const bytes = this.whole()
    const needle = Buffer.from(text)
    for (let at = bytes.indexOf(needle); at >= 0; at = bytes.indexOf(needle, at + 1)) {
      if (at === 0 || bytes[at - 1] === 10) yield at
    }
  }

  /** The line that begins there. */
  lineAt(start: number): string {
    const end = this.#bytes.indexOf(10, start)
    return this.#bytes.toString('utf8', start, end < 0 ? this.#bytes.length : end)
  }

  /** @throws Failure 75 if it cannot be written; the file is then as it was */
  append(text: string): void {
    const before = this.size
    const bytes = Buffer.from(text)
    appendDurably(this.#path, bytes)
    this.#before ??= before
    this.#tail.push(bytes)
    this.#stamp = stampOf(this.#path)
  }

  /** @throws Failure 75 if it cannot be written; the file is then as it was */
  replace(bytes: Buffer): void {
    const before = this.whole()
    replaceDurably(this.#path, bytes, this.#mode)
    this.#before ??= before
    this.reread()
  }

  /** Writes what says the same in fewer lines, which is nothing to take back. @throws Failure 75 */
  compact(bytes: Buffer): void {
    replaceDurably(this.#path, bytes, this.#mode)
    this.#before = undefined
    this.reread()
  }

  /**
   * Takes back everything since the last `settle`, because it could not take effect. A file that
   * a process without the lock has changed since is left as it is.
   *
   * @throws Failure 75 if it cannot be written
   */
  revert(): void {
    const before = this.#before
    this.#before = undefined
    if (before === undefined || stampOf(this.#path) !== this.#stamp) return
    if (typeof before === 'number') truncateDurably(this.#path, before)
    else replaceDurably(this.#path, before, this.#mode)
  }

  /** Says that what was written has taken effect and will not be reverted. */
  settle(): void {
    this.#before = undefined
  }

  #read(): Buffer {
    if (this.#mode === undefined) return readFinished(this.#path)
    return this.#withoutMark(readWhole(this.#path))
  }

  /** A byte order mark is an editor's, and no part of the first line. */
  #withoutMark(bytes: Buffer): Buffer {
    const marked = this.#mode !== undefined && bytes.subarray(0, 3).equals(MARK)
    return marked ? bytes.subarray(3) : bytes
  }
}
