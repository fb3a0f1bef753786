import { setTimeout as sleep } from 'node:timers/promises'
import { type Address, overlaps, parseAddress } from '../address.ts'
import { forTargets } from '../delivery-account.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import { type Lease, later, quote } from '../lease.ts'
import type { Line } from '../ledger.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds } from '../siblings.ts'
import { longest } from '../sync-input.ts'
import { type Block, type Call, changeOne, type Target } from '../target.ts'
import { makeCall } from '../verbs.ts'
import type { DesiredLeases } from './desired-leases.ts'
import type { Fail2BanBans } from './fail2ban-bans.ts'
import { DeliveryFiles, type Waiting } from './files.ts'
import { banKey } from './rejected.ts'
import { FRESH, type SiblingState } from './state.ts'
import { withKept } from './target-worker.ts'

// How targets are looked at, and freed of an address, for f2b-status: by the process that has the keys
// and the files of the delivery. What it says can travel as JSON, for root asks a service of an account.

export interface Trouble {
  code: number
  message: string
}

/** A target, as it is named. */
export interface TargetName {
  sibling: string
  target: string
  /** False if it keeps its leases in files here, so that a look at them reaches no device. */
  remote: boolean
  /** Bans go to it through a queue. */
  queued: boolean
}

/** What a target has, compared with what it is to have. */
export interface Probe {
  leases?: number | undefined
  drift?: Drift | undefined
  /** See `Target`. */
  complaint?: string | undefined
  trouble?: Trouble | undefined
}

export interface Drift {
  missing: number
  extra: number
  /** With another end than Fail2Ban's. */
  wrong_expiry: number
  /** What a sync would change, where the target says so. */
  lines: string[]
}

/** What a target has of an address. */
export interface Place {
  sibling: string
  target: string
  /** Ranges that contain the address included. */
  leases: Line[]
  /** What others block there: until when, but not who. */
  others: (Omit<Block, 'address'> & { address: string })[]
  trouble?: Trouble | undefined
  /** What is on its way there. */
  waiting: Waiting[]
  /** The jails that the address is known in here. */
  known: string[]
}

/** How an address is taken from a target. */
export interface Freeing {
  /** Jails that may have it without the target saying so: who lists only what a service was told. */
  jails: string[]
  /** The jails that Fail2Ban has banned it in since: those stay. */
  again: string[]
  /** Seconds in which f2b-deliver may tell the target what it has been told. */
  wait: number
  /** Seconds for the target. */
  seconds: number
}

export interface Prober {
  /** All targets of the configuration. @throws Failure */
  targets(): Promise<TargetName[]>
  /** What a target has, and how it differs from what Fail2Ban has banned, if that is known. */
  probe(name: TargetName, bans: Fail2BanBans | undefined, seconds: number): Promise<Probe>
  /** What a target has of an address. */
  place(name: TargetName, address: string, seconds: number): Promise<Place>
  /** Takes from a target what it still has of an address. */
  free(name: TargetName, address: string, how: Freeing): Promise<Trouble | undefined>
}

/** Looks from this process. */
export function ownProber(loaded: Loaded): Prober {
  const targets = openTargets(loaded)
  targets.catch(() => {})
  const found = async ({ sibling, target }: TargetName): Promise<Opened> => {
    const one = (await targets).find((o) => o.sibling === sibling && o.target.name === target)
    if (one) return one
    throw new Failure(EXIT.config, `f2b-deliver knows no ${quote(target)}: config.yaml is newer`)
  }
  const filesOf = ({ sibling }: TargetName) => new DeliveryFiles(loaded.config, sibling)
  const callFor = (seconds: number): Call => {
    const call = makeCall(forTargets(loaded), {}, seconds)
    return { ...call, show() {}, say() {}, progress() {} }
  }
  return {
    async targets() {
      return (await targets).map(({ sibling, target, remote }) => {
        const { isQueued } = new DeliveryFiles(loaded.config, sibling)
        return { sibling, target: target.name, remote, queued: isQueued }
      })
    },
    async probe(name, bans, seconds) {
      const { target, pushed } = await found(name)
      const call = callFor(seconds)
      const comparing = bans ? compare(target, filesOf(name), call, bans) : listOnly(target, call)
      const checking = pushed ? target.check(call) : undefined
      try {
        const [probe] = await within(seconds, LATE, Promise.all([comparing, checking]))
        return { ...probe, complaint: target.complaint?.() }
      } catch (error) {
        return { trouble: troubleOf(error) }
      }
    },
    async place(name, text, seconds) {
      const { target } = await found(name)
      const files = filesOf(name)
      const [call, address] = [callFor(seconds), parseAddress(text)]
      const place = { ...nothingAt(name), known: files.desired.jailsOf(address.text) }
      try {
        const waiting = files.isQueued ? files.about(address, target.name) : []
        return { ...place, waiting, ...(await within(seconds, LATE, held(target, call, address))) }
      } catch (error) {
        return { ...place, trouble: troubleOf(error) }
      }
    },
    async free(name, text, { jails, again, wait, seconds }) {
      const { target, remote } = await found(name)
      const [call, address] = [callFor(seconds), parseAddress(text)]
      for (const end = Date.now() + wait * 1000; Date.now() < end; await sleep(100)) {
        if (filesOf(name).about(address, target.name).length === 0) break
      }
      const free = async (): Promise<void> => {
        const left = (await target.list(call)).filter((one) => one.address.text === address.text)
        const all = new Set([...left.map(({ jail }) => jail), ...(remote ? [] : jails)])
        const gone = [...all].filter((jail) => !again.includes(jail))
        for (const jail of gone) await changeOne(target, call, { verb: 'unban', address, jail })
      }
      try {
        await within(seconds, LATE, free())
        return undefined
      } catch (error) {
        return troubleOf(error)
      }
    },
  }
}

const LATE = 'no answer in time'

/** A target with what is known about its sibling. */
interface Opened {
  sibling: string
  target: Target
  remote: boolean
  /** True if behind its file is a device that is pushed to: only `check` asks that one. */
  pushed: boolean
}

/** Siblings that remember here what they have; a FortiGate fetches its list when it likes. */
const LOCAL = ['threatjammer', 'abuseipdb', 'fortigate']

async function openTargets(loaded: Loaded): Promise<Opened[]> {
  const all = configuredKinds(loaded.config).map(async (kind) => {
    const pushed = kind.name === 'fortigate' && loaded.config.fortigate?.push !== undefined
    const remote = pushed || !LOCAL.includes(kind.name)
    const targets = await kind.targets(forTargets(loaded))
    return targets.map((target) => ({ sibling: kind.name, target, remote, pushed }))
  })
  return (await Promise.all(all)).flat()
}

/** How the delivery stands, as far as its files say, where no f2b-deliver runs. */
export function statesInFiles({ config }: Loaded, names: TargetName[]): SiblingState[] {
  return configuredKinds(config).map(({ name }) => {
    const files = new DeliveryFiles(config, name)
    const own = names.filter(({ sibling }) => sibling === name)
    const targets = own.map(({ target }) => ({ target, state: files.state(target) }))
    return { sibling: name, rejected: files.rejected().list(), targets }
  })
}

/** What is said of the delivery to a target of which nothing is known. */
export function stateIn(siblings: SiblingState[], { sibling, target }: TargetName) {
  const own = siblings.find((one) => one.sibling === sibling)
  return own?.targets.find((one) => one.target === target)?.state ?? { ...FRESH, rejected: [] }
}

export function nothingAt({ sibling, target }: TargetName): Place {
  return { sibling, target, leases: [], others: [], waiting: [], known: [] }
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

/** @throws what is no Failure, for it is a bug of ours */
export function troubleOf(error: unknown): Trouble {
  if (!(error instanceof Failure)) throw error
  return { code: codeOf(error), message: messageOf(error) }
}

async function listOnly(target: Target, call: Call): Promise<Probe> {
  return { leases: (await target.list(call)).length }
}

/** What a sync would do is what the target lacks, in the target's own opinion. */
async function compare(
  target: Target,
  files: DeliveryFiles,
  call: Call,
  bans: Fail2BanBans,
): Promise<Probe> {
  const lines: string[] = []
  const show = (line: string): void => void lines.push(line)
  const dry = { ...call, dryRun: true, namings: bans.namings, show }
  const rejected = files.rejected(target.name)
  const exact = bans.leases.map((lease) => asDelivered(lease, files.desired, 1))
  const inexact = bans.inexact.map((lease) => asDelivered(lease, files.desired, Infinity))
  const held = files.desired.withHeld([]).map(({ address, jail, expires }): Lease => {
    return { address: parseAddress(address), jail, expires, owner: call.owner }
  })
  const wanted = longest([...exact, ...inexact, ...held]).filter(({ address, jail, expires }) => {
    return !rejected.has(banKey(address.text, jail), expires)
  })
  const counts = await target.sync(dry, await withKept(target, call, wanted, bans))
  const { added, extended, removed, unchanged } = counts
  const drift = { missing: added, extra: removed, wrong_expiry: extended, lines }
  return { leases: extended + removed + unchanged, drift }
}

/** Fail2Ban tells the end of a ban to some seconds more or less; what was delivered is as good. */
function asDelivered(lease: Lease, desired: DesiredLeases, seconds: number): Lease {
  const key = { address: lease.address.text, jail: lease.jail }
  const known = desired.knows(key) ? desired.wants(key) : 0
  if (known === 0 || lease.expires === 0) return lease
  return Math.abs(known - lease.expires) <= seconds ? { ...lease, expires: known } : lease
}

/** What is in force at a target of an address: ours, and what is there for longer or more widely. */
async function held(
  target: Target,
  call: Call,
  address: Address,
): Promise<Pick<Place, 'leases' | 'others'>> {
  const found = target.listAll
    ? await target.listAll(call, address)
    : { leases: await target.list(call), others: [] }
  const leases = found.leases.filter((lease) => overlaps(lease.address, address))
  const others = found.others.filter(({ address, expires, partly }) => {
    const covers = (lease: Lease): boolean =>
      (partly || lease.address.text === address.text) &&
      later(lease.expires, expires) === lease.expires
    return !leases.some(covers)
  })
  return {
    leases: leases.map(({ address, jail, expires, owner }) => {
      return { address: address.text, jail, expires, owner }
    }),
    others: others.map((block) => ({ ...block, address: block.address.text })),
  }
}
