import type { Address } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { type Lease, later, NO_JAIL } from '../lease.ts'
import { RELEASED } from '../ledger.ts'
import { type Box, hasTwin, look, lookAt, type Outcome, otherGroups, writeOne } from './box.ts'
import { LostAnswer, pause, TRIES } from './client.ts'
import { makeGroup } from './groups.ts'
import { groupsOf, type Host, hostEntity, nameOf, released } from './objects.ts'

/**
 * Blocks one address: an object of its own, a member of the group. One request for a new ban. The
 * membership is written from the object's side, so that no list of members is ever rewritten and
 * nobody else's entry can be lost.
 */
export async function banHost(box: Box, lease: Lease): Promise<void> {
  const { family } = lease.address
  const group = groupsOf(box.settings)[family]
  const name = nameOf(box.settings.iphost_prefix, lease)
  let known: Host | undefined
  let groupMade = false
  for (let tries = 1; ; tries++) {
    const outcome = await putHost(box, name, lease, known)
    if (outcome.verdict === 'done') return
    if (outcome.verdict === 'twin') return await acceptTwin(box, lease, outcome)
    if (!groupMade && (outcome.code === 501 || outcome.code === 500)) {
      // An unknown group is answered with 501 or 500. One that is there by now is no other reason:
      // another process may have made it just after our question.
      groupMade = true
      await makeGroup(box, family)
      continue
    }
    if (outcome.verdict === 'refused') throw outcome.failure
    known = await look(box, name)
    if (known && blocks(known, group, lease.expires)) return
    if (tries >= TRIES) throw outcome.failure
    if (outcome.verdict === 'unsure') await pause(tries, box.call.signal)
  }
}

/**
 * Frees one address of one jail: out of the groups, then gone. Two requests however many objects the
 * box has, one if there is nothing to free. An object that a rule still uses stays until the next
 * sync or flush; it blocks nothing.
 */
export async function unbanHost(box: Box, address: Address, jail: string): Promise<void> {
  const lease = { address, jail, owner: box.owner, expires: RELEASED }
  const name = nameOf(box.settings.iphost_prefix, lease)
  if (await releaseHost(box, name, lease, [])) return await removeHost(box, name)
  if (jail !== NO_JAIL) return
  const legacy = `${box.settings.iphost_prefix}${address.text}`
  const { host } = await lookAt(box, legacy)
  if (!host) return
  await releaseHost(box, legacy, lease, otherGroups(box, host.groups))
  if (otherGroups(box, host.groups).length === 0) await removeHost(box, legacy)
}

/** True if the object keeps the address blocked until that moment at least. */
export function blocks(host: Host, group: string, expires: number): boolean {
  const longEnough = later(host.lease.expires, expires) === host.lease.expires
  return host.intact && host.groups.includes(group) && longEnough
}

/** Adds the object or, if it is known, updates it: a longer lease extends, a shorter never cuts. */
async function putHost(
  box: Box,
  name: string,
  lease: Lease,
  known: Host | undefined,
): Promise<Outcome> {
  const group = groupsOf(box.settings)[lease.address.family]
  const held = known?.groups.includes(group) ? known.lease.expires : RELEASED
  const groups = [group, ...(known ? otherGroups(box, known.groups) : [])]
  const wanted = { ...lease, expires: later(lease.expires, held) }
  return await writeOne(box, {
    verb: 'Set',
    kind: 'IPHost',
    operation: known ? 'update' : 'add',
    entities: [hostEntity(name, wanted, groups)],
  })
}

/** The box may refuse a second object with the same address; if that one is in our group, fine. */
async function acceptTwin(box: Box, lease: Lease, outcome: Outcome): Promise<void> {
  const group = groupsOf(box.settings)[lease.address.family]
  if (await hasTwin(box, lease.address.text.split('/')[0] ?? '', group)) return
  const hint = 'another object has the same address and is not in our group'
  throw new Failure(EXIT.unexpected, `${outcome.failure.message}: ${hint}`)
}

/** @returns false if there is no such object */
async function releaseHost(
  box: Box,
  name: string,
  lease: Lease,
  groups: string[],
): Promise<boolean> {
  const ours = Object.values(groupsOf(box.settings))
  const entities = [hostEntity(name, released(lease), groups)]
  for (let tries = 1; ; tries++) {
    const ask = { verb: 'Set', kind: 'IPHost', operation: 'update', entities } as const
    const { verdict, failure } = await writeOne(box, ask)
    if (verdict === 'done') return true
    if (verdict === 'missing') return false
    if (verdict === 'refused') throw failure
    const host = await look(box, name)
    if (!host) return false
    if (!host.groups.some((group) => ours.includes(group))) return true
    if (tries >= TRIES) throw failure
    await pause(tries, box.call.signal)
  }
}

/** Deletes an object that is out of our groups; one that is still in use waits for the sweep. */
async function removeHost(box: Box, name: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    const { verdict, failure } = await writeOne(box, {
      verb: 'Remove',
      kind: 'IPHost',
      names: [name],
    })
    if (verdict === 'done' || verdict === 'missing' || verdict === 'in use') return
    if (!(await look(box, name))) return
    if (tries < TRIES) await pause(tries, box.call.signal)
    else if (failure instanceof LostAnswer) throw failure
    else return
  }
}
