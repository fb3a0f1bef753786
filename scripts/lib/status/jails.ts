import type { Address } from '../address.ts'
import { checkJail, type Lease, NO_JAIL } from '../lease.ts'
import type { About } from './about.ts'
import type { Desk } from './desk.ts'
import { type Trouble, troubleOf } from './look.ts'
import type { SiteName } from './looker.ts'

/** @returns the siblings whose bans go through a queue: those are told in this way */
export async function queueUnbans(
  desk: Desk,
  sites: SiteName[],
  before: About,
  running: boolean,
): Promise<Map<string, Trouble | undefined>> {
  const told = new Map<string, Trouble | undefined>()
  for (const { sibling, queued } of sites) {
    if (told.has(sibling) || !(running || queued)) continue
    told.set(sibling, undefined)
    try {
      for (const jail of jailsOf(before, sibling)) {
        await desk.release(sibling, before.address.text, jail)
      }
    } catch (error) {
      told.set(sibling, troubleOf(error))
    }
  }
  return told
}

/** Every jail that a sibling may have the address in. */
export function jailsOf({ address, bans, places }: About, sibling: string): string[] {
  const own = places.filter((place) => place.sibling === sibling)
  const jails = [
    ...own.flatMap(({ known }) => known),
    ...bans.map(({ jail }) => jail),
    ...own.flatMap(({ leases }) => leases.filter((one) => isIt(one, address)).map((o) => o.jail)),
    ...own.flatMap(({ waiting }) => waiting.map(({ jail }) => jail)),
    NO_JAIL,
  ]
  return [...new Set(jails)].filter(isJail)
}

/** True if it is the lease of exactly this address, not of a range that contains it. */
export function isIt(lease: Lease, address: Address): boolean {
  return lease.address.text === address.text
}

function isJail(name: string): boolean {
  try {
    return checkJail(name) === name
  } catch {
    return false
  }
}
