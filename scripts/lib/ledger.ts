import { canonicalAddress } from './address.ts'
import { alive, later } from './lease.ts'
import { LedgerFile } from './ledger-file.ts'
import { lock } from './lock.ts'
import { type Change, subjectOf } from './target.ts'

/** What a line says about one address. */
export interface Row {
  jail: string
  owner: string
  /** Epoch seconds; 0 = never. A moment that has passed, such as RELEASED, means: not held. */
  expires: number
}

/** A row together with its address. */
export interface Line extends Row {
  address: string
}

/** What turns the leases of an owner into others. */
export interface Difference {
  changes: Line[]
  added: number
  extended: number
  removed: number
  unchanged: number
}

/** How a lease is written on a line, and whether a change is appended or the file replaced. */
export interface Style {
  format(line: Line): string
  /** Undefined for what is no lease: a remark, or a line that a person got wrong. */
  parse(raw: string): Line | undefined
  /**
   * With a mode, a change replaces the file, for readers without our lock and our rules: a lease
   * stands on one line, a newer one stands later, one that was given back is gone, and every line
   * that we did not write stays as it is. Without one, changes are appended.
   */
  replace?: number
}

/** The end that is written for a lease that was given back: long past, whatever the clock does. */
export const RELEASED = 1

/** Looking up so many addresses one by one takes as long as parsing 100,000 leases. */
const FEW = 25

/** A file is looked at for what can go each time that it has grown over a multiple of so many bytes. */
const MEBIBYTE = 1_048_576

/**
 * Every program that must remember leases does so here: a text file of the lines that `list` prints and
 * `sync` reads, with remarks (`#`), readable and repairable by hand.
 *
 * A change is appended; the last line about an (address, jail, owner) wins. Looking up one address
 * searches the bytes (3.5 ms in 100,000 leases), which is what keeps a ban at constant cost; only
 * questions about everything parse the file. The caller holds a lock around read and write.
 * A line is acknowledged when `commit` returns: it is on the disk then. Killed before that, the
 * ledger holds the old state: an unfinished last line is cut off by the next reader.
 */
export class Ledger {
  readonly #file: LedgerFile
  /** All rows by address, once there was a question about everything. */
  #all: Map<string, Row[]> | undefined
  /** The lines that nobody can read, once somebody asked. */
  #bad: string[] | undefined
  /** Rows of the addresses that were looked up or changed since the last read. */
  #seen = new Map<string, Row[]>()
  #pending: string[] = []
  /** A change has let the file grow over a multiple of a mebibyte. */
  #hasGrown = false
  readonly #style: Style
  readonly #beforeParsing: (bytes: number) => void

  /**
   * Reads nothing yet: without the lock, somebody's unfinished line would be cut off.
   *
   * @param beforeParsing told how much is about to be parsed because somebody asked about everything
   */
  constructor(
    path: string,
    style: Style = APPENDED,
    beforeParsing: (bytes: number) => void = () => {},
  ) {
    this.#file = new LedgerFile(path, style.replace)
    this.#style = style
    this.#beforeParsing = beforeParsing
  }

  /** False if there is no such file, so that "lost" can be told from "empty". */
  get exists(): boolean {
    return this.#file.stamp !== ''
  }

  /** Tells this content of the file from any other. */
  get stamp(): string {
    return this.#file.stamp
  }

  /** Bytes in the file. */
  get size(): number {
    return this.#file.size
  }

  /**
   * Reads the file again if somebody else changed it. Call it after taking the lock.
   *
   * @param appended told what others have appended, if all before it was parsed already
   */
  refresh(appended?: (line: Line) => void): void {
    this.#keepUp(this.#file.refresh(), appended)
  }

  /** Reads and parses everything without the lock, so that little is left to do under it. */
  study(): void {
    this.#keepUp(this.#file.look())
    this.#all ??= this.#parsed()
  }

  /** Takes in what was appended; nothing is kept of what was read before if something else has changed. */
  #keepUp(added: Buffer | undefined, appended: (line: Line) => void = () => {}): void {
    if (added?.length === 0) return
    if (!added || !this.#all) {
      this.#forget()
      return
    }
    this.#seen.clear()
    this.#bad?.push(...this.#badIn(added.toString('latin1').split('\n')))
    for (const line of this.#linesOf(added.toString('latin1'))) {
      addTo(this.#all, line)
      appended(line)
    }
  }

  /** Every row about an address, also ended ones; change them with `put` only. */
  held(address: string): readonly Row[] {
    let rows = this.#all?.get(address) ?? this.#seen.get(address)
    if (!rows) {
      if (!this.#all && this.#seen.size >= FEW) return this.#parse().get(address) ?? []
      rows = this.#all ? [] : this.#search(address)
      if (!this.#all) this.#seen.set(address, rows)
    }
    return rows
  }

  /** Every line in force at a moment. Parses the file once (0.1 s for 100,000 leases). */
  *living(at: number): Generator<Line> {
    for (const [address, rows] of this.#parse()) {
      for (const row of rows) if (alive(row.expires, at)) yield { address, ...row }
    }
  }

  /** What an owner holds at a moment, in one jail or in all. */
  own(owner: string, jail: string | undefined, at: number): Line[] {
    return [...this.living(at)].filter((line) => {
      return line.owner === owner && (jail === undefined || line.jail === jail)
    })
  }

  /** Every line that has ended, given-back ones included. */
  *ended(at: number): Generator<Line> {
    for (const [address, rows] of this.#parse()) {
      for (const row of rows) if (!alive(row.expires, at)) yield { address, ...row }
    }
  }

  /** The remarks in order, without line ends. */
  remarks(): string[] {
    const found = Array.from(this.#file.startsWith('#'), (at) => this.#file.lineAt(at))
    return [...found, ...this.#pending.filter((line) => line.startsWith('#'))]
  }

  /** Notes a change; `commit` writes it. */
  put(line: Line): void {
    const rows = this.held(line.address) as Row[]
    const known = rows.find((row) => row.jail === line.jail && row.owner === line.owner)
    this.#pending.push(this.#style.format(line))
    if (known) known.expires = line.expires
    else rows.push({ jail: line.jail, owner: line.owner, expires: line.expires })
    if (this.#all && !known) this.#all.set(line.address, rows)
  }

  /** Notes a change of an owner's; a ban never cuts a longer one. @returns what it comes to */
  enter(change: Change, owner: string): Line {
    const { address, jail } = subjectOf(change)
    const known = this.held(address.text).find((row) => row.jail === jail && row.owner === owner)
    const expires =
      change.verb === 'ban' ? later(known?.expires ?? RELEASED, change.lease.expires) : RELEASED
    const line = { address: address.text, jail, owner, expires }
    this.put(line)
    return line
  }

  /**
   * What turns the leases of an owner that are in force at a moment into exactly the wanted ones.
   *
   * @param jail undefined for all jails
   */
  diff(owner: string, jail: string | undefined, wanted: readonly Line[], at: number): Difference {
    const result: Difference = { changes: [], added: 0, extended: 0, removed: 0, unchanged: 0 }
    const own = this.own(owner, jail, at)
    const owned = (line: Line): Line => (line.owner === owner ? line : { ...line, owner })
    if (own.length === 0) return { ...result, changes: wanted.map(owned), added: wanted.length }
    const keep = new Set(wanted.map((line) => `${line.address} ${line.jail}`))
    for (const line of own) {
      if (keep.has(`${line.address} ${line.jail}`)) continue
      result.changes.push({ ...line, expires: RELEASED })
      result.removed++
    }
    for (const line of wanted) {
      const known = this.held(line.address).find((row) => {
        return row.jail === line.jail && row.owner === owner
      })
      if (known?.expires === line.expires) {
        result.unchanged++
        continue
      }
      result.changes.push(owned(line))
      if (known && alive(known.expires, at)) result.extended++
      else result.added++
    }
    return result
  }

  /** Every line of the file in order, blank ones left out, with what it says. */
  *lines(): Generator<{ number: number; raw: string; line: Line | undefined }> {
    let number = 0
    for (const raw of this.#file.lines()) {
      number++
      if (raw.trim() !== '') yield { number, raw, line: this.#style.parse(raw) }
    }
  }

  /** Lines that are neither remark nor lease of an address, a character for each byte. */
  unreadable(): readonly string[] {
    this.#bad ??= this.#badIn(this.#file.lines())
    return this.#bad
  }

  #badIn(lines: readonly string[]): string[] {
    return lines.filter((raw) => {
      const line = this.#style.parse(raw)
      return line ? !canonicalAddress(line.address) : !isRemark(raw)
    })
  }

  /** Notes a remark; `commit` writes it. */
  remark(line: string): void {
    this.#pending.push(`# ${line}`)
  }

  /**
   * Writes what was noted and forces it to the disk.
   *
   * @throws Failure 75 if it cannot be written; the file is then as it was
   */
  commit(): void {
    if (this.#pending.length === 0) return
    if (this.#style.replace === undefined) {
      const before = this.size
      this.#file.append(`${this.#pending.join('\n')}\n`)
      this.#hasGrown ||= Math.floor(this.size / MEBIBYTE) > Math.floor(before / MEBIBYTE)
    } else {
      this.#file.replace(textOf(this.#withChanges(), 'latin1'))
      this.#forget()
    }
    this.#pending = []
  }

  /** Forgets what was noted and not committed. */
  discard(): void {
    this.#pending = []
    this.#file.reread()
    this.#forget()
  }

  /** Takes back what was committed since the last `settle`. @throws Failure 75 if it cannot be written */
  revert(): void {
    try {
      this.#file.revert()
    } finally {
      this.discard()
    }
  }

  /** Says that what was committed has taken effect and will not be reverted. */
  settle(): void {
    this.#file.settle()
  }

  /**
   * Rewrites the file if more than half of more than a mebibyte of it says nothing any more: has ended
   * at a moment, or was replaced by a later line. Call it after `commit`: only the process that lets
   * the file grow by another mebibyte walks through it.
   *
   * @param remarks which remarks to keep
   */
  tidy(at: number, remarks: () => string[] = () => this.remarks()): void {
    if (!this.#hasGrown) return
    this.#hasGrown = false
    let living = 0
    for (const line of this.living(at)) living += this.#style.format(line).length + 1
    if (2 * living < this.size) this.compact(at, remarks())
  }

  /**
   * Rewrites the file without what has ended: beside it, then renamed over it.
   *
   * @param remarks which remarks to keep
   * @param mend leaves out what is unreadable, too
   */
  compact(at: number, remarks: string[] = this.remarks(), mend = false): void {
    if (this.#style.replace === undefined) {
      this.#file.compact(this.#withoutEnded(at, remarks, mend))
    } else {
      const lines = this.#file.lines()
      const left = lines.filter((raw) => alive(this.#style.parse(raw)?.expires ?? 0, at))
      this.#file.compact(textOf(left, 'latin1'))
      this.#pending = []
    }
    this.#forget()
  }

  /**
   * Does without the lock what `compact` would do under it, in a file to which changes are appended.
   *
   * @returns what has to be done under the lock; nothing if somebody else has rewritten it since
   */
  compacting(at: number, remarks: string[]): () => void {
    const before = this.#file.whole()
    const text = this.#withoutEnded(at, remarks, false)
    return () => {
      const bytes = this.#file.whole()
      if (!bytes.subarray(0, before.length).equals(before)) return
      this.#file.compact(Buffer.concat([text, bytes.subarray(before.length)]))
      this.#forget()
    }
  }

  #withoutEnded(at: number, remarks: string[], mend: boolean): Buffer {
    const { parse, format } = this.#style
    const bad = mend ? [] : this.#file.lines().filter((raw) => !isRemark(raw) && !parse(raw))
    const kept = bad.map((raw) => Buffer.from(raw, 'latin1').toString('utf8'))
    const living = [...this.living(at)]
    const left = mend ? living.filter((line) => canonicalAddress(line.address)) : living
    return textOf([...remarks, ...kept, ...left.map(format)], 'utf8')
  }

  /** The lines of the file as what was noted leaves them; only lines about the same leases move. */
  #withChanges(): string[] {
    const changed = new Map<string, Line>()
    const addresses = new Set<string>()
    for (const line of this.#pending.flatMap((raw) => this.#style.parse(raw) ?? [])) {
      changed.delete(keyOf(line))
      changed.set(keyOf(line), line)
      addresses.add(line.address)
    }
    const kept = this.#file.lines().filter((raw) => {
      const end = raw.indexOf(' ')
      if (!addresses.has(end < 0 ? raw : raw.slice(0, end))) return true
      const line = this.#style.parse(raw)
      return !line || !changed.has(keyOf(line))
    })
    const held = [...changed.values()].filter((line) => line.expires !== RELEASED)
    return [...kept, ...held.map((line) => this.#style.format(line))]
  }

  /** Lets go of the file's content, for a process that waits long until the next change. */
  forget(): void {
    this.#file.forget()
    this.#forget()
  }

  #forget(): void {
    this.#all = undefined
    this.#bad = undefined
    this.#seen.clear()
  }

  #search(address: string): Row[] {
    const rows: Row[] = []
    for (const at of this.#file.startsWith(`${address} `)) {
      const line = this.#style.parse(this.#file.lineAt(at))
      if (line) setRow(rows, line)
    }
    return rows
  }

  #parse(): Map<string, Row[]> {
    if (this.#all) return this.#all
    this.#beforeParsing(this.#file.size)
    this.#all = this.#parsed()
    return this.#all
  }

  #parsed(): Map<string, Row[]> {
    const all = new Map<string, Row[]>()
    for (const line of this.#linesOf(this.#file.whole().toString('latin1'))) addTo(all, line)
    for (const line of this.#linesOf(this.#pending.join('\n'))) addTo(all, line)
    return all
  }

  *#linesOf(text: string): Generator<Line> {
    for (const raw of text.split('\n')) {
      const line = this.#style.parse(raw)
      if (line) yield line
    }
  }
}

/** How a ledger is opened for a while. */
interface Opening {
  /** Seconds to wait for the lock at most, and what ends the waiting earlier. */
  seconds?: number
  signal?: AbortSignal
  style?: Style
  /** The file that is locked; `<path>.lock` if left out. */
  lock?: string
  /** Neither locks nor writes anything. */
  dryRun?: boolean
}

/**
 * Reads a ledger under its lock, works with it and writes what was noted.
 *
 * @throws Failure 75 if it cannot be locked in time, read or written
 */
export async function withLedger<T>(
  path: string,
  work: (ledger: Ledger) => T | Promise<T>,
  { seconds, signal, style, lock: file = `${path}.lock`, dryRun = false }: Opening = {},
): Promise<T> {
  const release = dryRun ? undefined : await lock(file, seconds, signal)
  try {
    const ledger = new Ledger(path, dryRun ? LOOK_ONLY : style)
    ledger.refresh()
    const result = await work(ledger)
    if (!dryRun) ledger.commit()
    return result
  } finally {
    release?.()
  }
}

const APPENDED: Style = { format, parse }

/** For a look without the lock: an unfinished last line is left to the process that writes it. */
export const LOOK_ONLY: Style = { format, parse, replace: 0o600 }

function isRemark(line: string): boolean {
  return line === '' || line.startsWith('#')
}

function keyOf(line: Line): string {
  return `${line.address} ${line.jail} ${line.owner}`
}

function format(line: Line): string {
  return `${line.address} ${line.jail} ${line.expires} ${line.owner}`
}

function parse(raw: string): Line | undefined {
  if (raw === '' || raw.startsWith('#')) return undefined
  const [address, jail, expires, owner, ...rest] = raw.split(' ')
  if (!address || !jail || !expires || !owner || rest.length > 0) return undefined
  const moment = Number(expires)
  return Number.isSafeInteger(moment) && moment >= 0
    ? { address, jail, expires: moment, owner }
    : undefined
}

/** @param encoding `latin1` where lines have a character for each byte */
function textOf(lines: string[], encoding: 'latin1' | 'utf8'): Buffer {
  return Buffer.from(lines.map((line) => `${line}\n`).join(''), encoding)
}

function addTo(all: Map<string, Row[]>, line: Line): void {
  const rows = all.get(line.address)
  if (rows) setRow(rows, line)
  else all.set(line.address, [{ jail: line.jail, owner: line.owner, expires: line.expires }])
}

function setRow(rows: Row[], line: Line): void {
  const known = rows.find((row) => row.jail === line.jail && row.owner === line.owner)
  if (known) known.expires = line.expires
  else rows.push({ jail: line.jail, owner: line.owner, expires: line.expires })
}
