import type { Address } from '../address.ts'
import { askStatus } from '../delivery/control.ts'
import { formatLease, type Lease } from '../lease.ts'
import type { Loaded } from '../settled.ts'
import { type About, lookUp, type Place } from './about.ts'
import type { Ban } from './bans.ts'
import type { Desk } from './desk.ts'
import { jailsOf, queueUnbans } from './jails.ts'
import { type Trouble, troubleOf, within } from './look.ts'
import type { Looker } from './looker.ts'

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
  looker: Looker,
  address: Address,
  seconds: number,
): Promise<Freedom> {
  const sites = await looker.sites()
  const running = await isRunning(loaded)
  const before = await lookUp(desk, looker, sites, address, seconds)
  const told = await queueUnbans(desk, sites, before, running)
  const fail2ban = await unbanInFail2Ban(desk, before)
  const { bans } = await desk.bans(address.text)
  const again = jailsBanning(bans, address)
  const troubles = await Promise.all(
    sites.map(async (site, i) => {
      const trouble = before.places[i]?.trouble
      const isTold = running && told.has(site.sibling)
      if (isTold && trouble) return trouble // f2b-deliver will know when it is back
      const jails = jailsOf(before, site.sibling)
      const wait = isTold ? PATIENCE.delivery : 0
      const how = { jails, again, wait, seconds: trouble ? seconds : PATIENCE.unban }
      return await looker.free(site, address, how).catch(troubleOf)
    }),
  )
  const after = await lookUp(desk, looker, sites, address, seconds)
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
