import { mkdirSync } from 'node:fs'
import { type Address, isSingle, parseAddress } from '../address.ts'
import { ioFailure } from '../failure.ts'
import { alive, type Lease, later, NO_JAIL, now } from '../lease.ts'
import { type Ledger, type Line, RELEASED, withLedger } from '../ledger.ts'
import type { Counts } from '../target.ts'
import { type Box, findHosts } from './box.ts'
import { converge } from './converge.ts'
import { banHost, unbanHost } from './hosts.ts'
import { listed, readLists } from './lists.ts'
import { readHost } from './objects.ts'
import { makeListPlan, makePlan } from './plan.ts'

/** Seconds for others who change the same box; the verb may end sooner. */
const PATIENCE = 600

/**
 * `mode: iplist`: single addresses in lists of a thousand, so that a whole restore is one write. A
 * list knows no leases; they live in a ledger in `state_dir`. Ranges cannot be in a list and stay
 * objects of their own.
 */
export async function banListed(box: Box, lease: Lease): Promise<void> {
  await withBoxLedger(box, async (ledger) => {
    const held = rowOf(ledger, lease.address, lease.jail, lease.owner)
    const expires = later(held ?? RELEASED, lease.expires)
    if (isSingle(lease.address)) await change(box, (all) => all.add(lease.address.text))
    else await banHost(box, { ...lease, expires })
    ledger.put({ address: lease.address.text, jail: lease.jail, owner: lease.owner, expires })
  })
}

/** The address leaves its list when the last jail lets it go. */
export async function unbanListed(box: Box, address: Address, jail: string): Promise<void> {
  await withBoxLedger(box, async (ledger) => {
    const rows = ledger.held(address.text)
    const others = rows.filter((row) => row.jail !== jail && alive(row.expires, now()))
    if (!isSingle(address)) await unbanHost(box, address, jail)
    else if (others.length === 0) await change(box, (all) => all.delete(address.text))
    if (rows.some((row) => row.jail === jail)) {
      ledger.put({ address: address.text, jail, owner: box.owner, expires: RELEASED })
    }
  })
}

/** What the box blocks, with what the ledger knows about it. */
export async function listListed(box: Box, jail: string | undefined): Promise<Lease[]> {
  const found = await findHosts(box, box.settings.iphost_prefix)
  const ranges = found
    .map((one) => readHost(box.settings, box.owner, one)?.lease)
    .filter((lease) => lease !== undefined && lease.expires !== RELEASED)
  const texts = [...listed(box.settings, readLists(box.settings, box.owner, found))]
  const leases = await withBoxLedger(box, async (ledger) =>
    texts.flatMap((text) => leasesOf(ledger, text, box.owner)),
  )
  return [...leases, ...(ranges as Lease[])].filter((l) => jail === undefined || l.jail === jail)
}

/** Makes ledger, lists and ranges equal to the leases (of one jail, or all). */
export async function syncListed(
  box: Box,
  leases: readonly Lease[],
  jail: string | undefined,
): Promise<{ counts: Counts; lines: string[] }> {
  return await withBoxLedger(box, async (ledger) => {
    const lines = leases.map((lease) => ({ ...lease, address: lease.address.text }))
    const { changes, ...counts } = ledger.diff(box.owner, jail, lines, now())
    for (const line of changes) ledger.put(line)
    const wanted = singles([...ledger.living(now())])
    const goal = { leases: leases.filter((l) => !isSingle(l.address)), listed: wanted, jail }
    const plan = await converge(box, box.settings.iphost_prefix, (found) =>
      makePlan(box, found, goal),
    )
    if (!box.call.dryRun) {
      ledger.commit()
      ledger.compact(now())
    }
    return { counts, lines: plan.lines }
  })
}

/** Changes what the lists hold, starting from what the box has. */
async function change(box: Box, edit: (listed: Set<string>) => void): Promise<void> {
  const prefix = `${box.settings.iphost_prefix}list`
  await converge(box, prefix, (found) => makeListPlan(box, found, edit))
}

/** Holds the lock around reading, writing the box and committing what it confirmed. */
async function withBoxLedger<T>(box: Box, work: (ledger: Ledger) => Promise<T>): Promise<T> {
  const path = pathOf(box)
  const { signal, dryRun } = box.call
  const how = { seconds: PATIENCE, signal, lock: `${path}.lock`, dryRun }
  return await withLedger(`${path}.leases`, work, how)
}

function pathOf(box: Box): string {
  const { state_dir } = box.call.config
  try {
    if (!box.call.dryRun) mkdirSync(state_dir, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw ioFailure(`make "${state_dir}"`, error)
  }
  return `${state_dir}/sophosxg-${box.settings.name}`
}

/** When the lease of a jail ends; undefined if it holds none. */
function rowOf(ledger: Ledger, address: Address, jail: string, owner: string): number | undefined {
  return ledger.held(address.text).find((r) => r.jail === jail && r.owner === owner)?.expires
}

function leasesOf(ledger: Ledger, text: string, owner: string): Lease[] {
  const address = parseAddress(text)
  const rows = ledger.held(text).filter((row) => row.expires !== RELEASED)
  // On the box, but in no ledger: the ledger was lost. It is somebody's ban until a sync says no.
  if (rows.length === 0) return [{ address, jail: NO_JAIL, expires: 0, owner }]
  return rows.map((row) => ({ address, jail: row.jail, expires: row.expires, owner: row.owner }))
}

function singles(lines: Line[]): string[] {
  return lines.map(({ address }) => address).filter((text) => !text.includes('/'))
}
