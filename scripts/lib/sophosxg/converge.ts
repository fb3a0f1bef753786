import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import type { Found } from './answer.ts'
import { type Box, findHosts, hasTwin, type Outcome, write } from './box.ts'
import { LostAnswer, pause, TRIES } from './client.ts'
import { ensureGroups } from './groups.ts'
import { groupsOf } from './objects.ts'
import type { Plan } from './plan.ts'
import type { Ask, Entity } from './request.ts'

/** Objects in one request. A write costs seconds on a real box, however many objects it names. */
const CHUNK = 100

/** What went wrong in a round, and whether to ask for less at once. */
interface Trouble {
  failure: Failure
  smaller: boolean
}

/**
 * Makes the box equal to the plan: reads, writes what differs, and where an answer left doubts reads
 * again until nothing differs any more.
 *
 * @param prefix what the names of the objects to read have in common
 * @returns the first plan
 * @throws Failure once rounds stop making progress
 */
export async function converge(
  box: Box,
  prefix: string,
  plan: (found: Found[]) => Plan,
): Promise<Plan> {
  let first: Plan | undefined
  let trouble: Trouble | undefined
  let size = CHUNK
  let least = Number.POSITIVE_INFINITY
  for (let stuck = 0; ; ) {
    const now = plan(await findHosts(box, prefix))
    first ??= now
    const changes = now.writes.length + now.removals.length
    if (box.call.dryRun || changes === 0) return first
    stuck = changes < least ? 0 : stuck + 1
    if (trouble && stuck >= TRIES) throw trouble.failure
    least = Math.min(least, changes)
    if (trouble) await pause(stuck + 1, box.call.signal)
    trouble = await round(box, now, size, trouble !== undefined)
    if (!trouble) return first
    if (trouble.smaller) size = Math.max(1, Math.floor(size / 4))
  }
}

/** One round of writes. @returns undefined if the box confirmed every change */
async function round(
  box: Box,
  plan: Plan,
  size: number,
  again: boolean,
): Promise<Trouble | undefined> {
  const needed = again ? (['inet4', 'inet6'] as const) : plan.groups
  if (needed.length > 0 && plan.writes.length > 0) await ensureGroups(box, needed)
  const total = plan.writes.length + plan.removals.length
  const failed = new Map<string, Failure>()
  let done = 0
  try {
    for (const { ask, entities } of jobsOf(plan, size, failed)) {
      const lost = await writeChunk(box, ask, entities, failed)
      if (lost) return lost
      done += entities.length
      box.call.progress(done, total)
    }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const known = `${done - failed.size} of ${total} changes were made before`
    throw new Failure(error.code, `${error.message}; ${known}`)
  }
  return troubleOf(failed, total)
}

/** The writes in order, some objects at once. */
function* jobsOf(plan: Plan, size: number, failed: ReadonlyMap<string, Failure>) {
  for (let i = 0; i < plan.writes.length; i += size) {
    const entities = plan.writes.slice(i, i + size)
    yield { ask: { verb: 'Set', kind: 'IPHost', entities } as const, entities }
  }
  // An object that could not be taken out of its group cannot be deleted either.
  const removals = plan.removals.filter((name) => !failed.has(name))
  for (let i = 0; i < removals.length; i += size) {
    const names = removals.slice(i, i + size)
    const entities = names.map((name) => ({ Name: name }))
    yield { ask: { verb: 'Remove', kind: 'IPHost', names } as const, entities }
  }
}

/** Sends one chunk and sorts out what failed. @returns the trouble if nothing is known about it */
async function writeChunk(
  box: Box,
  ask: Ask,
  entities: Entity[],
  failed: Map<string, Failure>,
): Promise<Trouble | undefined> {
  let outcomes: Outcome[]
  try {
    outcomes = await write(box, ask)
  } catch (error) {
    const unclear = error instanceof Failure && error.code === EXIT.unexpected
    if (unclear && entities.length > 1) return { failure: error, smaller: true }
    throw error
  }
  if (outcomes.every(({ failure }) => failure instanceof LostAnswer)) {
    return { failure: outcomes[0]?.failure as Failure, smaller: true }
  }
  for (const [i, entity] of entities.entries()) {
    const outcome = outcomes[i] as Outcome
    if (!(await isSettled(box, ask, entity, outcome))) failed.set(entity.Name, outcome.failure)
  }
  return undefined
}

async function isSettled(box: Box, ask: Ask, entity: Entity, outcome: Outcome): Promise<boolean> {
  const { verdict, code } = outcome
  if (verdict === 'done') return true
  // An object that a rule uses cannot be deleted yet; it is out of the group and blocks nothing.
  if (ask.verb === 'Remove') return verdict === 'missing' || verdict === 'in use' || code === 500
  if (verdict !== 'twin' || typeof entity.IPAddress !== 'string') return false
  const family = entity.IPFamily === 'IPv6' ? 'inet6' : 'inet4'
  return await hasTwin(box, entity.IPAddress, groupsOf(box.settings)[family])
}

function troubleOf(failed: Map<string, Failure>, total: number): Trouble | undefined {
  const [first] = failed
  if (!first) return undefined
  const [name, failure] = first
  const message = `${failed.size} of ${total} changes failed, the first ${quote(name)}: ${failure.message}`
  return { failure: new Failure(failure.code, message), smaller: false }
}
