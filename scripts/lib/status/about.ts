import { type Address, overlaps } from '../address.ts'
import { type Lease, later } from '../lease.ts'
import type { Block, Call } from '../target.ts'
import type { Ban } from './bans.ts'
import type { Waiting } from './books.ts'
import type { Desk } from './desk.ts'
import { type Site, type Trouble, troubleOf, within } from './look.ts'
import type { Looker, SiteName } from './looker.ts'

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
  /** The jails that the books know the address in. */
  known: string[]
}

/** @param seconds for each target, all side by side */
export async function lookUp(
  desk: Desk,
  looker: Looker,
  sites: SiteName[],
  address: Address,
  seconds: number,
): Promise<About> {
  const place = async (site: SiteName): Promise<Place> => {
    try {
      return await looker.place(site, address, seconds)
    } catch (error) {
      return { ...nothingAt(site.sibling, site.target), trouble: troubleOf(error) }
    }
  }
  const [{ bans, troubles }, places] = await Promise.all([
    desk.bans(address.text),
    Promise.all(sites.map(place)),
  ])
  return { address, at: Math.floor(Date.now() / 1000), bans, troubles, places }
}

export async function aboutAddress(
  desk: Desk,
  looker: Looker,
  address: Address,
  seconds: number,
): Promise<About> {
  return await lookUp(desk, looker, await looker.sites(), address, seconds)
}

/** What a target has of an address, and what the books say about it. */
export async function placeOf(
  { sibling, target, books }: Site,
  call: Call,
  address: Address,
  seconds: number,
): Promise<Place> {
  const place = nothingAt(sibling, target.name)
  const fresh = books.anew()
  try {
    const waiting = fresh.isQueued ? fresh.about(address, target.name) : []
    const known = fresh.jails(address.text)
    const asking = target.listAll
      ? target.listAll(call, address)
      : target.list(call).then((leases) => ({ leases, others: [] }))
    const found = await within(seconds, 'no answer in time', asking)
    const leases = found.leases.filter((lease) => overlaps(lease.address, address))
    return { ...place, leases, others: othersOf(found.others, leases), waiting, known }
  } catch (error) {
    return { ...place, known: fresh.jails(address.text), trouble: troubleOf(error) }
  }
}

function nothingAt(sibling: string, target: string): Place {
  const lists = { leases: [], others: [], waiting: [], known: [] }
  return { sibling, target, ...lists, trouble: undefined }
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
