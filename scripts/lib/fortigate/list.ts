import { replaceDurably } from '../durable.ts'
import { alive, type Lease, later, now } from '../lease.ts'
import { type Difference, Ledger, type Line, RELEASED, type Style, withLedger } from '../ledger.ts'
import { listStyle } from './line.ts'

/**
 * Seconds to wait for the list at most, though one change takes milliseconds: hundreds of processes
 * may start at once. A verb whose own time is over waits no longer; Fail2Ban, which kills it after 60
 * and runs it twice, has every other jail wait meanwhile.
 */
const PATIENCE = 20

/**
 * The list of blocked addresses. Every change happens under a lock and replaces the file, so that
 * writers lose nothing and a reader sees a whole list, the old one or the new one.
 */
export class BlockList {
  readonly path: string
  readonly #style: Style

  constructor(path: string, mode: number) {
    this.path = path
    this.#style = listStyle(mode)
  }

  /** Makes an empty list if there is none, and drops what has ended. */
  async prepare(signal: AbortSignal): Promise<void> {
    await this.#locked(signal, (ledger) => {
      if (!ledger.exists) replaceDurably(this.path, '', this.#style.replace)
      else if (!ledger.ended(now()).next().done) ledger.compact(now())
    })
  }

  /**
   * Enters leases, and takes out those whose end is RELEASED: the address stays while another jail,
   * owner or person holds it. A lease that ends earlier than what is known already changes nothing.
   */
  async change(lines: Line[], signal: AbortSignal): Promise<void> {
    // A ban that is in force already, restored after a restart for instance, need not queue up.
    const read = this.#read()
    if (lines.every((line) => isKnown(read, line))) return
    await this.#locked(signal, (ledger) => {
      for (const line of lines) if (!isKnown(ledger, line)) ledger.put(line)
    })
  }

  /** Makes an owner's leases (in one jail, or in all) exactly these. */
  async become(
    owner: string,
    jail: string | undefined,
    leases: readonly Lease[],
    signal: AbortSignal,
  ): Promise<Difference> {
    const wanted = leases.map((lease) => ({ ...lease, address: lease.address.text }))
    return this.#locked(signal, (ledger) => {
      const difference = ledger.diff(owner, jail, wanted, now())
      for (const line of difference.changes) ledger.put(line)
      ledger.commit()
      if (!ledger.ended(now()).next().done) ledger.compact(now())
      return difference
    })
  }

  /** What `become` would do. */
  preview(owner: string, jail: string | undefined, leases: readonly Lease[]): Difference {
    const wanted = leases.map((lease) => ({ ...lease, address: lease.address.text }))
    return this.#read().diff(owner, jail, wanted, now())
  }

  /** Leases in force, other owners' and a person's lines included. */
  living(): Line[] {
    return [...this.#read().living(now())]
  }

  /** True if anybody still holds the address. */
  holds(address: string): boolean {
    return this.living().some((line) => line.address === address)
  }

  /** Lines that nobody can read, as `<number>: <text>`; undefined if there is no list. */
  unreadable(): string[] | undefined {
    const ledger = this.#read()
    return ledger.exists ? [...unreadableLines(ledger)] : undefined
  }

  #read(): Ledger {
    return readList(this.path, this.#style)
  }

  #locked<T>(signal: AbortSignal, work: (ledger: Ledger) => T): Promise<T> {
    return withLedger(this.path, work, { seconds: PATIENCE, signal, style: this.#style })
  }
}

/** The list as it is now. It is replaced whole, so no lock is needed to read it. */
export function readList(path: string, style: Style = listStyle(0)): Ledger {
  const ledger = new Ledger(path, style)
  ledger.refresh()
  return ledger
}

/** The lines that are neither remark nor entry: kept for the person who wrote them, never served. */
export function* unreadableLines(ledger: Ledger): Generator<string> {
  for (const { number, raw, line } of ledger.lines()) {
    if (line || /^\s*[#;]/.test(raw)) continue
    yield `${number}: ${JSON.stringify(Buffer.from(raw, 'latin1').toString().slice(0, 80))}`
  }
}

/** True if a line says nothing new. */
function isKnown(ledger: Ledger, line: Line): boolean {
  const rows = ledger.held(line.address)
  const known = rows.find((row) => row.jail === line.jail && row.owner === line.owner)
  if (line.expires === RELEASED) return known === undefined
  if (!known || !alive(known.expires, now())) return false
  return later(known.expires, line.expires) === known.expires
}
