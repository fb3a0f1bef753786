import { type Address, overlaps, parseAddress } from '../address.ts'
import { askBans, type KnownBan, silent, unban } from '../fail2ban.ts'
import { EXIT } from '../failure.ts'
import { expiry } from '../lease.ts'
import type { Fail2Ban } from '../settings/fail2ban.ts'
import { type Trouble, troubleOf } from './look.ts'

/** A ban of Fail2Ban's that has something in common with the address that was asked for. */
export interface Ban {
  jail: string
  address: Address
  /** Epoch seconds; undefined if only Fail2Ban's local time says it. */
  began: number | undefined
  /** The latest that it may be, if the beginning is not known. */
  expires: number
  /** How many times this jail has banned the address by now, if Fail2Ban's database says so. */
  times: number | undefined
  /** False if it is only stored, and may be in force again when Fail2Ban is started. */
  live: boolean
  /** The log lines that Fail2Ban kept: an attacker wrote them. */
  matches: string[]
}

/** What is known of it, and what kept us from knowing more. */
export interface Known {
  bans: Ban[]
  troubles: Trouble[]
}

/** Asks Fail2Ban, whatever actions its jails have, and its database. */
export async function bansOf(settings: Fail2Ban, address: Address): Promise<Known> {
  try {
    const { live, stored, failures } = await askBans(settings, address.text)
    const running = live.flatMap((ban) => banOf(ban, address, true))
    const waiting = stored
      .flatMap((ban) => banOf(ban, address, false))
      .filter((one) => !running.some((ban) => isSame(one, ban)))
    return {
      bans: [...running, ...waiting].sort((a, b) => (a.began ?? 0) - (b.began ?? 0)),
      troubles: failures.map((why) => ({ code: EXIT.temporary, message: silent(why).message })),
    }
  } catch (error) {
    return { bans: [], troubles: [troubleOf(error)] }
  }
}

/** Frees an address in all jails, by Fail2Ban's own means. @returns how many @throws Failure 75 */
export async function unbanIn(settings: Fail2Ban, address: Address): Promise<number> {
  const { live } = await askBans(settings, address.text)
  // A jail may have banned the address under another name.
  const own = live.filter(({ id, ip }) => {
    return ip !== null && ip !== id && addressOf(ip)?.text === address.text
  })
  return await unban(
    settings,
    address.text,
    own.map(({ jail, id }) => [jail, id]),
  )
}

/** Fail2Ban bans things that are no address, too: they are not meant. */
function banOf(ban: KnownBan, address: Address, live: boolean): Ban[] {
  const { jail, id, ip, began, seconds, times, matches = [] } = ban
  const own = addressOf(ip ?? id)
  if (!own || !overlaps(own, address)) return []
  const expires = expiry(began ?? Date.now() / 1000, seconds)
  return [{ jail, address: own, began: began ?? undefined, expires, times, live, matches }]
}

function addressOf(text: string): Address | undefined {
  try {
    return parseAddress(text)
  } catch {
    return undefined
  }
}

function isSame(a: Ban, b: Ban): boolean {
  return a.jail === b.jail && a.address.text === b.address.text
}
