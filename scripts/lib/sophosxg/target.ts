import { codeOf, EXIT } from '../failure.ts'
import type { Lease } from '../lease.ts'
import type { SophosXg } from '../settings/sophosxg.ts'
import { type Call, type Change, entriesOf, oneByOne, type Target } from '../target.ts'
import { type Box, findHosts } from './box.ts'
import { withClient } from './client.ts'
import { converge } from './converge.ts'
import { checkGroups, ensureGroups, FAMILIES, missingGroups } from './groups.ts'
import { banHost, unbanHost } from './hosts.ts'
import { banListed, listListed, syncListed, unbanListed } from './iplist.ts'
import { groupsOf, nameOf, readHost } from './objects.ts'
import { makePlan, type Plan } from './plan.ts'

/** So many changes are made one by one; more are made by reading, changing and sending it all. */
const FEW = 8

/** The firewalls in the configuration. @throws Failure 78 if there is none */
export function sophosTargets(list: SophosXg[]): Target[] {
  return entriesOf('sophosxg', list).map(sophosTarget)
}

/** One Sophos firewall as a target: the verbs, whichever mode it works in. */
export function sophosTarget(settings: SophosXg): Target {
  const lists = settings.mode === 'iplist'
  const at = <T>(call: Call, work: (box: Box) => Promise<T>): Promise<T> =>
    withClient(settings, call, (client) => work({ client, settings, owner: call.owner, call }))

  return {
    name: settings.name,
    start: (call) => at(call, (box) => start(box)),
    check: (call) => at(call, checkGroups),
    list: (call) => at(call, (box) => (lists ? listListed : listHosts)(box, call.jail)),

    async change(call, changes) {
      if (changes.length > FEW) {
        try {
          await changeAll(this, call, changes)
          return changes.map(() => undefined)
        } catch (error) {
          if (codeOf(error) !== EXIT.input) throw error
          // One of them spoils it for all: they are made one by one.
        }
      }
      return await oneByOne(changes, (change) => make(call, change))
    },

    sync: (call, leases) =>
      at(call, async (box) => {
        const sync = lists ? syncListed : syncHosts
        const { counts, lines } = await sync(box, leases, call.jail)
        for (const line of lines) if (call.dryRun) call.show(line)
        return counts
      }),
  }

  async function make(call: Call, change: Change): Promise<void> {
    const of = change.verb === 'ban' ? change.lease : { ...change, owner: call.owner }
    const name = nameOf(settings.iphost_prefix, of)
    if (change.verb === 'unban') {
      if (call.dryRun) return call.show(`release ${name}`)
      return await at(call, (box) => (lists ? unbanListed : unbanHost)(box, of.address, of.jail))
    }
    const { lease } = change
    if (call.dryRun) return call.show(`add ${name} until ${lease.expires}`)
    await at(call, (box) => (lists ? banListed : banHost)(box, lease))
  }
}

/** What the box has of ours, with the changes made to it, sent back in one go. */
async function changeAll(target: Target, call: Call, changes: readonly Change[]): Promise<void> {
  const leases = await target.list({ ...call, jail: undefined })
  const made = new Map(leases.map((lease) => [keyOf(lease), lease]))
  for (const change of changes) {
    if (change.verb === 'ban') made.set(keyOf(change.lease), change.lease)
    else made.delete(keyOf(change))
  }
  await target.sync(call, [...made.values()])
}

function keyOf({ address, jail }: Pick<Lease, 'address' | 'jail'>): string {
  return `${address.text} ${jail}`
}

async function start(box: Box): Promise<void> {
  if (!box.call.dryRun) return await ensureGroups(box, FAMILIES)
  const names = groupsOf(box.settings)
  for (const family of await missingGroups(box, FAMILIES)) {
    box.call.show(`make group ${names[family]}`)
  }
}

/** What of ours is in our groups, overdue leases included: they block until the next sync. */
async function listHosts(box: Box, jail: string | undefined): Promise<Lease[]> {
  const groups = Object.values(groupsOf(box.settings))
  const found = await findHosts(box, box.settings.iphost_prefix)
  return found
    .filter((one) => one.groups.some((group) => groups.includes(group)))
    .flatMap((one) => readHost(box.settings, box.owner, one)?.lease ?? [])
    .filter((lease) => jail === undefined || lease.jail === jail)
}

function syncHosts(box: Box, leases: readonly Lease[], jail: string | undefined): Promise<Plan> {
  return converge(box, box.settings.iphost_prefix, (found) =>
    makePlan(box, found, { leases, jail }),
  )
}
