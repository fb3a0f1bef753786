import type { Family } from '../address.ts'
import type { Lease } from '../lease.ts'
import type { Counts } from '../target.ts'
import type { Found } from './answer.ts'
import { type Box, otherGroups } from './box.ts'
import { FAMILIES } from './groups.ts'
import { type List, planLists, readLists, releasedList } from './lists.ts'
import { groupsOf, type Host, hostEntity, nameOf, readHost, released } from './objects.ts'
import type { Entity } from './request.ts'

/** What has to be written so that the box is as it should be. */
export interface Plan {
  /** Objects to add, change or take out of the groups. */
  writes: Entity[]
  /** Names to delete after that. */
  removals: string[]
  /** Families that get members although nothing shows that their group is there. */
  groups: Family[]
  /** One line for each change. */
  lines: string[]
  counts: Required<Omit<Counts, 'refused'>>
}

/** What the box should have. `listed` is undefined in `hosts` mode, which has no lists. */
export interface Goal {
  leases: readonly Lease[]
  listed?: readonly string[]
  jail: string | undefined
}

/** Compares what the box has with what it should have. Only what is ours is ever in the plan. */
export function makePlan(box: Box, found: Found[], goal: Goal): Plan {
  const { settings, owner } = box
  const plan = emptyPlan()
  const hosts = found.map((one) => readHost(settings, owner, one)).filter((h) => h !== undefined)
  const wanted = new Map(goal.leases.map((l) => [nameOf(settings.iphost_prefix, l), l] as const))
  for (const host of hosts) {
    const lease = wanted.get(host.name)
    if (lease) keepHost(box, plan, host, lease)
    else if (goal.jail === undefined || host.lease.jail === goal.jail) dropHost(box, plan, host)
  }
  for (const host of hosts) wanted.delete(host.name)
  for (const [name, lease] of wanted) addHost(box, plan, name, lease)
  addLists(box, plan, readLists(settings, owner, found), goal)
  plan.groups = unprovenGroups(box, plan, found)
  return plan
}

/** A plan for lists alone. */
export function makeListPlan(
  box: Box,
  found: Found[],
  change: (listed: Set<string>) => void,
): Plan {
  const { settings, owner } = box
  const plan = emptyPlan()
  const lists = readLists(settings, owner, found)
  const members = new Set(lists.flatMap((list) => list.members))
  change(members)
  putLists(plan, planLists(settings, owner, lists, members))
  plan.groups = unprovenGroups(box, plan, found)
  return plan
}

function emptyPlan(): Plan {
  const counts = { added: 0, extended: 0, removed: 0, unchanged: 0 }
  return { writes: [], removals: [], groups: [], lines: [], counts }
}

function addHost(box: Box, plan: Plan, name: string, lease: Lease): void {
  plan.writes.push(hostEntity(name, lease, [groupsOf(box.settings)[lease.address.family]]))
  plan.lines.push(`add ${name} until ${lease.expires}`)
  plan.counts.added++
}

function keepHost(box: Box, plan: Plan, host: Host, lease: Lease): void {
  const group = groupsOf(box.settings)[lease.address.family]
  const inGroup = host.groups.includes(group)
  if (inGroup && host.intact && host.lease.expires === lease.expires) {
    plan.counts.unchanged++
    return
  }
  const groups = [group, ...otherGroups(box, host.groups)]
  plan.writes.push(hostEntity(host.name, lease, groups))
  plan.lines.push(`${inGroup ? 'change' : 'put back'} ${host.name} until ${lease.expires}`)
  if (inGroup) plan.counts.extended++
  else plan.counts.added++
}

/** Out of our groups, then gone; what another group still uses stays, without blocking. */
function dropHost(box: Box, plan: Plan, host: Host): void {
  const others = otherGroups(box, host.groups)
  if (others.length < host.groups.length) {
    plan.writes.push(hostEntity(host.name, released(host.lease), others))
    plan.lines.push(`release ${host.name}`)
    plan.counts.removed++
  } else if (others.length === 0) {
    plan.lines.push(`sweep ${host.name}`)
  }
  if (others.length === 0) plan.removals.push(host.name)
}

function addLists(box: Box, plan: Plan, lists: List[], goal: Goal): void {
  if (goal.listed) {
    putLists(plan, planLists(box.settings, box.owner, lists, goal.listed))
    return
  }
  // Left over from `mode: iplist`: the leases that were in them are objects of their own now.
  for (const list of goal.jail === undefined ? lists : []) {
    const others = otherGroups(box, list.groups)
    if (others.length < list.groups.length) plan.writes.push(releasedList(box.settings, list))
    if (others.length === 0) plan.removals.push(list.name)
    if (others.length === 0 || others.length < list.groups.length) {
      plan.lines.push(`release ${list.name}`)
    }
  }
}

function putLists(plan: Plan, entities: Entity[]): void {
  plan.writes.push(...entities)
  plan.lines.push(...entities.map((entity) => `rewrite ${entity.Name}`))
}

/** A group that has a member is there; of any other we cannot know. */
function unprovenGroups(box: Box, plan: Plan, found: Found[]): Family[] {
  const names = groupsOf(box.settings)
  const needed = plan.writes.flatMap(
    (e) => (e.HostGroupList as { HostGroup?: string[] }).HostGroup ?? [],
  )
  const seen = new Set(found.flatMap((one) => one.groups))
  return FAMILIES.filter((family) => needed.includes(names[family]) && !seen.has(names[family]))
}
