import { createHash } from 'node:crypto'
import { type Address, parseAddress } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { alive, type Lease, later, now } from '../lease.ts'
import type { Mikrotik } from '../settings/mikrotik.ts'
import {
  type Call,
  type Change,
  type Counts,
  countsOf,
  describeChange,
  entriesOf,
  LostGeneration,
  type Outcome,
  Refusal,
  subjectOf,
  type Target,
} from '../target.ts'
import { Router, type Row, type Wanted, type Write } from './client.ts'

/** A lease as an entry's comment tells it: `f2b sshd/web1/1790000000 nginx/web2/0`. */
type Holder = Pick<Lease, 'jail' | 'owner' | 'expires'>

/** The longest timeout that RouterOS takes, 35w3d13h13m56s; a ban for ever gets it again in time. */
const LONGEST = 21_474_836

/** Seconds that a timeout may be too short (clocks), and too long (the list takes that to arrive). */
const SLACK = { short: 5, long: 60 }

/** Seconds of a marker that only asks whether there is one. */
const PROBE = 2

/** How often changes are tried while others change the same entries. */
const TRIES = 4

/** Addresses that are looked up one by one instead of in the whole list. */
const FEW = 10

/** The routers in the configuration. @throws Failure 78 if there is none */
export function mikrotikTargets(list: Mikrotik[]): Target[] {
  return entriesOf('mikrotik', list).map(mikrotikTarget)
}

/**
 * The address list of one router. An address is one entry there, whoever bans it: all its leases stand
 * in the comment, and the timeout is that of the longest, so that the router ends it by itself. An
 * entry with another comment is somebody else's and stays as it is. A reboot takes all timed entries,
 * and the marker with them: an entry at an address that no packet comes from.
 */
function mikrotikTarget(settings: Mikrotik): Target {
  const router = new Router(settings)

  /** Adds the marker. @returns false if it is there: that is told at once, without a search */
  async function mark(call: Call, seconds: number): Promise<boolean> {
    const { address, wanted } = markerOf(call.owner)
    if (call.dryRun) return (await router.read(call, address.text)).length === 0
    const [result] = await router.write(call, [{ address, wanted: { ...wanted, seconds } }])
    if (result instanceof Failure) throw result
    return result === 'done'
  }

  /**
   * Fails until a sync has filled a list that was emptied. Whatever becomes of us in between, no marker
   * of an empty list stays: what this adds ends by itself.
   */
  async function check(call: Call): Promise<void> {
    const { address } = markerOf(call.owner)
    if (!(await mark(call, PROBE))) return
    const [row] = call.dryRun ? [] : await router.read(call, address.text)
    if (row) await router.write(call, [{ address, row }])
    const why = 'its list was emptied, by a reboot perhaps: f2b-sync fills it'
    throw new LostGeneration(EXIT.temporary, why)
  }

  async function find(call: Call, addresses: string[]): Promise<Map<string, Row>> {
    const rows: Row[] = []
    if (addresses.length > FEW) rows.push(...(await router.readAll(call)))
    else for (const text of addresses) rows.push(...(await router.read(call, text)))
    return new Map(rows.map((row) => [row.address, row]))
  }

  return {
    name: settings.name,
    check,
    open: check,
    close: () => router.close(),

    async start(call) {
      const { address, wanted } = markerOf(call.owner)
      if (call.dryRun) return call.show(`add ${address.text}`)
      if (await mark(call, LONGEST)) return
      // It may be one that a check has added, which ends in a moment.
      const [row] = await router.read(call, address.text)
      const write = entryFor(address, wanted, row)
      const [result] = write ? await router.write(call, [write]) : []
      if (result instanceof Failure) throw result
    },

    async list(call) {
      return (await router.readAll(call)).flatMap((row) => leasesOf(row, call))
    },

    /** A first ban is one call: it is added, and its entry is looked up only if there was one. */
    async change(call, changes) {
      const open = new Map<string, Change[]>()
      for (const change of changes) {
        const { text } = subjectOf(change).address
        open.set(text, [...(open.get(text) ?? []), change])
        if (call.dryRun) call.show(describeChange(call, change))
      }
      const made = new Map<string, Outcome>()
      for (let attempt = 0; !call.dryRun && made.size < open.size; attempt++) {
        if (attempt > TRIES) throw new Failure(EXIT.temporary, 'others change the same entries')
        const left = [...open].filter(
          ([text, own]) => !made.has(text) && (attempt > 0 || isLoneBan(own)),
        )
        const rows = await find(call, attempt > 0 ? left.map(([text]) => text) : [])
        const writes: Write[] = []
        for (const [text, own] of left) {
          const { address } = subjectOf(own[0] as Change)
          const hold = (held: Holder[]) => own.reduce(changed(call.owner), held)
          const write = writeFor(address, rows.get(text), hold)
          if (write && !(write instanceof Failure)) writes.push(write)
          else made.set(text, write)
        }
        const results = await router.write(call, writes, Math.max(0, attempt - 1))
        for (const [i, { address }] of writes.entries()) {
          const result = results[i]
          if (result !== 'again') made.set(address.text, result === 'done' ? undefined : result)
        }
      }
      return changes.map((change) => made.get(subjectOf(change).address.text))
    },

    /** What was written may not be there: it is over when the list, read again, lacks nothing. */
    async sync(call, leases) {
      const wanted = byAddress(leases.filter(({ expires }) => alive(expires, now())))
      const refused = new Set<string>()
      const marker = markerOf(call.owner)
      let counts: Counts | undefined
      for (let pass = 0; pass <= TRIES; pass++) {
        const rows = await router.readAll(call)
        const known = new Map(rows.map((row) => [row.address, row]))
        const had = rows.flatMap((row) => leasesOf(row, call))
        const held = byAddress(had)
        const { address: at, wanted: mine } = marker
        const writes = [entryFor(at, mine, known.get(at.text)) ?? []].flat()
        for (const text of new Set([...wanted.keys(), ...held.keys()])) {
          const own = wanted.get(text) ?? []
          const [{ address }] = [...own, ...(held.get(text) ?? [])] as [Lease]
          const row = known.get(text)
          const write = writeFor(address, row, (all) => [
            ...all.filter((h) => !isOwn(h, call)),
            ...own,
          ])
          if (write instanceof Failure) refused.add(text)
          else if (write && !refused.has(text)) writes.push(write)
          else if (row && !holdersOf(row)) had.push(...own)
        }
        counts ??= countsOf(had, [...wanted.values()].flat())
        for (const write of call.dryRun ? writes : []) call.show(describeWrite(write))
        if (call.dryRun || writes.length === 0) {
          const lacks = [...refused].flatMap((text) => wanted.get(text) ?? []).length
          return { ...counts, added: counts.added - lacks, refused: lacks }
        }
        const results = await router.write(call, writes, pass)
        for (const [i, { address }] of writes.entries()) {
          if (results[i] instanceof Failure) refused.add(address.text)
        }
      }
      throw new Failure(EXIT.unexpected, 'does not have what it was told, though it said so')
    },
  }
}

function describeWrite({ address, row, wanted }: Write): string {
  return `${wanted ? (row ? 'set' : 'add') : 'remove'} ${address.text}`
}

const BY_HAND = 'its list has that address from somebody else, and not for as long'

function isLoneBan([change, ...more]: Change[]): boolean {
  return change?.verb === 'ban' && more.length === 0
}

function byAddress(leases: readonly Lease[]): Map<string, Lease[]> {
  const groups = new Map<string, Lease[]>()
  for (const lease of leases) {
    const { text } = lease.address
    groups.set(text, [...(groups.get(text) ?? []), lease])
  }
  return groups
}

/** Who holds an entry; undefined if it is none of ours. */
function holdersOf({ comment }: Row): Holder[] | undefined {
  if (!/^f2b( [^ /]+\/[^ /]+\/\d{1,12})+$/.test(comment)) return undefined
  return comment
    .split(' ')
    .slice(1)
    .map((word) => {
      const [jail = '', owner = '', expires] = word.split('/')
      return { jail, owner, expires: Number(expires) }
    })
}

function isOwn({ jail, owner, expires }: Holder, call: Call): boolean {
  return owner === call.owner && (call.jail ?? jail) === jail && alive(expires, now())
}

function leasesOf(row: Row, call: Call): Lease[] {
  const own = (holdersOf(row) ?? []).filter((holder) => isOwn(holder, call))
  return own.map((holder) => ({ ...holder, address: parseAddress(row.address) }))
}

/** Makes one change of an owner among those who hold an entry; a ban never cuts. */
function changed(owner: string) {
  return (holders: Holder[], change: Change): Holder[] => {
    const { jail } = subjectOf(change)
    const held = holders.find((holder) => holder.jail === jail && holder.owner === owner)
    const others = holders.filter((holder) => holder !== held)
    if (change.verb === 'unban') return others
    const { expires } = change.lease
    const isLonger = held && alive(held.expires, now())
    return [...others, { jail, owner, expires: isLonger ? later(held.expires, expires) : expires }]
  }
}

/**
 * What makes an entry that of the right holders; undefined if it is. Another's entry is no business of
 * ours if it blocks for as long as we want.
 */
function writeFor(
  address: Address,
  row: Row | undefined,
  edit: (held: Holder[]) => Holder[],
): Write | Refusal | undefined {
  const held = row ? holdersOf(row) : []
  const holders = edit(held ?? []).filter(({ expires }) => alive(expires, now()))
  const end = holders.map(({ expires }) => expires).reduce(later, 1)
  const seconds = end === 0 ? LONGEST : Math.min(LONGEST, end - now() + 1)
  if (row && !held) {
    const { seconds: left = LONGEST, disabled } = row
    const covers = holders.length === 0 || (!disabled && left >= seconds - 1)
    return covers ? undefined : new Refusal(EXIT.refused, BY_HAND)
  }
  if (holders.length === 0) return row && { address, row }
  const words = holders.map(({ jail, owner, expires }) => `${jail}/${owner}/${expires}`).sort()
  const comment = `f2b ${words.join(' ')}`
  return entryFor(address, { seconds, comment }, row)
}

/** What makes an entry the wanted one; undefined if it is. */
function entryFor(address: Address, wanted: Wanted, row: Row | undefined): Write | undefined {
  if (!row) return { address, wanted }
  const { seconds, comment } = wanted
  const left = row.seconds ?? Number.POSITIVE_INFINITY
  const least = seconds === LONGEST ? LONGEST / 2 : seconds - SLACK.short
  const isRight = left >= least && left <= seconds + SLACK.long && !row.disabled
  return isRight && row.comment === comment ? undefined : { address, row, wanted }
}

/** Each server has one of its own, in the network that means "this network" and is never banned. */
function markerOf(owner: string): { address: Address; wanted: Wanted } {
  const [a, b, c] = createHash('sha256').update(owner).digest()
  const address = parseAddress(`0.${a}.${b}.${c}`)
  return { address, wanted: { seconds: LONGEST, comment: `f2b-marker ${owner}` } }
}
