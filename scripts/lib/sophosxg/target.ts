import { EXIT, Failure } from '../failure.ts'
import type { Lease } from '../lease.ts'
import type { SophosXg } from '../settings/sophosxg.ts'
import type { Call, Synced, Target } from '../target.ts'
import { type Box, findHosts } from './box.ts'
import { withClient } from './client.ts'
import { converge } from './converge.ts'
import { checkGroups, ensureGroups, FAMILIES, missingGroups } from './groups.ts'
import { banHost, unbanHost } from './hosts.ts'
import { banListed, listListed, syncListed, unbanListed } from './iplist.ts'
import { groupsOf, nameOf, readHost } from './objects.ts'
import { makePlan } from './plan.ts'

/** The firewalls in the configuration. @throws Failure 78 if there is none */
export function sophosTargets(list: SophosXg[]): Target[] {
  if (list.length > 0) return list.map(sophosTarget)
  throw new Failure(EXIT.config, 'Cannot find section "sophosxg" in the configuration')
}

/** One Sophos firewall as a target: the verbs, whichever mode it works in. */
export function sophosTarget(settings: SophosXg): Target {
  const lists = settings.mode === 'iplist'
  const at = <T>(call: Call, work: (box: Box) => Promise<T>): Promise<T> =>
    withClient(settings, call, (client) => work({ client, settings, owner: call.owner, call }))

  return {
    name: settings.name,
    start: (call) => at(call, (box) => start(box)),

    // The group stays, and so does what is in it: rules use it, and leases outlive a restart.
    async stop() {},

    check: (call) => at(call, checkGroups),

    async flush(call) {
      await this.sync(call, [])
    },

    async ban(call, lease) {
      const name = nameOf(settings.iphost_prefix, lease)
      if (call.dryRun) return call.show(`add ${name} until ${lease.expires}`)
      await at(call, (box) => (lists ? banListed(box, lease) : banHost(box, lease)))
    },

    async unban(call, address, jail) {
      const name = nameOf(settings.iphost_prefix, { address, jail, owner: call.owner })
      if (call.dryRun) return call.show(`release ${name}`)
      await at(call, (box) => (lists ? unbanListed : unbanHost)(box, address, jail))
    },

    list: (call) => at(call, (box) => (lists ? listListed : listHosts)(box, call.jail)),

    sync: (call, leases) =>
      at(call, async (box) => {
        const sync = lists ? syncListed : syncHosts
        const { counts, lines } = await sync(box, leases, call.jail)
        for (const line of lines) if (call.dryRun) call.show(line)
        return counts
      }),
  }
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

async function syncHosts(
  box: Box,
  leases: readonly Lease[],
  jail: string | undefined,
): Promise<{ counts: Synced; lines: string[] }> {
  const { counts, lines } = await converge(box, box.settings.iphost_prefix, (found) =>
    makePlan(box, found, { leases, jail }),
  )
  return { counts, lines }
}
