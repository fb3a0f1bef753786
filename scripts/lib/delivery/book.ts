import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { ioFailure } from '../failure.ts'
import { alive, isSameEnd, later } from '../lease.ts'
import { Ledger, RELEASED } from '../ledger.ts'
import type { Naming } from '../ports.ts'
import type { Operation } from './operation.ts'
import { isKept, type Truth } from './truth.ts'

/** Bytes above which a ledger is looked at for lines that no longer count. */
const WORTH_COMPACTING = 1_048_576

/** So many changes are remembered for a sync that began before them. */
const REMEMBERED = 200_000

/** A lease of ours, without saying whose. */
export interface Key {
  address: string
  jail: string
}

/** A lease that is to be. */
export interface Wish extends Key {
  expires: number
}

/**
 * What the targets of one sibling are to have: a ledger of leases, which `f2b-deliver` keeps in step
 * with the queue, and which `f2b-sync` makes equal to what Fail2Ban has banned. Its remarks hold the
 * ports and protocols of the jails, and how far the queue has been read: one write keeps all of it.
 */
export class Book {
  readonly #ledger: Ledger
  readonly #owner: string
  readonly namings = new Map<string, Naming>()
  /**
   * Counts the changes; with `#changed`, what has changed since a moment. It begins with the time, so
   * that what another book, or another process, has called a moment is one that is not remembered.
   */
  #turn = Date.now() * 1000
  #changed = new Map<string, number>()
  /** Changes before this turn are not remembered any more. */
  #forgotten = this.#turn
  #position = ''

  constructor(directory: string, sibling: string, owner: string) {
    this.#ledger = openLedger(directory, `${sibling}.wanted`)
    this.#owner = owner
    for (const remark of this.#ledger.remarks()) this.#readRemark(remark)
  }

  /** How far the queue had been read when the book was last written. */
  get position(): string {
    return this.#position
  }

  /** Says that what happens from now on may be told from what happened before. */
  mark(): number {
    return this.#turn
  }

  /** Notes what a line of the queue says; `commit` writes it. */
  take(operation: Operation): void {
    const key = { address: operation.address.text, jail: operation.jail }
    if (operation.verb === 'unban') {
      this.#put(key, RELEASED)
      return
    }
    if (operation.naming) this.name(key.jail, operation.naming)
    const known = this.#row(key)
    const inForce = known !== undefined && alive(known, Date.now() / 1000)
    if (!inForce) this.#put(key, operation.expires)
    else if (!isSameEnd(known, operation.expires)) this.#put(key, later(known, operation.expires))
  }

  /** Notes the ports and protocol of a jail. */
  name(jail: string, naming: Naming): void {
    const known = this.namings.get(jail)
    if (known?.ports === naming.ports && known.protocol === naming.protocol) return
    this.namings.set(jail, naming)
    this.#ledger.remark(namingRemark(jail, naming))
  }

  /**
   * What is to be, given what Fail2Ban has banned: exactly that, but for what lines of the queue have
   * said since `mark`, which is newer than the answer that was asked for then, and for what is not
   * understood, which stays.
   *
   * @returns undefined if too much has happened since: ask again
   */
  merge(truth: Truth, mark: number): Wish[] | undefined {
    if (mark < this.#forgotten) return undefined
    const isNewer = (key: Key): boolean => (this.#changed.get(textOf(key)) ?? 0) > mark
    const now = Date.now() / 1000
    const merged = new Map<string, Wish>()
    for (const leases of [truth.leases, truth.inexact]) {
      for (const { address, jail, expires } of leases) {
        const key = { address: address.text, jail }
        if (isNewer(key) || merged.has(textOf(key))) continue
        const known = this.#row(key)
        const isBetter = leases === truth.inexact && known !== undefined && alive(known, now)
        const same = known !== undefined && (isBetter || isSameEnd(known, expires))
        merged.set(textOf(key), { ...key, expires: same ? known : expires })
      }
    }
    for (const wish of this.living()) {
      const stays = isNewer(wish) || (!merged.has(textOf(wish)) && isKept(truth, wish.jail))
      if (stays) merged.set(textOf(wish), wish)
    }
    return [...merged.values()]
  }

  /** Makes the leases exactly these. @returns those that had to be changed */
  become(wishes: Wish[]): Key[] {
    const wanted = new Set(wishes.map(textOf))
    const ended = [...this.living()].filter((wish) => !wanted.has(textOf(wish)))
    const changed = wishes.filter((wish) => this.#row(wish) !== wish.expires)
    for (const key of ended) this.#put(key, RELEASED)
    for (const wish of changed) this.#put(wish, wish.expires)
    return [...ended, ...changed]
  }

  /** When the lease is to end; RELEASED (or another moment that has passed) if it is not wanted. */
  wants({ address, jail }: Key): number {
    return this.#row({ address, jail }) ?? RELEASED
  }

  /** True if it was ever told of the lease, wanted or given back. */
  knows(key: Key): boolean {
    return this.#row(key) !== undefined
  }

  /** Everything that is wanted, and everything that was and has been given back. */
  *keys(): Generator<Key> {
    const now = Date.now() / 1000
    for (const { address, jail } of this.#ledger.living(now)) yield { address, jail }
    for (const { address, jail, expires } of this.#ledger.ended(now)) {
      if (expires === RELEASED) yield { address, jail }
    }
  }

  /** Everything that is wanted. */
  *living(): Generator<Wish> {
    for (const { address, jail, expires } of this.#ledger.living(Date.now() / 1000)) {
      yield { address, jail, expires }
    }
  }

  /** Forces to the disk what was noted, and how far the queue was read. @throws Failure 75 */
  commit(position: string): void {
    if (position !== this.#position) this.#ledger.remark(`read ${position}`)
    this.#ledger.commit()
    this.#ledger.settle()
    this.#position = position
    tidyLedger(this.#ledger, () => [
      ...[...this.namings].map(([jail, naming]) => `# ${namingRemark(jail, naming)}`),
      `# read ${this.#position}`,
    ])
  }

  #put(key: Key, expires: number): void {
    this.#ledger.put({ address: key.address, jail: key.jail, owner: this.#owner, expires })
    this.#turn++
    this.#changed.delete(textOf(key))
    this.#changed.set(textOf(key), this.#turn)
    if (this.#changed.size <= REMEMBERED) return
    for (const [text, turn] of this.#changed) {
      if (this.#changed.size <= REMEMBERED / 2) break
      this.#changed.delete(text)
      this.#forgotten = turn
    }
  }

  #row({ address, jail }: Key): number | undefined {
    return this.#ledger.held(address).find((row) => row.jail === jail && row.owner === this.#owner)
      ?.expires
  }

  #readRemark(remark: string): void {
    const [word, ...rest] = remark.replace(/^# ?/, '').split(' ')
    if (word === 'read') this.#position = rest.join(' ')
    const [jail, ports, protocol] = rest
    if (word === 'naming' && jail && ports && protocol) this.namings.set(jail, { ports, protocol })
  }
}

/** Opens a ledger of the delivery, with its directory, and reads it. @throws Failure 75 */
export function openLedger(directory: string, name: string): Ledger {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw ioFailure(`make "${directory}"`, error)
  }
  const ledger = new Ledger(join(directory, name))
  ledger.refresh()
  return ledger
}

/** Rewrites a ledger of which most has ended. */
export function tidyLedger(ledger: Ledger, remarks: () => string[]): void {
  if (ledger.size < WORTH_COMPACTING) return
  const now = Date.now() / 1000
  const lines = Array.from(ledger.living(now)).length
  if (ledger.size > WORTH_COMPACTING + 2 * 64 * lines) ledger.compact(now, remarks())
}

export function textOf({ address, jail }: Key): string {
  return `${address} ${jail}`
}

function namingRemark(jail: string, { ports, protocol }: Naming): string {
  return `naming ${jail} ${ports} ${protocol}`
}
