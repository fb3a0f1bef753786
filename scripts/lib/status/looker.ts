import { type Address, parseAddress } from '../address.ts'
import { ask } from '../delivery/ask.ts'
import { readTruth, type Truth, type WrittenTruth, writeTruth } from '../delivery/truth.ts'
import { accountInstead, forTargets } from '../delivery-account.ts'
import { EXIT, Failure } from '../failure.ts'
import { type Lease, quote } from '../lease.ts'
import type { Loaded } from '../settled.ts'
import { type Place, placeOf } from './about.ts'
import { type Freeing, freeAt } from './free-at.ts'
import { type Look, lookAt, openSites, quietCall, type Site, type Trouble } from './look.ts'

/** A target, as it is named. */
export interface SiteName {
  sibling: string
  target: string
  /** See `Site`. */
  remote: boolean
  /** Bans go to it through a queue. */
  queued: boolean
}

/**
 * How targets and the books about them are looked at. Where an account delivers, only its service
 * does that, and root asks; else it is done here.
 */
export interface Looker {
  /** @throws Failure */
  sites(): Promise<SiteName[]>
  /** What a target has, and how it differs from what Fail2Ban has banned. */
  look(site: SiteName, truth: Truth | undefined, seconds: number): Promise<Look>
  /** What a target has of an address. */
  place(site: SiteName, address: Address, seconds: number): Promise<Place>
  /** Takes from a target what it still has of an address. */
  free(site: SiteName, address: Address, how: Freeing): Promise<Trouble | undefined>
}

export function openLooker(loaded: Loaded): Looker {
  return accountInstead(loaded.config.state_dir) ? serviceLooker(loaded) : ownLooker(loaded)
}

function ownLooker(given: Loaded): Looker {
  const loaded = forTargets(given)
  let all: Promise<Site[]> | undefined
  const siteOf = async ({ sibling, target }: SiteName): Promise<Site> => {
    all ??= openSites(given)
    const found = (await all).find((one) => one.sibling === sibling && one.target.name === target)
    if (found) return found
    throw new Failure(EXIT.config, `f2b-deliver knows no ${quote(target)}: config.yaml is newer`)
  }
  return {
    async sites() {
      all ??= openSites(given)
      return (await all).map(({ sibling, target, remote, books }) => {
        return { sibling, target: target.name, remote, queued: books.isQueued }
      })
    },
    look: async (site, truth, seconds) =>
      lookAt(await siteOf(site), quietCall(loaded, seconds), seconds, truth),
    place: async (site, address, seconds) =>
      placeOf(await siteOf(site), quietCall(loaded, seconds), address, seconds),
    free: async (site, address, how) =>
      freeAt(await siteOf(site), quietCall(loaded, how.seconds), address, how),
  }
}

/** Seconds beyond what the service takes for a target. */
const MORE = 5

function serviceLooker({ config }: Loaded): Looker {
  const { state_dir } = config
  return {
    sites: () => {
      const like = [{ sibling: '', target: '', remote: true, queued: true }]
      return ask(state_dir, '/sites', { body: {}, like })
    },
    look(site, truth, seconds) {
      const body = { site, seconds, ...(truth && { truth: writeTruth(truth) }) }
      return ask(state_dir, '/look', { body, seconds: seconds + MORE, like: {} }).then(readLook)
    },
    async place(site, address, seconds) {
      const body = { site, address: address.text, seconds }
      const place = { sibling: '', target: '', leases: [LEASE], others: [BLOCK], known: [''] }
      const like = { ...place, waiting: [{ verb: '', address: '', jail: '' }] }
      const options = { body, seconds: seconds + MORE, like }
      return readPlace(await ask<WrittenPlace>(state_dir, '/place', options))
    },
    async free(site, address, how) {
      const seconds = how.seconds + how.wait + MORE
      const body = { site, address: address.text, how }
      return readTrouble(await ask(state_dir, '/free', { body, seconds }))
    },
  }
}

/** How the service answers what `serviceLooker` asks. */
export const LOOKS: Record<string, (loaded: Loaded, body: Asked) => Promise<unknown>> = {
  '/sites': (loaded) => ownLooker(loaded).sites(),
  '/look': (loaded, { site, truth, seconds }) => {
    const read = truth && readTruth(truth, loaded.config.owner)
    return ownLooker(loaded).look(site, read, seconds)
  },
  '/place': async (loaded, { site, address, seconds }) => {
    const place = await ownLooker(loaded).place(site, parseAddress(address), seconds)
    return writePlace(place)
  },
  '/free': (loaded, { site, address, how }) =>
    ownLooker(loaded).free(site, parseAddress(address), how),
}

interface Asked {
  site: SiteName
  truth?: WrittenTruth
  address: string
  seconds: number
  how: Freeing
}

const LEASE = { address: '', jail: '', expires: 0, owner: '' }
const BLOCK = { address: '', expires: 0, partly: true }

type Written<T> = Omit<T, 'address'> & { address: string }
type WrittenPlace = Omit<Place, 'leases' | 'others'> & {
  leases: Written<Lease>[]
  others: Written<Place['others'][number]>[]
}

function writePlace({ leases, others, ...place }: Place): WrittenPlace {
  const write = <T extends { address: Address }>(one: T) => ({ ...one, address: one.address.text })
  return { ...place, leases: leases.map(write), others: others.map(write) }
}

function readPlace({ leases, others, trouble, ...place }: WrittenPlace): Place {
  const read = <T extends { address: string }>(one: T) => {
    return { ...one, address: parseAddress(one.address) }
  }
  return {
    ...place,
    leases: leases.map(read),
    others: others.map(read),
    trouble: readTrouble(trouble),
  }
}

function readLook(answer: unknown): Look {
  const { leases, drift, complaint, trouble } = answer as Look
  if (trouble) return { trouble: readTrouble(trouble) as Trouble }
  return {
    leases: Number(leases) || 0,
    ...(complaint !== undefined && { complaint: String(complaint) }),
    ...(drift && {
      drift: {
        missing: Number(drift.missing) || 0,
        extra: Number(drift.extra) || 0,
        wrong_expiry: Number(drift.wrong_expiry) || 0,
        lines: Array.isArray(drift.lines) ? drift.lines.map(String) : [],
      },
    }),
  }
}

function readTrouble(answer: unknown): Trouble | undefined {
  if (!answer) return undefined
  const { code, message } = answer as Trouble
  return { code: Number.isInteger(code) ? code : EXIT.unexpected, message: String(message) }
}
