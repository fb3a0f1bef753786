import { type Address, checkBannable, parseBanned } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { checkJail, expiry, parseExpires, quote } from '../lease.ts'
import { RELEASED } from '../ledger.ts'
import { type Naming, readNaming } from '../ports.ts'
import type { Config } from '../settings/schema.ts'
import { wordsOf } from './queue.ts'
import { banKey, type Refused } from './rejected.ts'

/**
 * What a line of a queue asks for. Fail2Ban bans and unbans; a person holds, and releases also what
 * Fail2Ban has banned.
 */
export type Operation =
  | ({ verb: 'ban' } & Banned)
  | ({ verb: 'hold' } & Banned)
  | { verb: 'unban'; address: Address; jail: string }
  | { verb: 'release'; address: Address; jail: string }
  | { verb: 'release-all'; jail: string | undefined }

interface Banned {
  address: Address
  jail: string
  expires: number
  naming: Naming | undefined
}

/**
 * Reads what an action line wrote: `ban|<ip>|<jail>|<time>|<bantime>[|<ports>|<protocol>]|.` or
 * `unban|<ip>|<jail>|.`; or a command: `hold` like `ban`, `release` like `unban`, or
 * `release-all[|<jail>]|.`
 *
 * @param never what may never be banned
 * @returns undefined for a line that a full disk cut off: its action line failed
 * @throws Failure 65 for a line that can never work
 */
export function parseOperation(
  line: string,
  never: Address[],
  prefixes: Config['min_prefix'],
): Operation | undefined {
  const words = wordsOf(line)
  if (!words) return undefined
  const [verb, ip = '', name = '', ...rest] = words
  if (verb === 'release-all' && words.length <= 2) {
    return { verb, jail: words.length === 1 ? undefined : checkJail(ip) }
  }
  const address = parseBanned(ip)
  const jail = checkJail(name)
  if ((verb === 'unban' || verb === 'release') && rest.length === 0) return { verb, address, jail }
  const [time = '', bantime = '', ports, protocol] = rest
  if ((verb !== 'ban' && verb !== 'hold') || (rest.length !== 2 && rest.length !== 4)) {
    throw new Failure(EXIT.input, `Cannot read the line ${quote(line)}`)
  }
  checkBannable(address, never, prefixes)
  const naming = ports === undefined ? undefined : readNaming(ports, protocol ?? '')
  return { verb, address, jail, expires: readEnd(time, bantime), naming }
}

/** What to remember of a line that `parseOperation` refuses; undefined for an unban, which frees no address. */
export function refusedOf(line: string): { key: string; refused: Refused | undefined } {
  const [verb = '', ip = '', jail = '', time = '', bantime = ''] = wordsOf(line) ?? []
  const isBan = verb === 'ban' || verb === 'hold'
  const isUnban = verb === 'unban' || verb === 'release'
  const key = isBan || isUnban ? banKey(canonicalText(ip), jail) : line
  if (isUnban) return { key, refused: undefined }
  const words = line.replace(/\|\.$/, '').replaceAll('|', ' ')
  const change = isBan ? `ban ${canonicalText(ip)} in ${jail}` : words
  return { key, refused: { change, key, expires: endOf(time, bantime) } }
}

/** An address as everything else shows it, whatever an action line has added to it. */
export function canonicalText(ip: string): string {
  try {
    return parseBanned(ip).text
  } catch {
    return ip.replace(/\/\d*$/, '') // what the action line adds
  }
}

function endOf(time: string, bantime: string): number {
  try {
    return readEnd(time, bantime)
  } catch {
    return RELEASED
  }
}

function readEnd(time: string, bantime: string): number {
  if (!/^\d{1,12}(\.\d{1,9})?$/.test(time) || !/^(-1|\d{1,10})$/.test(bantime)) {
    throw new Failure(EXIT.input, `Cannot read the times ${quote(time)} and ${quote(bantime)}`)
  }
  return parseExpires(String(expiry(Number(time), Number(bantime))))
}
