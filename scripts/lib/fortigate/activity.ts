import { readFileSync } from 'node:fs'
import { replaceDurably } from '../durable.ts'
import { messageOf } from '../failure.ts'

/** A device, or a person, that fetched the list. Moments in epoch seconds. */
export interface Client {
  address: string
  agent: string
  pulls: number
  last: number
  /** 200 or 304. */
  status: number
}

/** What happened within one hour. */
interface Hour {
  bans: number
  logins: number
}

interface Kept {
  clients: Client[]
  hours: [number, Hour][]
}

const HOUR = 3600
const DAY_HOURS = 24
const FORGET_AFTER = 7 * 24 * HOUR
const MAX_CLIENTS = 200
/** A person tries a URL once or twice; who fetches oftener is a device, and is missed when it stops. */
const DEVICE_PULLS = 3

/** What is counted for a body from somebody without the secret. */
export const NO_DEVICE = 'refused who asks'

/** What the status page and the metrics tell about the past. Kept in memory, and in a file if given. */
export class Activity {
  readonly started: number
  /** Bodies by what became of them: `written sslvpn`, `ignored reason`, `refused no logid`. */
  readonly received = new Map<string, number>()
  lastReceived = 0
  readonly #file: string | undefined
  readonly #clients = new Map<string, Client>()
  readonly #hours = new Map<number, Hour>()

  /** @param file where to keep it over a restart */
  constructor(at: number, file?: string) {
    this.started = at
    this.#file = file
    if (file !== undefined) this.#load(file)
  }

  pulled(address: string, agent: string, status: number, at: number): void {
    const pulls = (this.#clients.get(address)?.pulls ?? 0) + 1
    this.#clients.delete(address) // the latest stands last
    this.#clients.set(address, { address, agent: agent.slice(0, 60), pulls, last: at, status })
    const oldest = this.#clients.keys().next().value
    if (this.#clients.size > MAX_CLIENTS && oldest !== undefined) this.#clients.delete(oldest)
  }

  banned(count: number, at: number): void {
    this.#hour(at).bans += count
  }

  /** @param what becomes a label of the metrics: our own words only */
  receivedLog(what: string, at: number): void {
    this.received.set(what, (this.received.get(what) ?? 0) + 1)
    // Anybody who reaches the port can be refused: that is no sign that the device still posts.
    if (what !== NO_DEVICE) this.lastReceived = at
    if (what.startsWith('written')) this.#hour(at).logins++
  }

  /** Who fetched the list in the last week, the latest first. */
  clients(at: number): Client[] {
    return [...this.#clients.values()].filter((c) => at - c.last < FORGET_AFTER).reverse()
  }

  /** When somebody fetched the list last; 0 if nobody did. */
  lastPull(): number {
    return Math.max(0, ...[...this.#clients.values()].map((client) => client.last))
  }

  /** The last 24 hours, the present one last. */
  day(at: number): (Hour & { start: number })[] {
    const present = Math.floor(at / HOUR)
    return Array.from({ length: DAY_HOURS }, (_, i) => {
      const hour = present - DAY_HOURS + 1 + i
      return { start: hour * HOUR, bans: 0, logins: 0, ...this.#hours.get(hour) }
    })
  }

  /** Writes it down. @returns what went wrong, if something did: nothing depends on it */
  save(): string | undefined {
    if (this.#file === undefined) return undefined
    const kept: Kept = { clients: [...this.#clients.values()], hours: [...this.#hours] }
    try {
      replaceDurably(this.#file, JSON.stringify(kept))
      return undefined
    } catch (error) {
      return messageOf(error)
    }
  }

  #load(file: string): void {
    try {
      const kept = JSON.parse(readFileSync(file, 'utf8')) as Kept
      for (const client of kept.clients) this.#clients.set(client.address, client)
      for (const [hour, counts] of kept.hours) this.#hours.set(hour, counts)
    } catch {
      // None yet, or one of another version: history begins today.
    }
  }

  #hour(at: number): Hour {
    const hour = Math.floor(at / HOUR)
    const known = this.#hours.get(hour) ?? { bans: 0, logins: 0 }
    this.#hours.set(hour, known)
    for (const old of this.#hours.keys()) if (old <= hour - DAY_HOURS) this.#hours.delete(old)
    return known
  }
}

/** True for a device that used to fetch the list and has stopped. */
export function isStale(client: Client, staleAfter: number, at: number): boolean {
  return client.pulls >= DEVICE_PULLS && at - client.last > staleAfter
}
