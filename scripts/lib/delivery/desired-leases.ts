import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { ioFailure } from '../failure.ts'
import { alive, isSameEnd, later, now } from '../lease.ts'
import { Ledger, LOOK_ONLY, RELEASED, type Style } from '../ledger.ts'
import type { Naming } from '../ports.ts'
import { type Fail2BanBans, isKept } from './fail2ban-bans.ts'
import type { Operation } from './operation.ts'

/** So many changes are remembered for a sync that began before them. */
const REMEMBERED = 200_000

/** So many leases may be released at once without doubt. */
const FEW = 20

/** Seconds after which the same doubtful answer is believed, and after which it is a new one. */
const DOUBT = 50
const FORGET = 600

/** Whose a lease is that a person bans; no server has such a name. */
const BY_HAND = '-'

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
export class DesiredLeases {
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
  /** The Fail2Ban that was last asked; empty if none was. */
  #asked = ''
  /** Since when most of the leases are said to be over; 0 if they are not. */
  #doubtful = 0

  /** @param style `LOOK_ONLY` for a process that has no lock and changes nothing */
  constructor(directory: string, sibling: string, owner: string, style?: Style) {
    this.#ledger = openLedger(directory, `${sibling}.wanted`, style)
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

  /** Notes what a line of the queue says; `commit` writes it. @returns the leases that it is about */
  take(operation: Operation): Key[] {
    if (operation.verb === 'release-all') return this.#releaseAll(operation.jail)
    const key = { address: operation.address.text, jail: operation.jail }
    if (operation.verb === 'unban') this.#put(key, RELEASED)
    else if (operation.verb === 'release') this.#release(key)
    else {
      const { verb, naming, expires } = operation
      const isNew = verb === 'ban' || !this.namings.has(key.jail)
      if (naming && isNew) this.name(key.jail, naming)
      this.#extend(key, expires, verb === 'ban' ? this.#owner : BY_HAND)
    }
    return [key]
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
  merge(truth: Fail2BanBans, mark: number): Wish[] | undefined {
    if (mark < this.#forgotten) return undefined
    const isNewer = (key: Key): boolean => (this.#changed.get(textOf(key)) ?? 0) > mark
    const at = now()
    const merged = new Map<string, Wish>()
    for (const leases of [truth.leases, truth.inexact]) {
      for (const { address, jail, expires } of leases) {
        const key = { address: address.text, jail }
        if (isNewer(key) || merged.has(textOf(key))) continue
        const known = this.#row(key)
        const isBetter = leases === truth.inexact && known !== undefined && alive(known, at)
        const same = known !== undefined && (isBetter || isSameEnd(known, expires))
        merged.set(textOf(key), { ...key, expires: same ? known : expires })
      }
    }
    for (const wish of this.#living(this.#owner)) {
      const stays = isNewer(wish) || (!merged.has(textOf(wish)) && isKept(truth, wish.jail))
      if (stays) merged.set(textOf(wish), wish)
    }
    return [...merged.values()]
  }

  /**
   * Makes the leases exactly these; what a person bans by hand stays.
   *
   * @returns those that had to be changed
   */
  become(wishes: Wish[]): Key[] {
    const ended = this.#without(wishes)
    const changed = wishes.filter((wish) => this.#row(wish) !== wish.expires)
    for (const key of ended) this.#put(key, RELEASED)
    for (const wish of changed) this.#put(wish, wish.expires)
    return [...ended, ...changed]
  }

  /** When the lease is to end; RELEASED (or another moment that has passed) if it is not wanted. */
  wants({ address, jail }: Key): number {
    return endIn(this.#ledger, this.#owner, { address, jail }) ?? RELEASED
  }

  /** True if it was ever told of the lease, wanted or given back. */
  knows(key: Key): boolean {
    return endIn(this.#ledger, this.#owner, key) !== undefined
  }

  /** The jails that it was ever told of for an address. */
  jailsOf(address: string): string[] {
    const rows = this.#ledger.held(address)
    return rows.filter(({ owner }) => [this.#owner, BY_HAND].includes(owner)).map((row) => row.jail)
  }

  /** Everything that is wanted, and everything that was and has been given back. */
  *keys(): Generator<Key> {
    const at = now()
    for (const { address, jail } of this.#ledger.living(at)) yield { address, jail }
    for (const { address, jail, expires } of this.#ledger.ended(at)) {
      if (expires === RELEASED) yield { address, jail }
    }
  }

  /** Everything that is wanted. */
  *living(): Generator<Wish> {
    yield* this.withHeld([...this.#living(this.#owner)])
  }

  /** The same, and what a person bans by hand. */
  withHeld(wishes: Wish[]): Wish[] {
    const held = [...this.#living(BY_HAND)]
    if (held.length === 0) return wishes
    const all = new Map(wishes.map((wish) => [textOf(wish), wish]))
    for (const wish of held) {
      const known = all.get(textOf(wish))
      all.set(textOf(wish), known ? { ...wish, expires: later(known.expires, wish.expires) } : wish)
    }
    return [...all.values()]
  }

  /**
   * Holds back a release of more than half of what Fail2Ban has banned here, until it has been asked
   * for during a minute: should an answer be wrong for once, it frees no address.
   *
   * @param wishes what Fail2Ban says
   * @param sure whether it was told to release, or has been started since
   * @returns what to do now, and how many leases are held back
   */
  believe(wishes: Wish[], instance: string, sure: boolean): { wishes: Wish[]; heldBack: number } {
    const isSure = sure || (this.#asked !== '' && this.#asked !== instance)
    if (this.#asked !== instance) this.#remark(`asked ${instance}`)
    const ended = this.#without(wishes)
    const isMass = ended.length > FEW && 2 * ended.length > [...this.#living(this.#owner)].length
    const at = now()
    const age = at - this.#doubtful
    if (isMass && !isSure && (age < DOUBT || age > FORGET)) {
      if (age > FORGET) this.#remark(`doubtful ${at}`)
      const back = ended.map((key): Wish => ({ ...key, expires: this.#row(key) ?? RELEASED }))
      return { wishes: [...wishes, ...back], heldBack: ended.length }
    }
    if (this.#doubtful !== 0) this.#remark('doubtful 0')
    return { wishes, heldBack: 0 }
  }

  /** Forces to the disk what was noted, and how far the queue was read. @throws Failure 75 */
  commit(position: string): void {
    if (position !== this.#position) this.#ledger.remark(`read ${position}`)
    this.#ledger.commit()
    this.#ledger.settle()
    this.#position = position
    this.#ledger.tidy(now(), () => [
      ...(this.#asked ? [`# asked ${this.#asked}`] : []),
      `# doubtful ${this.#doubtful}`,
      ...[...this.namings].map(([jail, naming]) => `# ${namingRemark(jail, naming)}`),
      `# read ${this.#position}`,
    ])
  }

  *#living(owner: string): Generator<Wish> {
    for (const line of this.#ledger.living(now())) {
      const { address, jail, expires } = line
      if (line.owner === owner) yield { address, jail, expires }
    }
  }

  /** What is in force for Fail2Ban, and not among these. */
  #without(wishes: Wish[]): Key[] {
    const wanted = new Set(wishes.map(textOf))
    return [...this.#living(this.#owner)].filter((wish) => !wanted.has(textOf(wish)))
  }

  #extend(key: Key, expires: number, owner: string): void {
    const known = this.#row(key, owner)
    const inForce = known !== undefined && alive(known, now())
    if (!inForce) this.#put(key, expires, owner)
    else if (!isSameEnd(known, expires)) this.#put(key, later(known, expires), owner)
  }

  #release(key: Key): void {
    this.#put(key, RELEASED)
    if (this.#row(key, BY_HAND) !== undefined) this.#put(key, RELEASED, BY_HAND)
  }

  #releaseAll(jail: string | undefined): Key[] {
    const keys = [...this.living()].filter((wish) => jail === undefined || wish.jail === jail)
    for (const key of keys) this.#release(key)
    return keys
  }

  #put(key: Key, expires: number, owner = this.#owner): void {
    this.#ledger.put({ address: key.address, jail: key.jail, owner, expires })
    if (owner === BY_HAND) return
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

  #row(key: Key, owner = this.#owner): number | undefined {
    return rowIn(this.#ledger, owner, key)
  }

  #remark(text: string): void {
    this.#ledger.remark(text)
    this.#readRemark(text)
  }

  #readRemark(remark: string): void {
    const [word, ...rest] = remark.replace(/^# ?/, '').split(' ')
    if (word === 'read') this.#position = rest.join(' ')
    if (word === 'asked') this.#asked = rest[0] ?? ''
    if (word === 'doubtful') this.#doubtful = Number(rest[0])
    const [jail, ports, protocol] = rest
    if (word === 'naming' && jail && ports && protocol) this.namings.set(jail, { ports, protocol })
  }
}

/** When a lease is to end, for Fail2Ban or by hand; undefined if the ledger does not know it. */
function endIn(ledger: Ledger, owner: string, key: Key): number | undefined {
  const [own, held] = [rowIn(ledger, owner, key), rowIn(ledger, BY_HAND, key)]
  if (own === undefined || held === undefined) return own ?? held
  const at = now()
  if (!alive(held, at)) return own
  return alive(own, at) ? later(own, held) : held
}

function rowIn(ledger: Ledger, owner: string, { address, jail }: Key): number | undefined {
  const row = ledger.held(address).find((one) => one.jail === jail && one.owner === owner)
  return row?.expires
}

/** Opens a ledger of the delivery, with its directory unless it is only read. @throws Failure 75 */
export function openLedger(directory: string, name: string, style?: Style): Ledger {
  try {
    if (style !== LOOK_ONLY) mkdirSync(directory, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw ioFailure(`make "${directory}"`, error)
  }
  const ledger = new Ledger(join(directory, name), style)
  ledger.refresh()
  return ledger
}

export function textOf({ address, jail }: Key): string {
  return `${address} ${jail}`
}

function namingRemark(jail: string, { ports, protocol }: Naming): string {
  return `naming ${jail} ${ports} ${protocol}`
}
