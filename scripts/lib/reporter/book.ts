import { join } from 'node:path'
import { alive, later, NO_JAIL } from '../lease.ts'
import { Ledger, type Line, RELEASED, type Row } from '../ledger.ts'
import type { Due, Service } from './service.ts'

/** The word in place of a jail for an address that the service will never take. */
const REFUSED = 'refused'

/** Seconds before its end in which an entry is left to end by itself. */
const ENDS_BY_ITSELF = 5

/**
 * What one machine holds at one service, in two ledgers: the leases of its jails (`wanted`), and
 * what the service was told about each address (`reported`). What is due is their difference, so a
 * process that dies between the two loses nothing: the next one finds the same difference.
 *
 * Times are epoch seconds. The caller holds the lock and calls `refresh` first.
 */
export class Book {
  readonly wanted: Ledger
  readonly #reported: Ledger
  readonly #service: Service
  readonly #owner: string

  constructor(directory: string, service: Service, owner: string) {
    this.wanted = new Ledger(join(directory, `${service.name}.wanted`))
    this.#reported = new Ledger(join(directory, `${service.name}.reported`))
    this.#service = service
    this.#owner = owner
  }

  refresh(): void {
    this.wanted.refresh()
    this.#reported.refresh()
  }

  /** Forces to the disk what was noted. @throws Failure 75 */
  commit(): void {
    this.wanted.commit()
    this.#reported.commit()
  }

  /** Enters a lease: a longer one extends, a shorter one never cuts. True if a report is due. */
  want(line: Line, now: number): boolean {
    const known = this.#row(line)
    const expires =
      known && alive(known.expires, now) ? later(known.expires, line.expires) : line.expires
    if (known?.expires !== expires) this.wanted.put({ ...line, expires })
    return this.#owed(line.address, now) === 'report'
  }

  /** Ends a lease that has not ended by itself. True if a withdrawal is due. */
  release(line: Omit<Line, 'expires'>, now: number): boolean {
    const known = this.#row(line)
    if (known && alive(known.expires, now)) this.wanted.put({ ...line, expires: RELEASED })
    // An address that no ledger knows may still be there: somebody lost the ledgers.
    const stranger =
      this.wanted.held(line.address).length + this.#reported.held(line.address).length === 0
    if (stranger && this.#service.withdrawal) {
      const due = { address: line.address, jails: [], until: 0 }
      this.#tell(line.address, this.#service.until(due, [due], now))
    }
    return this.#isOver(line.address, now)
  }

  /** Everything that is owed a report, and has not been told yet. */
  toReport(now: number): Due[] {
    const found = new Map<string, Due>()
    for (const line of this.wanted.living(now - this.#service.late)) {
      const due = found.get(line.address)
      if (!due)
        found.set(line.address, {
          address: line.address,
          jails: [line.jail],
          until: line.expires,
        })
      else {
        due.until = later(due.until, line.expires)
        if (!due.jails.includes(line.jail)) due.jails.push(line.jail)
      }
    }
    return [...found.values()].filter((due) => {
      const owed = this.#service.owed(due.until, this.#told(due.address), now)
      if (owed === 'covered') this.#tell(due.address, due.until)
      return owed === 'report'
    })
  }

  /** Everything that the service still shows and nobody bans any more. */
  toWithdraw(now: number): Due[] {
    if (!this.#service.withdrawal) return []
    const addresses = Array.from(this.#reported.living(now), ({ address }) => address)
    return [...new Set(addresses)]
      .filter((address) => this.#isOver(address, now))
      .map((address) => ({ address, jails: [], until: now }))
  }

  /** Notes what the service was told, and what of it it will never take. */
  reported(batch: Due[], refused: string[], now: number): void {
    for (const due of batch) {
      const until = this.#service.until(due, batch, now)
      this.#tell(due.address, until, refused.includes(due.address) ? REFUSED : NO_JAIL)
    }
  }

  withdrawn(batch: Due[]): void {
    for (const { address } of batch) this.#tell(address, RELEASED)
  }

  /** Forgets everything: the account was emptied. */
  forget(now: number): void {
    for (const line of [...this.wanted.living(now)]) this.wanted.put({ ...line, expires: RELEASED })
    for (const line of [...this.#reported.living(now)]) {
      this.#reported.put({ ...line, expires: RELEASED })
    }
  }

  /** True if the service was told about the address and has no reason to have forgotten. */
  isReported(address: string, now: number): boolean {
    return this.#reported
      .held(address)
      .some((row) => row.jail !== REFUSED && alive(row.expires, now))
  }

  /** Rewrites a ledger of which most has ended. */
  tidy(now: number): void {
    for (const ledger of [this.wanted, this.#reported]) ledger.tidy(now - this.#service.late)
  }

  #row(line: Omit<Line, 'expires'>): Row | undefined {
    return this.wanted
      .held(line.address)
      .find((row) => row.jail === line.jail && row.owner === line.owner)
  }

  #owed(address: string, now: number) {
    const ends = this.wanted.held(address).map((row) => row.expires)
    const until = ends.reduce(later, RELEASED)
    const owed = this.#service.owed(until, this.#told(address), now)
    if (owed === 'covered') this.#tell(address, until)
    return owed
  }

  #isOver(address: string, now: number): boolean {
    if (!this.#service.withdrawal) return false
    return (
      this.isReported(address, now + ENDS_BY_ITSELF) &&
      !this.wanted.held(address).some((row) => alive(row.expires, now))
    )
  }

  /** Until when the address counts as reported, or was refused. */
  #told(address: string): number {
    return this.#reported.held(address).reduce((end, row) => later(end, row.expires), RELEASED)
  }

  #tell(address: string, expires: number, word = NO_JAIL): void {
    this.#reported.put({ address, jail: word, expires, owner: this.#owner })
  }
}
