import { statSync } from 'node:fs'
import {
  type Address,
  canonicalAddress,
  checkBannable,
  isSingle,
  overlaps,
  parseAddress,
} from '../../scripts/lib/address.ts'
import { bannable } from '../../scripts/lib/bannable.ts'
import { latestEach } from '../../scripts/lib/bulk.ts'
import { digestOf } from '../../scripts/lib/digest.ts'
import { appendDurably } from '../../scripts/lib/durable.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { alive, formatLease, later, now } from '../../scripts/lib/lease.ts'
import { Ledger, type Line, RELEASED } from '../../scripts/lib/ledger.ts'
import type { Chain, Contents, Entry } from './backend.ts'
import { isSteady } from './clock.ts'
import type { FirewallConfig } from './config.ts'
import { createLedger, generationRemark } from './generation.ts'
import { withPeer } from './never.ts'
import { superseded } from './order.ts'
import { Owners } from './owners.ts'
import type { Paths } from './paths.ts'
import { Register } from './register.ts'
import type { Request, Said } from './request.ts'
import { Usage } from './usage.ts'
import { widthOf } from './widths.ts'

/** A ledger is rewritten when it has twice its size after the last time, and so many bytes. */
const ROOM = 8_000_000

/** So many bytes of a ledger are parsed, and so many of its leases changed, before one could wait for it. */
const SMALL = 500_000

/** What a lease costs in the ledger at most, as a rule, bytes. */
const LEASE = 50

/** Kernel and ledger may disagree for a moment about what is just ending, seconds. */
export const SLACK = 3

/** Two clocks that differ by no more than so many seconds agree: a command may be so long on its way. */
const AGREE = 30

/** Seconds by which a clock must differ to be spoken of. */
const WRONG = 60

/** Says that the whole ledger has to be parsed, which takes too long to be done under the lock. */
export class Unread extends Error {}

/**
 * Many changes of one owner's leases, which are carried out in pieces so that other owners come in
 * between: first what is banned, then what is freed, so that nobody is free in between.
 */
export interface Plan {
  readonly lines: readonly Line[]
  readonly begin: () => void
  readonly end: () => string[]
  /** What it came to, once it is over. */
  answer?: string[]
}

/** Who asks: the owner that the key stands for, and the address it came from. */
export interface Caller {
  owner: string
  peer: string | undefined
}

/**
 * Who holds what, until when, and on which ports: the ledger with its remarks, and the rules for
 * changing it. Knows nothing of the kernel; what has changed is in `touched` and `loads`.
 * Everything that changes something happens under the firewall's lock, between `open` and `settle` or
 * `revert`. What only looks may go on without it, and sees what there was at the last `open`.
 */
export class Books {
  readonly #config: FirewallConfig
  readonly #paths: Paths
  readonly #caller: Caller
  readonly #ledger: Ledger
  readonly usage: Usage
  #register = new Register()
  #owners = new Owners([], () => {})
  /** The moment that everything is judged at, epoch seconds. */
  at = 0
  /** What nobody may ban here. */
  never: Address[] = []
  /** And what this owner may not. */
  #ownNever: readonly Address[] = []
  /** Addresses per jail whose block may have to change. */
  readonly touched = new Map<string, Map<string, Address>>()
  /** Jails that are loaded as a whole, because they look for fewer prefix lengths. */
  readonly loads = new Set<string>()
  /** What other processes have changed since `watch`. */
  #news: Line[] | undefined
  #isLocked = false
  /** The latest ends before they were changed, by address and jail. */
  readonly #before = new Map<string, number | undefined>()
  /** One line for the journal for each thing done. */
  readonly log: string[] = []

  constructor(config: FirewallConfig, paths: Paths, caller: Caller) {
    this.#config = config
    this.#paths = paths
    this.#caller = caller
    this.usage = new Usage(paths.run)
    this.#ledger = new Ledger(paths.ledger, undefined, (bytes) => {
      if (this.#isLocked && bytes > SMALL) throw new Unread('the ledger is large')
    })
  }

  /** Reads everything without the lock, so that a walk through every lease finds it parsed under it. */
  study(): void {
    this.#ledger.study()
  }

  /** The same, and looks for what nobody can read, for `mend`. */
  examine(): void {
    this.#ledger.study()
    this.#ledger.unreadable()
  }

  /** Collects what other processes change from now on. */
  watch(): void {
    this.#news = []
  }

  /** What they have changed; nothing more is collected. */
  news(): Line[] {
    const news = this.#news ?? []
    this.#news = undefined
    return news
  }

  /**
   * Reads what others wrote since. A missing ledger was lost, since setup makes one.
   *
   * @param never what `neverHere` found, which needs no lock
   */
  open(never: readonly Address[]): void {
    this.at = now()
    this.#isLocked = true
    checkTrusted(this.#paths.ledger)
    this.#ledger.refresh(this.#news && ((line) => this.#news?.push(line)))
    if (!this.#ledger.exists) {
      createLedger(this.#paths.ledger, true)
      this.#ledger.refresh()
    }
    this.#readRegister()
    if (this.#register.generation === '') {
      this.#ledger.remark(generationRemark(true))
      this.#ledger.commit()
      this.#ledger.settle()
      this.#readRegister()
    }
    this.usage.load(this.#ledger, this.at)
    const { owner, peer } = this.#caller
    if (peer !== undefined) this.#owners.note(owner, { peer })
    this.never = [...never]
    this.#ownNever = withPeer(never, this.#owners.of(owner).peer)
  }

  /**
   * Puts lines aside that nobody can read, for a person to look at. What they said is lost here: a new
   * generation begins, so that every server sends its leases again. What can be read stays in force.
   *
   * @throws Failure 75 if it cannot be written
   */
  mend(): void {
    const bad = this.#ledger.unreadable()
    if (bad.length === 0) return
    const aside = `${this.#paths.ledger}.damaged`
    appendDurably(aside, Buffer.from(bad.map((line) => `${line}\n`).join(''), 'latin1'))
    const remarks = this.#register.remarks(this.#ledger.remarks())
    const others = this.#owners
      .remarks(remarks)
      .filter((line) => !/^# (generation|synced) /.test(line))
    this.#ledger.compact(RELEASED, [`# ${generationRemark(true)}`, ...others], true)
    this.#readRegister()
    const what = `the ledger was damaged: what cannot be read of it (${bad.length} lines) is in ${aside}`
    this.log.push(`${what}, and every server has to send its leases again`)
  }

  /** How many leases this owner has in force. */
  get leases(): number {
    return [...this.#mine(undefined)].length
  }

  get generation(): string {
    return this.#register.generation
  }

  /** True while this owner has to send everything again, since the ledger was lost. */
  get needsSync(): boolean {
    return this.#register.needsSync(this.#caller.owner)
  }

  /** The number of this owner's newest session. */
  get session(): number {
    return this.#owners.of(this.#caller.owner).session
  }

  /** Begins a session that takes the place of all with a smaller number. @throws Failure 75 */
  begin(number: number): void {
    if (number <= this.session) throw superseded(this.session)
    this.#owners.note(this.#caller.owner, { session: number })
  }

  /** By how many seconds our clock is ahead of the caller's; negative if it is behind. */
  ahead(said: Said | undefined): number {
    if (!said) return 0
    const { owner } = this.#caller
    const known = this.#owners.of(owner).ahead
    if (Math.abs(said.ahead - known) <= AGREE) return known
    const ahead = Math.abs(said.ahead) <= AGREE ? 0 : said.ahead
    this.#owners.note(owner, { ahead })
    this.log.push(`${owner}: our clock is ${ahead} s ahead of its own`)
    return ahead
  }

  /** What the caller is told about our clock; nothing if it is right to the minute. */
  clock(said: Said | undefined): string[] {
    const ahead = this.ahead(said)
    if (Math.abs(ahead) <= WRONG) return []
    return [`clock ${Math.abs(ahead)} seconds ${ahead > 0 ? 'ahead of' : 'behind'} the server's`]
  }

  ban({ address, jail, naming, expires: end, said }: Request & { verb: 'ban' }): void {
    const { owner } = this.#caller
    checkBannable(address, this.#ownNever, this.#config.min_prefix)
    const expires = moved(end, this.ahead(said))
    if (!alive(expires, this.at)) return
    const own = this.#own(address.text, jail)
    if (!own) this.#checkRoom(1)
    this.#checkWidths([address])
    const latest = own ? later(own.expires, expires) : expires
    this.#register.name(jail, owner, naming)
    this.#register.widths.add(jail, owner, address)
    if (own?.expires !== latest) this.#put({ address: address.text, jail, owner, expires: latest })
    this.usage.noteNewer(owner, `${address.text} ${jail}`)
    this.touch(jail, address)
    this.log.push(`${owner} ban ${address.text} ${jail} until ${endText(latest)}`)
  }

  unban({ address, jail }: Request & { verb: 'unban' }): void {
    const { owner } = this.#caller
    const own = this.#own(address.text, jail)
    if (own) this.#put({ address: address.text, jail, owner, expires: RELEASED })
    this.usage.noteNewer(owner, `${address.text} ${jail}`)
    // Also if it was not banned: an unban that was killed half way is repeated. But what the chain
    // cannot hold needs no telling, and must not make the ledger longer.
    if (this.#register.looksFor(jail, address)) this.touch(jail, address)
    this.log.push(`${owner} unban ${address.text} ${jail}${own ? '' : ': was not banned'}`)
  }

  /** True if so much can be planned and carried out at once, before one could wait for it. */
  isSmall(leases = 0): boolean {
    return this.#ledger.size + leases * LEASE < SMALL
  }

  /**
   * Says that this owner's leases are about to be changed in pieces: what its other processes say
   * meanwhile is noted, so that `step` leaves it as it is.
   */
  announce(): void {
    this.usage.beginPieces(this.#caller.owner)
  }

  /** What is to be done for a request that may change every lease of an owner; it changes nothing yet. */
  plan(request: Request & { verb: 'sync' | 'flush' }): Plan {
    const plan = request.verb === 'sync' ? this.#syncPlan(request) : this.#flushPlan(request)
    const { lines } = plan
    const isHeld = ({ expires }: Line) => expires !== RELEASED
    const sorted = [...lines.filter(isHeld), ...lines.filter((line) => !isHeld(line))]
    return { ...plan, lines: sorted }
  }

  /**
   * Carries out the next so many changes of a plan. What the owner itself has changed since it was
   * made stays as it is: that is newer.
   *
   * @param from where it goes on: 0, then what the last step came to
   * @throws Failure 77, and changes nothing, if the owner may not have so much
   */
  step(plan: Plan, from: number, most: number): number {
    const { owner } = this.#caller
    const newer = new Set(this.usage.newer(owner))
    if (from === 0) plan.begin()
    const piece = plan.lines.slice(from, from + most)
    for (const line of piece) {
      if (newer.has(`${line.address} ${line.jail}`)) continue
      this.#put(line)
      this.#touchText(line.jail, line.address)
    }
    const next = from + piece.length
    if (next < plan.lines.length) {
      this.announce()
    } else {
      plan.answer = plan.end()
      this.usage.endPieces(owner)
    }
    return next
  }

  #flushPlan({ jail, but }: Request & { verb: 'flush' }): Pick<Plan, 'lines' | 'begin' | 'end'> {
    const { owner } = this.#caller
    const lines = Array.from(this.#mine(jail, but), (line) => ({ ...line, expires: RELEASED }))
    const end = (): string[] => {
      const used = new Set(Array.from(this.#mine(jail, but), (line) => line.jail))
      for (const name of this.#register.jailsOf(owner)) {
        const meant = jail === undefined ? !but?.has(name) : jail === name
        if (meant && !used.has(name)) this.#register.unname(name, owner)
      }
      if (jail === undefined) this.#register.markSynced(owner)
      const what = jail ?? (but ? 'all other jails' : 'all jails')
      if (!but || lines.length > 0) this.log.push(`${owner} flush ${what}: ${lines.length} leases`)
      return but ? [`removed ${lines.length}`] : []
    }
    return { lines, begin: () => {}, end }
  }

  list(jail: string | undefined, said?: Said): string[] {
    const ahead = this.ahead(said)
    return [...this.#mine(jail)].flatMap((line) => {
      const address = canonicalAddress(line.address)
      const expires = moved(line.expires, -ahead)
      return address ? [formatLease({ ...line, address, expires })] : []
    })
  }

  /**
   * Whether an address is blocked, until when, and in which range, but not by whom: a server may know
   * that much of what others ban. Of what is blocked inside of a range, only the latest end is told.
   */
  blocked(address: Address): string[] {
    const isFree = isSingle(address) && this.never.some((never) => overlaps(never, address))
    if (isFree) return []
    const widths = new Set(this.chains().flatMap((chain) => chain.widths))
    const prefixes = [...widths].flatMap((width) => {
      const [family, prefix] = width.split('/')
      return family === address.family && Number(prefix) < address.prefix ? [prefix] : []
    })
    const host = address.text.replace(/\/.*/, '')
    const around = prefixes.map((prefix) => parseAddress(`${host}/${prefix}`).text).sort()
    const found = [...around, address.text].flatMap((text) => {
      const end = latestEnd(this.#ledger.held(text), this.at)
      return end === undefined ? [] : [`${text} ${end}`]
    })
    if (isSingle(address)) return found
    const inside = latestEnd(this.#inside(address), this.at)
    return inside === undefined ? found : [...found, `partly ${inside}`]
  }

  /** Tells what the owner has, without listing it. */
  digest(said?: Said): string {
    const { owner } = this.#caller
    const ahead = this.ahead(said)
    const namingOf = (jail: string) => this.#register.namingOf(jail, owner)
    const mine = this.#mine(undefined)
    if (ahead === 0) return digestOf(mine, namingOf, this.at)
    const told = Array.from(mine, (line) => ({ ...line, expires: moved(line.expires, -ahead) }))
    return digestOf(told, namingOf, this.at - ahead)
  }

  #syncPlan(request: Request & { verb: 'sync' }): Pick<Plan, 'lines' | 'begin' | 'end'> {
    const { jail, naming, leases, said } = request
    const { owner } = this.#caller
    const ahead = this.ahead(said)
    const own = leases.map((lease) => ({ ...lease, expires: moved(lease.expires, ahead) }))
    const { wanted, refused } = this.#wanted(ahead === 0 ? leases : own)
    const lines = wanted.map(
      (e): Line => ({ address: e.address.text, jail, expires: e.expires, owner }),
    )
    const difference = this.#ledger.diff(owner, jail, lines, this.at)
    const { changes, added, extended, removed, unchanged } = difference
    const begin = (): void => {
      this.#checkRoom(added - removed)
      const addresses = wanted.map(({ address }) => address)
      this.#checkWidths(addresses, jail)
      if (wanted.length > 0) this.#register.name(jail, owner, naming)
      for (const address of addresses) this.#register.widths.add(jail, owner, address)
    }
    const end = (): string[] => {
      this.#register.markSynced(owner)
      const text = `added ${added}, extended ${extended}, removed ${removed}, unchanged ${unchanged}`
      if (changes.length > 0) this.log.push(`${owner} sync ${jail}: ${text}`)
      return [refused > 0 ? `${text}, refused ${refused}` : text]
    }
    return { lines: changes, begin, end }
  }

  /** Says that an address of a jail may have another end now, or none. */
  touch(jail: string, address: Address): void {
    const addresses = this.touched.get(jail)
    if (addresses) addresses.set(address.text, address)
    else this.touched.set(jail, new Map([[address.text, address]]))
  }

  /** Touches every lease that has ended, for a kernel that cannot end it by itself. */
  touchEnded(): void {
    for (const { address, jail } of this.#ledger.ended(this.at)) {
      if (this.#register.has(jail)) this.#touchText(jail, address)
    }
  }

  /** Touches every lease that ends after a moment. */
  touchLong(moment: number): void {
    for (const { address, jail, expires } of this.#ledger.living(this.at)) {
      if (expires > moment) this.#touchText(jail, address)
    }
  }

  chains(): Chain[] {
    return this.#register.chains()
  }

  /** Everything that the kernel should hold. Walks the whole ledger. */
  contents(at = this.at): Contents {
    const entries = new Map<string, Entry>()
    for (const line of this.#ledger.living(at)) {
      const { jail, expires } = line
      const key = `${line.address} ${jail}`
      const known = entries.get(key)
      const address = known?.address ?? canonicalAddress(line.address)
      if (!address) continue
      if (known) known.expires = later(known.expires, expires)
      else entries.set(key, { address, jail, expires })
      this.#adopt(line, address)
    }
    return { chains: this.chains(), entries: [...entries.values()], never: this.never }
  }

  /** The latest end of any owner's lease before and after, undefined where nobody holds it. */
  ends(address: string, jail: string): { before: number | undefined; now: number | undefined } {
    const end = this.#latest(address, jail)
    const key = `${address} ${jail}`
    return { before: this.#before.has(key) ? this.#before.get(key) : end, now: end }
  }

  /** The jails that hold an address. */
  jailsWith(address: string): string[] {
    const rows = this.#ledger.held(address).filter((row) => alive(row.expires, this.at))
    return rows.map((row) => row.jail)
  }

  /** Puts everything on the disk. @throws Failure 75 */
  commit(): void {
    this.#ledger.commit()
  }

  /** Says that the kernel has it too. */
  settle(): void {
    this.#ledger.settle()
    this.usage.save(this.#ledger)
    this.clear()
  }

  /** Says that the kernel has what is on the disk, and goes on. */
  noteClean(): void {
    this.usage.save(this.#ledger)
  }

  /** Takes everything back, because the kernel does not have it. */
  revert(): void {
    this.#ledger.revert()
    this.#readRegister()
    this.usage.recount(this.#ledger, this.at)
    // What failed has cost us as much: it counts toward what an owner may do in a minute. And who
    // knows what of it the kernel has done: the next one looks.
    this.usage.begin()
    this.clear()
  }

  /** Lets go of what was read; it is read again when it is needed. */
  forget(): void {
    this.#ledger.forget()
  }

  clear(): void {
    this.touched.clear()
    this.loads.clear()
    this.#before.clear()
  }

  /** Forgets what was begun and not committed, to begin again. */
  discard(): void {
    this.#ledger.discard()
    this.log.length = 0
  }

  /** Says that the lock is about to be released: what is asked now may take its time. */
  close(): void {
    this.clear()
    this.#isLocked = false
  }

  /** True if a rewrite is worth it: most of the ledger is over, and no churn shall fill the disk. */
  get isLarge(): boolean {
    return this.#ledger.size > 2 * this.usage.compacted + ROOM
  }

  /**
   * Prepares a rewrite of the ledger without what has ended, which needs no lock.
   *
   * @returns what does it, under the lock
   */
  compacting(): () => void {
    const remarks = this.#owners.remarks(this.#register.remarks(this.#ledger.remarks()))
    const compact = this.#ledger.compacting(this.#forgotten, remarks)
    return () => {
      compact()
      this.usage.compacted = this.#ledger.size
      this.usage.save(this.#ledger)
    }
  }

  /** How many lines a rewrite would leave out. */
  get ended(): number {
    return [...this.#ledger.ended(this.#forgotten)].length
  }

  /** What ended before is forgotten; with a clock that may be wrong only what was given back. */
  get #forgotten(): number {
    return isSteady(this.#paths.run) ? this.at : RELEASED
  }

  /** What this owner holds, in a jail or in all `but` some. */
  *#mine(jail: string | undefined, but?: ReadonlySet<string>): Generator<Line> {
    for (const line of this.#ledger.living(this.at)) {
      if (line.owner !== this.#caller.owner || but?.has(line.jail)) continue
      if (jail === undefined || line.jail === jail) yield line
    }
  }

  /** What anybody holds of a part of a range. */
  *#inside(range: Address): Generator<Line> {
    for (const line of this.#ledger.living(this.at)) {
      const address = canonicalAddress(line.address)
      if (address && address.prefix > range.prefix && overlaps(address, range)) yield line
    }
  }

  #own(address: string, jail: string): { expires: number } | undefined {
    const rows = this.#ledger.held(address)
    const row = rows.find((r) => r.jail === jail && r.owner === this.#caller.owner)
    return row && alive(row.expires, this.at) ? row : undefined
  }

  #latest(address: string, jail: string, at = this.at): number | undefined {
    return latestEnd(
      this.#ledger.held(address).filter((row) => row.jail === jail),
      at,
    )
  }

  #noteEnd(address: string, jail: string): void {
    const key = `${address} ${jail}`
    // The kernel may hold for a moment what has just ended, and keep that end when it is added again.
    if (!this.#before.has(key)) this.#before.set(key, this.#latest(address, jail, this.at - SLACK))
  }

  #put(line: Line): void {
    this.#noteEnd(line.address, line.jail)
    const was = this.#own(line.address, line.jail) !== undefined
    const is = alive(line.expires, this.at)
    if (was !== is) this.usage.add(line.owner, is ? 1 : -1)
    this.#ledger.put(line)
  }

  #readRegister(): void {
    const note = (remark: string) => this.#ledger.remark(remark)
    const remarks = this.#ledger.remarks()
    this.#register = new Register(remarks, note)
    this.#owners = new Owners(remarks, note)
  }

  /** Gives a lease that somebody wrote into the ledger by hand the chain that it needs. */
  #adopt({ jail, owner, expires }: Line, address: Address): void {
    if (!alive(expires, this.at)) return
    this.#register.adopt(jail, owner)
    this.#register.widths.add(jail, owner, address)
  }

  #touchText(jail: string, text: string): void {
    const address = canonicalAddress(text)
    if (address) this.touch(jail, address)
  }

  #checkRoom(more: number): void {
    const { owner } = this.#caller
    const max = this.#config.max_leases
    if (more <= 0 || this.usage.leases(owner) + more <= max) return
    // The count includes leases that have ended by themselves; count exactly before refusing.
    this.usage.recount(this.#ledger, this.at)
    if (this.usage.leases(owner) + more <= max) return
    throw new Failure(EXIT.refused, `max_leases ${max} reached: no room for more of "${owner}"`)
  }

  /**
   * Makes room for ranges of other lengths than this owner has.
   *
   * @param replaced the jail whose leases they replace
   * @throws Failure 77 if there is none
   */
  #checkWidths(addresses: Address[], replaced?: string): void {
    const { owner } = this.#caller
    if (this.#register.widths.fits(owner, addresses)) return
    // What is noted may have ended; look at what is held before refusing.
    const held = new Map<string, Set<string>>()
    for (const { address: text, jail } of this.#mine(undefined)) {
      const address = text.includes('/') && jail !== replaced && canonicalAddress(text)
      if (!address) continue
      held.set(jail, (held.get(jail) ?? new Set<string>()).add(widthOf(address)))
    }
    const shrunk = this.#register.widths.keep(owner, held, addresses)
    for (const jail of shrunk) this.loads.add(jail)
  }

  /** What of a sync is to be held: the longest of each address, without what nobody may ban. */
  #wanted(leases: Entry[]): { wanted: Entry[]; refused: number } {
    const mayBan = bannable(this.#ownNever, this.#config.min_prefix)
    const living = latestEach(leases.filter(({ expires }) => alive(expires, this.at)))
    const wanted = living.filter(({ address }) => mayBan(address))
    return { wanted, refused: living.length - wanted.length }
  }
}

/** Whoever could write the ledger would say who is blocked. @throws Failure 78 */
function checkTrusted(path: string): void {
  const stat = statSync(path, { throwIfNoEntry: false })
  if (!stat || stat.uid === process.getuid?.()) return
  const text = `Cannot trust "${path}": it belongs to user ${stat.uid}, not to root (chown root it)`
  throw new Failure(EXIT.config, text)
}

/** An end by a clock that shows so many seconds more. */
function moved(expires: number, seconds: number): number {
  return expires === 0 ? 0 : Math.max(RELEASED, expires + seconds)
}

/** The latest end of those that are in force; undefined if none is. */
function latestEnd(rows: Iterable<{ expires: number }>, at: number): number | undefined {
  let latest: number | undefined
  for (const { expires } of rows) {
    if (alive(expires, at)) latest = latest === undefined ? expires : later(latest, expires)
  }
  return latest
}

function endText(expires: number): string {
  return expires === 0 ? 'unbanned' : `${new Date(expires * 1000).toISOString().slice(0, 19)}Z`
}
