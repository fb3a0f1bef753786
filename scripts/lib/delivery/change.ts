import { codeOf, EXIT, Failure } from '../failure.ts'
import { type Lease, NO_JAIL } from '../lease.ts'
import type { Call, Change, Changed, Target } from '../target.ts'
import { type Fail2BanBans, isKept } from './fail2ban-bans.ts'

/** So many changes are made one by one; more are made by reading, changing and sending it all. */
const FEW = 8

/** Makes changes at any target: with its own way of making many, if it has one. */
export async function makeChanges(target: Target, call: Call, changes: Change[]): Promise<Changed> {
  if (target.change) return await target.change(call, changes)
  if (changes.length > FEW) {
    const changed = await changeAll(target, call, changes)
    if (!changed.failure || !isItsOwn(changed.failure)) return changed
    // One of them spoils it for all: the rest is made one by one.
  }
  const results: Changed['results'] = []
  for (const change of changes) {
    try {
      await makeOne(target, call, change)
      results.push(undefined)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      if (!isItsOwn(error)) return { results, failure: error }
      results.push(error)
    }
  }
  return { results }
}

/** True if the trouble is with what was asked for, not with the target. */
function isItsOwn(failure: Failure): boolean {
  return codeOf(failure) === EXIT.input
}

async function makeOne(target: Target, call: Call, change: Change): Promise<void> {
  const named = { ...call, ...call.namings?.get(jailOf(change)) }
  if (change.verb === 'ban') await target.ban(named, change.lease)
  else await target.unban(named, change.address, change.jail)
}

/** What the target has of ours, with the changes made to it, sent back in one go. */
async function changeAll(target: Target, call: Call, changes: Change[]): Promise<Changed> {
  try {
    const leases = await target.list({ ...call, jail: undefined })
    const made = new Map(leases.map((lease) => [`${lease.address.text} ${lease.jail}`, lease]))
    for (const change of changes) {
      if (change.verb === 'ban') {
        made.set(`${change.lease.address.text} ${change.lease.jail}`, change.lease)
      } else {
        made.delete(`${change.address.text} ${change.jail}`)
      }
    }
    await target.sync(call, [...made.values()])
    return { results: changes.map(() => undefined) }
  } catch (error) {
    if (error instanceof Failure) return { results: [], failure: error }
    throw error
  }
}

/**
 * What a target is to have: these leases, and of those that it has what stays without being asked
 * for: what was banned by hand and without a jail, and the leases of jails that are not understood.
 */
export async function withKept(
  target: Target,
  call: Call,
  leases: Lease[],
  truth: Fail2BanBans | undefined,
): Promise<Lease[]> {
  const quiet = { ...call, jail: NO_JAIL, dryRun: false }
  const manual = target.byHand
    ? await target.byHand(quiet)
    : (await target.list(quiet)).filter(({ jail }) => jail === NO_JAIL)
  const isOdd = truth !== undefined && (truth.keepsOthers || truth.kept.size > 0)
  const others = isOdd ? await target.list({ ...quiet, jail: undefined }) : []
  const known = new Set(leases.map(keyOf))
  return [
    ...manual.filter((lease) => !known.has(keyOf(lease))),
    ...others.filter((lease) => {
      return (
        truth && lease.jail !== NO_JAIL && isKept(truth, lease.jail) && !known.has(keyOf(lease))
      )
    }),
    ...leases,
  ]
}

function keyOf({ address, jail }: Lease): string {
  return `${address.text} ${jail}`
}

function jailOf(change: Change): string {
  return change.verb === 'ban' ? change.lease.jail : change.jail
}
