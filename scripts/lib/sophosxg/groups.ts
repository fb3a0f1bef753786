import type { Family } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import { type Box, write, writeOne } from './box.ts'
import { pause, TRIES } from './client.ts'
import { FAMILY, groupEntity, groupsOf } from './objects.ts'
import type { Filter } from './request.ts'

export const FAMILIES = ['inet4', 'inet6'] as const

/**
 * Makes the groups that are missing. A group is never changed nor deleted: rules may use it.
 *
 * @throws Failure 78 if a group is of the other family
 */
export async function ensureGroups(box: Box, families: readonly Family[]): Promise<void> {
  for (let tries = 1; ; tries++) {
    const missing = await missingGroups(box, families)
    if (missing.length === 0) return
    const failure = await makeGroups(box, missing)
    if (!failure) return
    if (tries >= TRIES) throw failure
    await pause(tries, box.call.signal)
  }
}

/** Fails (75) if a group is missing. One request. */
export async function checkGroups(box: Box): Promise<void> {
  const names = groupsOf(box.settings)
  const [missing] = await missingGroups(box, FAMILIES)
  if (!missing) return
  throw new Failure(EXIT.temporary, `group ${quote(names[missing])} is missing (start makes it)`)
}

/** Makes one group without looking first; the write that needs it tells whether that did it. */
export async function makeGroup(box: Box, family: Family): Promise<void> {
  await writeOne(box, {
    verb: 'Set',
    kind: 'IPHostGroup',
    operation: 'add',
    entities: [groupEntity(groupsOf(box.settings)[family], family)],
  })
}

/** The families whose group is not there. */
export async function missingGroups(box: Box, families: readonly Family[]): Promise<Family[]> {
  const names = groupsOf(box.settings)
  const found = await box.client.get('IPHostGroup', commonFilter(Object.values(names)))
  return families.filter((family) => {
    const group = found.find((one) => one.name === names[family])
    if (group && (group.family || FAMILY.inet4) !== FAMILY[family]) {
      const message = `group ${quote(group.name)} is for ${group.family}: name another group`
      throw new Failure(EXIT.config, message)
    }
    return !group
  })
}

async function makeGroups(box: Box, families: Family[]): Promise<Failure | undefined> {
  const names = groupsOf(box.settings)
  const entities = families.map((family) => groupEntity(names[family], family))
  const outcomes = await write(box, {
    verb: 'Set',
    kind: 'IPHostGroup',
    operation: 'add',
    entities,
  })
  return outcomes.find(({ verdict }) => verdict !== 'done' && verdict !== 'exists')?.failure
}

/** One filter that both names pass: what they have in common, if that is telling at all. */
function commonFilter([a = '', b = '']: string[]): Filter | undefined {
  let length = 0
  while (length < a.length && a[length] === b[length]) length++
  const value = a.slice(0, length).trimEnd()
  return value.length > 2 ? { key: 'Name', criteria: 'like', value } : undefined
}
