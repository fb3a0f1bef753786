import { type Family, parseAddress } from '../address.ts'
import type { SophosXg } from '../settings/sophosxg.ts'
import type { Found } from './answer.ts'
import { otherGroups } from './box.ts'
import { FAMILIES } from './groups.ts'
import { FAMILY, groupsOf } from './objects.ts'
import type { Entity } from './request.ts'

/** The box takes no more addresses in one IPList (measured by others, facts section 4). */
const FULL = 1000

/** A list cannot be empty: these documentation addresses stand for "nothing". */
const PLACEHOLDER = { inet4: '192.0.2.0', inet6: '2001:db8::' } as const

/** A list of ours as the box has it; the placeholder counts as no member. */
export interface List {
  name: string
  family: Family
  number: number
  groups: string[]
  members: string[]
}

/** The lists that are ours: `<prefix>list4_<number>@<owner>`. */
export function readLists(settings: SophosXg, owner: string, found: Found[]): List[] {
  const lists = found.map((one) => readList(settings, owner, one))
  return lists
    .filter((list) => list !== undefined)
    .sort((a, b) => (a.family === b.family ? a.number - b.number : a.family < b.family ? -1 : 1))
}

/** Which addresses the lists of our groups block. */
export function listed(settings: SophosXg, lists: List[]): Set<string> {
  const groups = groupsOf(settings)
  return new Set(
    lists.flatMap((list) => (list.groups.includes(groups[list.family]) ? list.members : [])),
  )
}

/**
 * The lists that must be written so that together they hold exactly the wanted addresses. An address
 * stays in its list, so that a change touches as few lists as possible.
 */
export function planLists(
  settings: SophosXg,
  owner: string,
  lists: List[],
  wanted: Iterable<string>,
): Entity[] {
  const all = [...wanted]
  return FAMILIES.flatMap((family) => {
    const left = new Set(all.filter((text) => text.includes(':') === (family === 'inet6')))
    const known = lists.filter((list) => list.family === family)
    const kept = known.map((list) => list.members.filter((member) => left.delete(member)))
    const spread = grow(known, kept, left, (number) => emptyList(settings, owner, family, number))
    const group = groupsOf(settings)[family]
    return spread
      .filter(({ list, members }) => differs(list, members, group))
      .map(({ list, members }) => listEntity(settings, list, members))
  })
}

/** The object of a list that is taken out of our groups, its members unchanged. */
export function releasedList(settings: SophosXg, list: List): Entity {
  return { ...listEntity(settings, list, list.members), ...membership(settings, list, []) }
}

function readList(settings: SophosXg, owner: string, found: Found): List | undefined {
  const { name, type, groups, list } = found
  const rest = name.startsWith(settings.iphost_prefix) && name.slice(settings.iphost_prefix.length)
  const [, version, number, named] = /^list([46])_([1-9]\d{0,3})@(.+)$/.exec(rest || '') ?? []
  if (type !== 'IPList' || named !== owner) return undefined
  const family = version === '4' ? 'inet4' : 'inet6'
  const members = list.map(canonical).filter((member) => member !== PLACEHOLDER[family])
  return { name, family, number: Number(number), groups, members }
}

/** Puts what is left into lists with room, then into new ones. */
function grow(
  known: List[],
  kept: string[][],
  left: Set<string>,
  make: (number: number) => List,
): { list: List; members: string[] }[] {
  const spread = known.map((list, i) => ({ list, members: kept[i] ?? [] }))
  const rest = [...left]
  for (const { members } of spread) members.push(...rest.splice(0, FULL - members.length))
  for (let number = 1; rest.length > 0; number++) {
    if (known.some((list) => list.number === number)) continue
    spread.push({ list: make(number), members: rest.splice(0, FULL) })
  }
  return spread
}

function emptyList(settings: SophosXg, owner: string, family: Family, number: number): List {
  const name = `${settings.iphost_prefix}list${family === 'inet4' ? 4 : 6}_${number}@${owner}`
  return { name, family, number, groups: [], members: [] }
}

function differs(list: List, members: string[], group: string): boolean {
  const known = new Set(list.members)
  const same = members.length === list.members.length && members.every((m) => known.has(m))
  return !same || !list.groups.includes(group)
}

function listEntity(settings: SophosXg, list: List, members: string[]): Entity {
  const content = members.length > 0 ? members : [PLACEHOLDER[list.family]]
  return {
    Name: list.name,
    IPFamily: FAMILY[list.family],
    Description: 'Banned by Fail2Ban: a list that fail2ban-perimeter rewrites',
    HostType: 'IPList',
    ...membership(settings, list, [groupsOf(settings)[list.family]]),
    ListOfIPAddresses: content.join(','),
  }
}

function membership(settings: SophosXg, list: List, ours: string[]) {
  const groups = [...ours, ...otherGroups({ settings }, list.groups)]
  return { HostGroupList: groups.length > 0 ? { HostGroup: groups } : '' }
}

function canonical(text: string): string {
  try {
    return parseAddress(text).text
  } catch {
    return text
  }
}
