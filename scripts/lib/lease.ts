import { type Address, parseAddress } from './address.ts'
import { EXIT, Failure } from './failure.ts'

/**
 * A ban with an end: the unit that every part of this project remembers and passes on.
 * `expires` is in epoch seconds; 0 means that the lease never ends by itself.
 */
export interface Lease {
  readonly address: Address
  readonly jail: string
  readonly expires: number
  readonly owner: string
}

/** What `list` prints for a lease of no particular jail, and the default of `--name`. */
export const NO_JAIL = '-'

const JAIL = /^[A-Za-z0-9_.:@-]{1,64}$/
const OWNER = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/
const MOMENT = /^(0|[1-9]\d{0,11})$/

/** @throws Failure 65 unless it is a jail name: 1 to 64 of `A-Z a-z 0-9 _ . : @ -` */
export function checkJail(name: string): string {
  if (!JAIL.test(name)) throw new Failure(EXIT.input, `Cannot read jail name ${quote(name)}`)
  return name
}

/** The jail of a chain as it is named on the wire. @throws Failure 65 unless `fail2ban-<jail>` */
export function jailOf(chain: string): string {
  if (!chain.startsWith('fail2ban-')) {
    throw new Failure(EXIT.input, `Cannot use chain ${quote(chain)}: it must be fail2ban-<jail>`)
  }
  return checkJail(chain.slice('fail2ban-'.length))
}

/** @throws Failure 65 unless it is an owner: a short host name */
export function checkOwner(name: string): string {
  if (!OWNER.test(name)) throw new Failure(EXIT.input, `Cannot read owner ${quote(name)}`)
  return name
}

/** Reads a moment in epoch seconds. @throws Failure 65 */
export function parseExpires(text: string): number {
  if (!MOMENT.test(text)) throw new Failure(EXIT.input, `Cannot read expiry ${quote(text)}`)
  return Number(text)
}

/**
 * When a ban ends. Fail2Ban rounds the time of a ban for its database (database.py, addBan), and so
 * after a restart: so do we, or a restored ban would end at another time than it did before.
 *
 * @param began epoch seconds, fractions allowed (Fail2Ban's `<time>`)
 * @param seconds ban time (Fail2Ban's `<bantime>`); negative means never
 */
export function expiry(began: number, seconds: number): number {
  return seconds < 0 ? 0 : Math.round(began) + seconds
}

/** True if two ends are those of the same ban, once with its time rounded and once cut off. */
export function isSameEnd(a: number, b: number): boolean {
  return a === b || (a !== 0 && b !== 0 && Math.abs(a - b) <= 1)
}

/** Now, in whole epoch seconds. */
export function now(): number {
  return Math.floor(Date.now() / 1000)
}

/** True while the lease is in force. */
export function alive(expires: number, at: number): boolean {
  return expires === 0 || expires > at
}

/** The later of two ends; 0 is later than any. */
export function later(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : Math.max(a, b)
}

/** The leases of each jail. */
export function byJail(leases: readonly Lease[]): Map<string, readonly Lease[]> {
  const [first] = leases
  // A long list is most often about one jail: then there is nothing to sort or to copy.
  if (first && leases.every(({ jail }) => jail === first.jail)) {
    return new Map([[first.jail, leases]])
  }
  const groups = new Map<string, Lease[]>()
  for (const lease of leases) {
    const group = groups.get(lease.jail)
    if (group) group.push(lease)
    else groups.set(lease.jail, [lease])
  }
  return groups
}

/** `<address> <jail> <expires> <owner>` */
export function formatLease(lease: Lease): string {
  return `${lease.address.text} ${lease.jail} ${lease.expires} ${lease.owner}`
}

/**
 * Reads a line that `list` printed.
 *
 * @param owner whose lease it becomes, whatever owner the line names
 * @throws Failure 65
 */
export function parseLease(line: string, owner: string): Lease {
  const plain = parsePlain(line, owner)
  if (plain) return plain
  const [address = '', jail = '', expires = '', named, ...rest] = line.trim().split(/[ \t]+/)
  if (rest.length > 0) throw new Failure(EXIT.input, 'Cannot read lease: more than four words')
  if (named !== undefined) checkOwner(named)
  return {
    address: parseAddress(address),
    jail: checkJail(jail),
    expires: parseExpires(expires),
    owner,
  }
}

/** A line as `list` prints it, one blank between its words: a sync has 100,000 of them. */
function parsePlain(line: string, owner: string): Lease | undefined {
  const first = line.indexOf(' ')
  const second = line.indexOf(' ', first + 1)
  const third = line.indexOf(' ', second + 1)
  if (first < 1 || second < 0 || line.includes('\t')) return undefined
  if (third >= 0 && !OWNER.test(line.slice(third + 1))) return undefined
  const jail = line.slice(first + 1, second)
  const expires = line.slice(second + 1, third < 0 ? line.length : third)
  if (!JAIL.test(jail) || !MOMENT.test(expires)) return undefined
  return { address: parseAddress(line.slice(0, first)), jail, expires: Number(expires), owner }
}

/** A value as it may stand in a message: quoted, one line, not endless. */
export function quote(value: string): string {
  return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value)
}
