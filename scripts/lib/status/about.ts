import { type Address, overlaps } from '../address.ts'
import { type Lease, later } from '../lease.ts'
import type { Loaded } from '../settled.ts'
import type { Block } from '../target.ts'
import type { Ban } from './bans.ts'
import type { Waiting } from './books.ts'
import type { Desk } from './desk.ts'
import { openSites, quietCall, type Site, type Trouble, troubleOf, within } from './look.ts'

/** All that is known about an address. */
export interface About {
  address: Address
  /** Epoch seconds. */
  at: number
  bans: Ban[]
  /** What kept us from knowing all of Fail2Ban's bans. */
  troubles: Trouble[]
  places: Place[]
}

/** What a target has of it. */
export interface Place {
  sibling: string
  target: string
  /** Ranges that contain the address included. */
  leases: Lease[]
  /** What others block there: until when, but not who. */
  others: Block[]
  trouble: Trouble | undefined
  /** What is on its way there. */
  waiting: Waiting[]
}

/** @param seconds for each target, all side by side */
export async function lookUp(
  loaded: Loaded,
  desk: Desk,
  sites: Site[],
  address: Address,
  seconds: number,
): Promise<About> {
  const [{ bans, troubles }, places] = await Promise.all([
    desk.bans(address.text),
    Promise.all(sites.map((site) => placeOf(loaded, site, address, seconds))),
  ])
  return { address, at: Math.floor(Date.now() / 1000), bans, troubles, places }
}

export async function aboutAddress(
  loaded: Loaded,
  desk: Desk,
  address: Address,
  seconds: number,
): Promise<About> {
  return await lookUp(loaded, desk, await openSites(loaded), address, seconds)
}

async function placeOf(
  loaded: Loaded,
  { sibling, target, books }: Site,
  address: Address,
  seconds: number,
): Promise<Place> {
  const name = { sibling, target: target.name }
  const place = { ...name, leases: [], others: [], trouble: undefined, waiting: [] }
  const fresh = books.anew()
  try {
    const waiting = fresh.isQueued ? fresh.about(address, target.name) : []
    const call = quietCall(loaded, seconds)
    const listing = target.holders ? target.holders(call) : target.list(call)
    const asking = Promise.all([listing, target.blocked?.(call, address)])
    const [all, blocks = []] = await within(seconds, 'no answer in time', asking)
    const leases = all.filter((lease) => overlaps(lease.address, address))
    return { ...place, leases, others: othersOf(blocks, leases), waiting }
  } catch (error) {
    return { ...place, trouble: troubleOf(error) }
  }
}

/** What is blocked there for longer, or more widely, than leases of ours say. */
function othersOf(blocks: Block[], leases: Lease[]): Block[] {
  return blocks.filter(({ address, expires, partly }) => {
    const isOurs = (lease: Lease): boolean =>
      (partly || lease.address.text === address.text) &&
      later(lease.expires, expires) === lease.expires
    return !leases.some(isOurs)
  })
}
