import { setTimeout as sleep } from 'node:timers/promises'
import { parseAddress } from '../address.ts'
import type { Values } from '../command.ts'
import { banKey } from '../delivery/rejected.ts'
import { withKept } from '../delivery/target-worker.ts'
import type { Truth } from '../delivery/truth.ts'
import { forTargets } from '../delivery-account.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import type { Lease } from '../lease.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds } from '../siblings.ts'
import { longest } from '../sync-input.ts'
import type { Call, Target } from '../target.ts'
import { makeCall } from '../verbs.ts'
import { Books } from './books.ts'

/** A target with what is known about its sibling. */
export interface Site {
  sibling: string
  target: Target
  /** False if it keeps its leases in files here, so that a look at them reaches nobody. */
  remote: boolean
  /** True if behind its file is a device that is pushed to: only `check` asks that one. */
  pushed: boolean
  books: Books
}

/** What a target has, compared with what it is to have. */
export interface Look {
  leases?: number
  drift?: Drift
  /** See `Target`. */
  complaint?: string | undefined
  trouble?: Trouble
}

export interface Drift {
  missing: number
  extra: number
  /** With another end than Fail2Ban's. */
  wrong_expiry: number
  /** What a sync would change, where the target says so. */
  lines: string[]
}

export interface Trouble {
  code: number
  message: string
}

/** Siblings that remember here what they have; a FortiGate fetches its list when it likes. */
const LOCAL = ['threatjammer', 'abuseipdb', 'fortigate']

/** All targets of the configuration. @throws Failure 78 */
export async function openSites(loaded: Loaded): Promise<Site[]> {
  const kinds = configuredKinds(loaded.config)
  const sites = kinds.map(async (kind) => {
    const books = new Books(loaded.config, kind.name)
    const pushed = kind.name === 'fortigate' && loaded.config.fortigate?.push !== undefined
    const remote = pushed || !LOCAL.includes(kind.name)
    const targets = await kind.targets(forTargets(loaded))
    return targets.map((target) => ({ sibling: kind.name, target, remote, pushed, books }))
  })
  return (await Promise.all(sites)).flat()
}

/** Whatever hangs, the answer is there in time. @throws Failure 75 */
export async function within<T>(seconds: number, what: string, work: Promise<T>): Promise<T> {
  const end = new AbortController()
  const late = sleep(seconds * 1000, undefined, { signal: end.signal }).then(() => {
    throw new Failure(EXIT.temporary, what)
  })
  late.catch(() => {})
  work.catch(() => {})
  try {
    return await Promise.race([work, late])
  } finally {
    end.abort()
  }
}

/**
 * Looks at a target, without changing anything.
 *
 * @param truth what Fail2Ban has banned for it; without it, there is no drift
 */
export async function lookAt(
  { target, books, pushed }: Site,
  call: Call,
  seconds: number,
  truth: Truth | undefined,
): Promise<Look> {
  const looking = truth ? compare(target, books, call, truth) : listOnly(target, call)
  const checking = pushed ? target.check(call) : undefined
  try {
    const [look] = await within(seconds, 'no answer in time', Promise.all([looking, checking]))
    return { ...look, complaint: target.complaint?.() }
  } catch (error) {
    return { trouble: troubleOf(error) }
  }
}

/** A call that changes nothing, and is over after so many seconds. */
export function quietCall(loaded: Loaded, seconds: number): Call {
  const values: Values = {}
  return { ...makeCall(loaded, values, seconds), show() {}, say() {}, progress() {} }
}

export function troubleOf(error: unknown): Trouble {
  if (!(error instanceof Failure)) throw error
  return { code: codeOf(error), message: messageOf(error) }
}

async function listOnly(target: Target, call: Call): Promise<Look> {
  return { leases: (await target.list(call)).length }
}

/** What a sync would do is what the target lacks, in the target's own opinion. */
async function compare(target: Target, books: Books, call: Call, truth: Truth): Promise<Look> {
  const lines: string[] = []
  const dry = {
    ...call,
    dryRun: true,
    namings: truth.namings,
    show: (line: string) => lines.push(line),
  }
  const rejected = books.rejected(target.name)
  const exact = truth.leases.map((lease) => asDelivered(lease, books, 1))
  const inexact = truth.inexact.map((lease) => asDelivered(lease, books, Infinity))
  const held = books.held().map(({ address, jail, expires }): Lease => {
    return { address: parseAddress(address), jail, expires, owner: call.owner }
  })
  const wanted = longest([...exact, ...inexact, ...held]).filter(({ address, jail, expires }) => {
    return !rejected.has(banKey(address.text, jail), expires)
  })
  const counts = await target.sync(dry, await withKept(target, call, wanted, truth))
  const { added, extended, removed, unchanged } = counts
  const drift = { missing: added, extra: removed, wrong_expiry: extended, lines }
  return { leases: extended + removed + unchanged, drift }
}

/** Fail2Ban tells the end of a ban to some seconds more or less; what was delivered is as good. */
function asDelivered(lease: Lease, books: Books, seconds: number): Lease {
  const known = books.wants(lease.address.text, lease.jail)
  if (known === undefined || known === 0 || lease.expires === 0) return lease
  return Math.abs(known - lease.expires) <= seconds ? { ...lease, expires: known } : lease
}
