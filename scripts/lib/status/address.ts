import { join } from 'node:path'
import { type Address, overlaps, parseAddress } from '../address.ts'
import { appendToQueue } from '../delivery/append.ts'
import {
  nothingAt,
  type Place,
  type Prober,
  type TargetName,
  type Trouble,
  troubleOf,
} from '../delivery/probe.ts'
import { queueDirectory } from '../delivery/state.ts'
import { askBans, type KnownBan, silent, unban } from '../fail2ban.ts'
import { EXIT, Failure } from '../failure.ts'
import { checkJail, expiry, NO_JAIL, now } from '../lease.ts'
import type { Line } from '../ledger.ts'
import type { Fail2Ban } from '../settings/fail2ban.ts'
import type { Loaded } from '../settled.ts'
import { KINDS } from '../siblings.ts'
import { askDeliverer } from './survey.ts'

/** All that is known about an address. */
export interface About {
  address: string
  /** Epoch seconds. */
  at: number
  bans: Ban[]
  /** What kept us from knowing all of Fail2Ban's bans. */
  troubles: Trouble[]
  places: Place[]
}

/** A ban of Fail2Ban's that has something in common with the address that was asked for. */
export interface Ban {
  jail: string
  address: string
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

/** @param seconds for each target, all side by side @param names those; all if left out */
export async function aboutAddress(
  { config }: Loaded,
  prober: Prober,
  address: Address,
  seconds: number,
  names?: TargetName[],
): Promise<About> {
  const targets = names ?? (await prober.targets())
  const [{ bans, troubles }, places] = await Promise.all([
    bansOf(config.fail2ban, address),
    Promise.all(
      targets.map((target) =>
        prober.place(target, address.text, seconds).catch((error): Place => {
          return { ...nothingAt(target), trouble: troubleOf(error) }
        }),
      ),
    ),
  ])
  return { address: address.text, at: now(), bans, troubles, places }
}

/** What became of an address that was to be freed. */
export interface Freedom {
  fail2ban: { jails: string[]; trouble: Trouble | undefined }
  places: Freed[]
  /** What is in force of it now. */
  after: About
}

export interface Freed {
  sibling: string
  target: string
  freed: Line[]
  trouble: Trouble | undefined
  /** It stands in the queue, and f2b-deliver will tell the target. */
  queued: boolean
}

/** Seconds for f2b-deliver to take it to a target, and for a target to do it. */
const PATIENCE = { delivery: 10, unban: 20 }

/**
 * Frees an address in Fail2Ban and on every target, in whatever jails this server has it.
 *
 * First it is put into the queues, so that the books of f2b-deliver say so, too, and no sync brings
 * it back; then Fail2Ban is told. A ban that was queued before is thereby taken back, and one that
 * comes later is a new one and stays. What a target has even then, it is told itself.
 *
 * @param seconds for each look at a target
 */
export async function freeEverywhere(
  loaded: Loaded,
  prober: Prober,
  address: Address,
  seconds: number,
): Promise<Freedom> {
  const { fail2ban: settings, state_dir } = loaded.config
  const targets = await prober.targets()
  const { running } = await askDeliverer(loaded)
  const before = await aboutAddress(loaded, prober, address, seconds, targets)
  const told = new Map<string, Trouble | undefined>()
  for (const { sibling, queued } of targets) {
    if (told.has(sibling) || !(running || queued)) continue
    told.set(sibling, queueReleases(state_dir, sibling, before))
  }
  const fail2ban = await unbanInFail2Ban(settings, address, before)
  const { bans } = await bansOf(settings, address)
  const again = jailsBanning(bans, address)
  const troubles = await Promise.all(
    targets.map(async (target, i) => {
      const trouble = before.places[i]?.trouble
      const isTold = running && told.has(target.sibling)
      if (isTold && trouble) return trouble // f2b-deliver will know when it is back
      const jails = jailsOf(before, target.sibling)
      const wait = isTold ? PATIENCE.delivery : 0
      const how = { jails, again, wait, seconds: trouble ? seconds : PATIENCE.unban }
      return await prober.free(target, address.text, how).catch(troubleOf)
    }),
  )
  const after = await aboutAddress(loaded, prober, address, seconds, targets)
  const places = targets.map(({ sibling, target }, i): Freed => {
    const [had, has] = [before.places[i], after.places[i]]
    const left = new Set(has?.leases.map(formatLine))
    const freed = has?.trouble
      ? []
      : (had?.leases ?? []).filter((one) => !left.has(formatLine(one)))
    const trouble = troubles[i] ?? told.get(sibling) ?? has?.trouble
    return { sibling, target, freed, trouble, queued: told.has(sibling) }
  })
  return { fail2ban, places, after }
}

/** Queues that the address is to be free in all jails, also where a person banned it. */
function queueReleases(stateDir: string, sibling: string, before: About): Trouble | undefined {
  try {
    // It may be an account that says so: root writes into the queues, and nowhere else.
    const kind = KINDS.find(({ name }) => name === sibling)
    if (!kind) throw new Failure(EXIT.bug, 'no such sibling')
    for (const jail of jailsOf(before, sibling)) {
      appendToQueue(join(queueDirectory(stateDir), kind.name), ['release', before.address, jail])
    }
    return undefined
  } catch (error) {
    return troubleOf(error)
  }
}

/** Every jail that a sibling may have the address in. */
function jailsOf({ address, bans, places }: About, sibling: string): string[] {
  const own = places.filter((place) => place.sibling === sibling)
  const leases = own.flatMap((place) => place.leases.filter((one) => one.address === address))
  const waiting = own.flatMap((place) => place.waiting)
  const known = own.flatMap((place) => place.known)
  const jails = [...known, ...[...bans, ...leases, ...waiting].map(({ jail }) => jail), NO_JAIL]
  return [...new Set(jails)].filter(isJail)
}

function isJail(name: string): boolean {
  try {
    return checkJail(name) === name
  } catch {
    return false
  }
}

/** Frees it in all jails, by Fail2Ban's own means. */
async function unbanInFail2Ban(
  settings: Fail2Ban,
  address: Address,
  before: About,
): Promise<Freedom['fail2ban']> {
  try {
    const { live } = await askBans(settings, address.text)
    // A jail may have banned the address under another name.
    const own = live.filter(({ id, ip }) => {
      return ip !== null && ip !== id && addressOf(ip)?.text === address.text
    })
    const others = own.map(({ jail, id }): [string, string] => [jail, id])
    await unban(settings, address.text, others)
    return { jails: jailsBanning(before.bans, address), trouble: undefined }
  } catch (error) {
    return { jails: [], trouble: troubleOf(error) }
  }
}

/** The jails in which Fail2Ban has banned exactly this address. */
function jailsBanning(bans: Ban[], { text }: Address): string[] {
  return bans.filter((ban) => ban.live && ban.address === text).map(({ jail }) => jail)
}

/** Asks Fail2Ban, whatever actions its jails have, and its database. */
async function bansOf(
  settings: Fail2Ban,
  address: Address,
): Promise<Pick<About, 'bans' | 'troubles'>> {
  try {
    const { live, stored, failures } = await askBans(settings, address.text)
    const running = live.flatMap((ban) => banOf(ban, address, true))
    const known = new Set(running.map(keyOf))
    const waiting = stored
      .flatMap((ban) => banOf(ban, address, false))
      .filter((ban) => !known.has(keyOf(ban)))
    return {
      bans: [...running, ...waiting].sort((a, b) => (a.began ?? 0) - (b.began ?? 0)),
      troubles: failures.map((why) => ({ code: EXIT.temporary, message: silent(why).message })),
    }
  } catch (error) {
    return { bans: [], troubles: [troubleOf(error)] }
  }
}

/** Fail2Ban bans things that are no address, too: they are not meant. */
function banOf(ban: KnownBan, address: Address, live: boolean): Ban[] {
  const { jail, id, ip, began, seconds, times, matches = [] } = ban
  const own = addressOf(ip ?? id)
  if (!own || !overlaps(own, address)) return []
  const expires = expiry(began ?? Date.now() / 1000, seconds)
  return [{ jail, address: own.text, began: began ?? undefined, expires, times, live, matches }]
}

function addressOf(text: string): Address | undefined {
  try {
    return parseAddress(text)
  } catch {
    return undefined
  }
}

function keyOf({ address, jail }: { address: string; jail: string }): string {
  return `${address} ${jail}`
}

function formatLine(line: Line): string {
  return `${keyOf(line)} ${line.expires} ${line.owner}`
}
