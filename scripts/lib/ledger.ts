import { joined } from './bulk.ts'
import {
  appendDurably,
  readFinished,
  readWhole,
  replaceDurably,
  stampOf,
  truncateDurably,
} from './durable.ts'
import { alive } from './lease.ts'

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

/** What a set of leases must go through to become another. */
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

/**
 * Whoever must remember leases remembers them here: a text file of the lines that `list` prints and
 * `sync` reads, with remarks (`#`), readable and repairable by hand.
 *
 * A change is appended; the last line about an (address, jail, owner) wins. Looking up one address
 * searches the bytes (3.5 ms in 100,000 leases), which is what keeps a ban at constant cost; only
 * questions about everything parse the file. The caller holds a lock around read and write.
 * A line is acknowledged when `commit` returns: it is on the disk then. Killed before that, the
 * ledger holds the old state: an unfinished last line is cut off by the next reader.
 */
export class Ledger {
  readonly path: string
  #bytes: Buffer = Buffer.alloc(0)
  /** What was appended to the file since. */
  #tail: Buffer[] = []
  #stamp = ''
  /** All rows by address, once somebody asked about everything. */
  #all: Map<string, Row[]> | undefined
  /** Rows of the addresses that were looked up or changed since the last read. */
  #seen = new Map<string, Row[]>()
  #pending: string[] = []
  /** The file as it was before the first commit since the last `settle`: its bytes or their number. */
  #before: Buffer | number | undefined
  readonly #style: Style

  /** Reads nothing yet: without the lock, somebody's unfinished line would be cut off. */
  constructor(path: string, style: Style = APPENDED) {
    this.path = path
    this.#style = style
  }

  /** False if there is no such file, so that "lost" can be told from "empty". */
  get exists(): boolean {
    return this.#stamp !== ''
  }

  /** Tells this content of the file from any other. */
  get stamp(): string {
    return this.#stamp
  }

  /** Bytes in the file. */
  get size(): number {
    return this.#tail.reduce((sum, bytes) => sum + bytes.length, this.#bytes.length)
  }

  /** Reads the file again if somebody else changed it. Call it after taking the lock. */
  refresh(): void {
    const stamp = stampOf(this.path)
    if (stamp === this.#stamp) return
    this.#all = undefined
    this.#seen.clear()
    this.#tail = []
    this.#bytes = stamp === '' ? Buffer.alloc(0) : this.#read()
    this.#stamp = stampOf(this.path)
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

  /** Every line that has ended, given-back ones included. */
  *ended(at: number): Generator<Line> {
    for (const [address, rows] of this.#parse()) {
      for (const row of rows) if (!alive(row.expires, at)) yield { address, ...row }
    }
  }

  /** The jails in lines about an owner, also in those that have ended: a tenth of a parse's time. */
  jailsOf(owner: string): Set<string> {
    const jails = new Set<string>()
    const line = /^[^ \n#][^ \n]* ([^ \n]+) [^ \n]+ ([^ \n]+)$/gm
    const text = [this.#whole().toString('latin1'), ...this.#pending].join('\n')
    for (let found = line.exec(text); found; found = line.exec(text)) {
      const [, jail = '', named] = found
      if (named === owner) jails.add(jail)
    }
    return jails
  }

  /** The remarks in order, without line ends. */
  remarks(): string[] {
    const found: string[] = []
    const bytes = this.#whole()
    // A single byte is searched ten times as fast as two, the first of which ends every line.
    for (let at = bytes.indexOf(35); at >= 0; at = bytes.indexOf(35, at + 1)) {
      if (at === 0 || bytes[at - 1] === 10) found.push(this.#lineAt(at))
    }
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

  /** Notes many changes at once, in a file to which changes are appended; what is asked next parses the file again. */
  putAll(lines: readonly Line[]): void {
    if (lines.length === 0) return
    this.#pending.push(joined(lines, this.#style.format, '\n'))
    this.#all = undefined
    this.#seen.clear()
  }

  /** Every line of the file in order, blank ones left out, with what it says. */
  *lines(): Generator<{ number: number; raw: string; line: Line | undefined }> {
    let number = 0
    for (const raw of this.#rawLines()) {
      number++
      if (raw.trim() !== '') yield { number, raw, line: this.#style.parse(raw) }
    }
  }

  /** Notes a remark; `commit` writes it. */
  remark(line: string): void {
    this.#pending.push(`# ${line}`)
  }

  /** What turns the leases of an owner (in one jail, or in all) into exactly the wanted ones. */
  difference(owner: string, jail: string | undefined, wanted: Line[], at: number): Difference {
    const result: Difference = { changes: [], added: 0, extended: 0, removed: 0, unchanged: 0 }
    const own = [...this.living(at)].filter((line) => {
      return line.owner === owner && (jail === undefined || line.jail === jail)
    })
    if (own.length === 0) {
      const changes = wanted.map((line) => (line.owner === owner ? line : { ...line, owner }))
      return { ...result, changes, added: wanted.length }
    }
    const keep = new Set(wanted.map((l) => `${l.address} ${l.jail}`))
    for (const line of own) {
      if (keep.has(`${line.address} ${line.jail}`)) continue
      result.changes.push({ ...line, expires: RELEASED })
      result.removed++
    }
    for (const line of wanted) {
      const known = this.held(line.address).find((r) => r.jail === line.jail && r.owner === owner)
      if (known?.expires === line.expires) {
        result.unchanged++
        continue
      }
      result.changes.push(line.owner === owner ? line : { ...line, owner })
      if (known && alive(known.expires, at)) result.extended++
      else result.added++
    }
    return result
  }

  /**
   * Writes what was noted and forces it to the disk.
   *
   * @throws Failure 75 if it cannot be written; the file is then as it was
   */
  commit(): void {
    if (this.#pending.length === 0) return
    if (this.#style.replace !== undefined) {
      const before = this.#bytes
      this.#replace(this.#withChanges())
      this.#before ??= before
      return
    }
    const before = this.size
    const lines = Buffer.from(`${this.#pending.join('\n')}\n`)
    appendDurably(this.path, lines)
    this.#before ??= before
    this.#pending = []
    this.#tail.push(lines)
    this.#stamp = stampOf(this.path)
  }

  /** Forgets what was noted and not committed. */
  discard(): void {
    this.#pending = []
    this.#reread()
  }

  /**
   * Takes back everything since the last `settle`, because it could not take effect. A file that
   * somebody without the lock has changed since is left as it is.
   *
   * @throws Failure 75 if it cannot be written
   */
  revert(): void {
    const before = this.#before
    this.#before = undefined
    try {
      if (before === undefined || stampOf(this.path) !== this.#stamp) return
      if (typeof before === 'number') truncateDurably(this.path, before)
      else replaceDurably(this.path, before, this.#style.replace)
    } finally {
      this.discard()
    }
  }

  /** Says that what was committed has taken effect and will not be reverted. */
  settle(): void {
    this.#before = undefined
  }

  /**
   * Rewrites the file without what has ended: beside it, then renamed over it.
   *
   * @param remarks which remarks to keep
   */
  compact(at: number, remarks: string[] = this.remarks()): void {
    const { replace, parse } = this.#style
    if (replace !== undefined) {
      this.#replace(this.#rawLines().filter((raw) => alive(parse(raw)?.expires ?? 0, at)))
      return
    }
    const living = Array.from(this.living(at), (line) => this.#style.format(line))
    const lines = [...remarks, ...this.#unreadable(), ...living]
    replaceDurably(this.path, Buffer.from(lines.map((line) => `${line}\n`).join('')))
    this.#reread()
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
    const kept = this.#rawLines().filter((raw) => {
      const end = raw.indexOf(' ')
      if (!addresses.has(end < 0 ? raw : raw.slice(0, end))) return true
      const line = this.#style.parse(raw)
      return !line || !changed.has(keyOf(line))
    })
    const held = [...changed.values()].filter((line) => line.expires !== RELEASED)
    return [...kept, ...held.map((line) => this.#style.format(line))]
  }

  #replace(lines: string[]): void {
    const text = lines.map((line) => `${line}\n`).join('')
    replaceDurably(this.path, Buffer.from(text, 'latin1'), this.#style.replace)
    this.#pending = []
    this.#reread()
  }

  #reread(): void {
    this.#stamp = 'stale'
    this.refresh()
  }

  #read(): Buffer {
    return this.#style.replace === undefined ? readFinished(this.path) : readWhole(this.path)
  }

  /** The lines without their ends, a character for each byte. */
  #rawLines(): string[] {
    const lines = this.#whole().toString('latin1').split('\n')
    if (lines.at(-1) === '') lines.pop()
    return lines
  }

  #search(address: string): Row[] {
    const rows: Row[] = []
    const bytes = this.#whole()
    const needle = Buffer.from(`${address} `)
    for (let at = bytes.indexOf(needle); at >= 0; at = bytes.indexOf(needle, at + 1)) {
      const line =
        at === 0 || bytes[at - 1] === 10 ? this.#style.parse(this.#lineAt(at)) : undefined
      if (line) setRow(rows, line)
    }
    return rows
  }

  /** The whole file as it is on the disk. */
  #whole(): Buffer {
    if (this.#tail.length > 0) this.#bytes = Buffer.concat([this.#bytes, ...this.#tail])
    this.#tail = []
    return this.#bytes
  }

  #parse(): Map<string, Row[]> {
    if (this.#all) return this.#all
    const all = new Map<string, Row[]>()
    const pending = this.#pending.join('\n').split('\n')
    for (const raw of [...this.#whole().toString('latin1').split('\n'), ...pending]) {
      const line = this.#style.parse(raw)
      if (!line) continue
      const rows = all.get(line.address)
      if (rows) setRow(rows, line)
      else all.set(line.address, [{ jail: line.jail, owner: line.owner, expires: line.expires }])
    }
    this.#all = all
    return all
  }

  /** Lines that are neither remark nor lease: kept for the person who wrote them. */
  #unreadable(): string[] {
    const lines = this.#whole().toString('utf8').split('\n')
    return lines.filter((line) => line !== '' && !line.startsWith('#') && !this.#style.parse(line))
  }

  #lineAt(start: number): string {
    const end = this.#bytes.indexOf(10, start)
    return this.#bytes.toString('utf8', start, end < 0 ? this.#bytes.length : end)
  }
}

const APPENDED: Style = { format, parse }

/** For a look without the lock: an unfinished last line is left to whoever is writing it. */
export const LOOK_ONLY: Style = { format, parse, replace: 0o600 }

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

function setRow(rows: Row[], line: Line): void {
  const known = rows.find((row) => row.jail === line.jail && row.owner === line.owner)
  if (known) known.expires = line.expires
  else rows.push({ jail: line.jail, owner: line.owner, expires: line.expires })
}
