import { createHash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { parseAddress } from '../address.ts'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import { alive, type Lease, now } from '../lease.ts'
import { type Ledger, withLedger } from '../ledger.ts'
import type { Opnsense } from '../settings/opnsense.ts'
import {
  type Call,
  countsOf,
  describeChange,
  entriesOf,
  LostGeneration,
  type Outcome,
  Refusal,
  subjectOf,
  type Target,
} from '../target.ts'
import { Table } from './client.ts'

/** Addresses that are looked up one by one instead of in the whole table. */
const FEW = 3

/** Milliseconds of changes, at one call each; what is left is for the next batch. */
const PATIENCE = { batch: 12_000, sync: 540_000 }

/** The firewalls in the configuration. @throws Failure 78 if there is none */
export function opnsenseTargets(list: Opnsense[], owner: string): Target[] {
  return entriesOf('opnsense', list).map((settings) => opnsenseTarget(settings, owner))
}

/** Each server has an alias of its own. */
export function aliasOf({ alias }: Pick<Opnsense, 'alias'>, owner: string): string {
  return alias ?? `f2b_${owner.replace(/\W/g, '_')}`.slice(0, 32)
}

/**
 * The table of one alias, which holds addresses and nothing about them. So each server has an alias of
 * its own, and a ledger of the leases: it is written before the table, so that whatever is in the table
 * and not in the ledger is somebody else's and stays. `done` proves nothing: what was written is read
 * back. A reboot empties the table, and takes the sentinel with it, an address for documentation.
 */
function opnsenseTarget(settings: Opnsense, owner: string): Target {
  const alias = aliasOf(settings, owner)
  const table = new Table(settings, alias)
  const [a = 0, b = 0] = new Uint16Array(createHash('sha256').update(owner).digest().buffer)
  const sentinel = parseAddress(`2001:db8:f2b:${a.toString(16)}:${b.toString(16)}::1`).text

  async function check(call: Call): Promise<void> {
    if ((await table.list(call, sentinel)).has(sentinel)) return
    const why = `its alias "${alias}" was emptied, by a reboot perhaps: f2b-sync fills it`
    throw new LostGeneration(EXIT.temporary, why)
  }

  /** What of these the table has. */
  async function present(call: Call, addresses: string[]): Promise<Set<string>> {
    if (addresses.length > FEW) return await table.list(call)
    const found: string[] = []
    for (const address of addresses) found.push(...(await table.list(call, address)))
    return new Set(found)
  }

  /** Adds or removes each, as long as there is time. @returns those that were tried, and how it went */
  async function write(call: Call, wanted: Map<string, boolean>, patience: number) {
    const end = Date.now() + patience
    const tried = new Map<string, Outcome>()
    for (const [address, isIn] of wanted) {
      if (tried.size > 0 && Date.now() > end) break
      const work = isIn ? table.add(call, address) : table.remove(call, address)
      tried.set(address, await work.then(() => undefined, onlyRefusal))
      call.progress(tried.size, wanted.size)
    }
    const there = await present(call, [...tried.keys()])
    for (const [address, isIn] of wanted) {
      if (!tried.has(address) || tried.get(address) || there.has(address) === isIn) continue
      tried.set(
        address,
        isIn ? new Refusal(EXIT.refused, FULL) : new Failure(EXIT.unexpected, STAYS),
      )
    }
    return tried
  }

  return {
    name: settings.name,
    check,
    open: check,
    close: () => table.close(),

    async start(call) {
      if (call.dryRun) return call.show(`add ${sentinel}`)
      const tried = await write(call, new Map([[sentinel, true]]), PATIENCE.batch)
      const failure = tried.get(sentinel)
      if (failure) throw failure
    },

    async list(call) {
      const there = await table.list(call)
      return await withTable(settings.name, call, (ledger) => {
        return leasesOf(ledger, call).filter(({ address }) => there.has(address.text))
      })
    },

    async change(call, changes) {
      if (call.dryRun) {
        for (const change of changes) call.show(describeChange(call, change))
        return changes.map(() => undefined)
      }
      return await withTable(settings.name, call, async (ledger) => {
        const wanted = new Map<string, boolean>()
        for (const change of changes) {
          const { address } = ledger.enter(change, owner)
          const isIn = ledger.held(address).some(({ expires }) => alive(expires, now()))
          // What another jail holds is not asked for again to be let go.
          if (change.verb === 'unban' && isIn) wanted.delete(address)
          else wanted.set(address, isIn)
        }
        ledger.commit()
        const tried = await write(call, wanted, PATIENCE.batch)
        const outcomes = changes.map((change) => {
          const { text } = subjectOf(change).address
          return wanted.has(text) && !tried.has(text) ? LATER : tried.get(text)
        })
        const at = outcomes.indexOf(LATER)
        return at < 0 ? outcomes : outcomes.slice(0, at)
      })
    },

    async sync(call, leases) {
      return await withTable(settings.name, call, async (ledger) => {
        const there = await table.list(call)
        const had = leasesOf(ledger, call).filter(({ address }) => there.has(address.text))
        const wishes = leases.filter(({ expires }) => alive(expires, now()))
        const counts = countsOf(had, wishes)
        const lines = wishes.map((lease) => ({ ...lease, address: lease.address.text }))
        const { changes } = ledger.diff(owner, call.jail, lines, now())
        for (const line of changes) ledger.put(line)
        const living = new Set([...ledger.living(now())].map(({ address }) => address))
        const over = [...ledger.ended(now())].map(({ address }) => address)
        const wanted = new Map<string, boolean>()
        for (const text of over) if (there.has(text) && !living.has(text)) wanted.set(text, false)
        for (const text of [sentinel, ...living]) if (!there.has(text)) wanted.set(text, true)
        if (call.dryRun) {
          for (const [text, isIn] of wanted) call.show(`${isIn ? 'add' : 'remove'} ${text}`)
          ledger.discard()
          return counts
        }
        ledger.commit()
        const tried = wanted.size > 0 ? await write(call, wanted, PATIENCE.sync) : new Map()
        if (tried.size < wanted.size) {
          const done = `${tried.size} of ${wanted.size} changes are made`
          throw new Failure(EXIT.temporary, `${done}; the next sync goes on`)
        }
        for (const failure of tried.values())
          if (failure && !(failure instanceof Refusal)) throw failure
        if (over.length > 0) ledger.compact(now())
        const lacks = wishes.filter(({ address }) => tried.get(address.text)).length
        return { ...counts, added: counts.added - lacks, refused: lacks }
      })
    },
  }
}

const FULL =
  'said done, and its table does not have it: raise Firewall Maximum Table Entries if it is full'
const STAYS = 'said done, and its table still has it'
const LATER = new Failure(EXIT.temporary, 'is left for the next batch')

function onlyRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error
  throw error
}

function leasesOf(ledger: Ledger, { owner, jail }: Call): Lease[] {
  const own = ledger.own(owner, jail, now())
  return own.map((line) => ({ ...line, address: parseAddress(line.address) }))
}

/** One process at a time changes the table: the ledger is what it should be. */
async function withTable<T>(
  name: string,
  call: Call,
  work: (ledger: Ledger) => T | Promise<T>,
): Promise<T> {
  const { state_dir } = call.config
  try {
    if (!call.dryRun) mkdirSync(state_dir, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw ioFailure(`make "${state_dir}"`, error)
  }
  const { signal, dryRun } = call
  return await withLedger(`${state_dir}/opnsense-${name}.leases`, work, {
    seconds: 600,
    signal,
    dryRun,
  })
}
