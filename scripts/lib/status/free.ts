import { setTimeout as sleep } from 'node:timers/promises'
import type { Address } from '../address.ts'
import { askStatus } from '../delivery/control.ts'
import { formatLease, type Lease } from '../lease.ts'
import type { Loaded } from '../settled.ts'
import type { Call } from '../target.ts'
import { type About, lookUp, type Place } from './about.ts'
import type { Ban } from './bans.ts'
import type { Desk } from './desk.ts'
import { isIt, jailsOf, queueUnbans } from './jails.ts'
import { openSites, quietCall, type Site, type Trouble, troubleOf, within } from './look.ts'

/** Seconds for f2b-deliver to take it to a target, and for a target to do it. */
const PATIENCE = { delivery: 10, unban: 20 }

/** What became of an address that was to be freed. */
export interface Freedom {
  before: About
  fail2ban: { jails: string[]; trouble: Trouble | undefined }
  places: Outcome[]
  /** What is in force of it now. */
  after: About
}

export interface Outcome {
  sibling: string
  target: string
  freed: Lease[]
  trouble: Trouble | undefined
  /** It stands in the queue, and f2b-deliver will tell the target. */
  queued: boolean
}

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
  desk: Desk,
  address: Address,
  seconds: number,
): Promise<Freedom> {
  const sites = await openSites(loaded)
  const running = await isRunning(loaded)
  const before = await lookUp(loaded, desk, sites, address, seconds)
  const told = await queueUnbans(desk, sites, before, running)
  const fail2ban = await unbanInFail2Ban(desk, before)
  const { bans } = await desk.bans(address.text)
  const again = new Set(jailsBanning(bans, address))
  const troubles = await Promise.all(
    sites.map(async (site, i) => {
      const trouble = before.places[i]?.trouble
      if (running && told.has(site.sibling)) {
        if (trouble) return trouble // f2b-deliver will know when it is back
        await delivered(site, address)
      }
      const limit = trouble ? seconds : PATIENCE.unban
      return await freeAt(site, quietCall(loaded, limit), limit, before, again)
    }),
  )
  const after = await lookUp(loaded, desk, sites, address, seconds)
  const places = sites.map((site, i) =>
    outcomeOf(
      before.places[i],
      after.places[i],
      troubles[i] ?? told.get(site.sibling),
      told.has(site.sibling),
    ),
  )
  return { before, fail2ban, places, after }
}

async function isRunning({ config }: Loaded): Promise<boolean> {
  try {
    const asking = askStatus(config.state_dir)
    return (await within(PATIENCE.delivery, 'no answer', asking)) !== undefined
  } catch {
    return true
  }
}

async function unbanInFail2Ban(desk: Desk, { address, bans }: About) {
  const jails = jailsBanning(bans, address)
  try {
    await desk.unban(address.text)
    return { jails, trouble: undefined }
  } catch (error) {
    return { jails: [], trouble: troubleOf(error) }
  }
}

/** The jails in which Fail2Ban has banned exactly this address. */
function jailsBanning(bans: Ban[], address: Address): string[] {
  const own = bans.filter((ban) => ban.live && ban.address.text === address.text)
  return own.map(({ jail }) => jail)
}

/** Waits until f2b-deliver has told the target, or does not get to it. */
async function delivered({ books, target }: Site, address: Address): Promise<void> {
  for (const end = Date.now() + PATIENCE.delivery * 1000; Date.now() < end; await sleep(100)) {
    if (books.anew().about(address, target.name).length === 0) return
  }
}

/** @param again the jails that Fail2Ban has banned it in since: those stay */
async function freeAt(
  { sibling, target, remote, books }: Site,
  call: Call,
  limit: number,
  before: About,
  again: Set<string>,
): Promise<Trouble | undefined> {
  const { address } = before
  try {
    await within(
      limit,
      'no answer in time',
      (async () => {
        const left = (await target.list(call)).filter((lease) => isIt(lease, address))
        // Who lists only what a service was told may be about to tell it more.
        const unlisted = remote ? [] : jailsOf(before, sibling, books.jails(address.text))
        const jails = new Set([...left.map(({ jail }) => jail), ...unlisted])
        for (const jail of jails) if (!again.has(jail)) await target.unban(call, address, jail)
      })(),
    )
    return undefined
  } catch (error) {
    return troubleOf(error)
  }
}

function outcomeOf(
  before: Place | undefined,
  after: Place | undefined,
  trouble: Trouble | undefined,
  queued: boolean,
): Outcome {
  const left = new Set(after?.leases.map(formatLease))
  const gone = after?.trouble ? [] : (before?.leases ?? []).filter((o) => !left.has(formatLease(o)))
  const { sibling = '', target = '' } = before ?? {}
  return { sibling, target, freed: gone, trouble: trouble ?? after?.trouble, queued }
}
