import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import type { SophosXg } from '../settings/sophosxg.ts'
import type { Call } from '../target.ts'
import { describeStatus, type Found, judge, type Status, type Verdict } from './answer.ts'
import { type Client, LostAnswer } from './client.ts'
import { groupsOf, type Host, readHost } from './objects.ts'
import { type Ask, expectedAnswers } from './request.ts'

/** What every step of a verb works with. */
export interface Box {
  client: Client
  settings: SophosXg
  owner: string
  call: Call
}

/** How a write of one object went. `failure` is what to report if it cannot be put right. */
export interface Outcome {
  verdict: Verdict
  code: number | undefined
  failure: Failure
}

/**
 * Writes objects. A lost answer is `unsure` for each, like a status that does not say what was done.
 *
 * @throws Failure 69, 76, 77; LostAnswer only if there is no time left to look what became of it
 */
export async function write(box: Box, ask: Ask): Promise<Outcome[]> {
  try {
    const statuses = await box.client.write(ask)
    return statuses.map((status) => ({
      verdict: judge(status),
      code: status.code,
      failure: failureOf(status),
    }))
  } catch (error) {
    if (!(error instanceof LostAnswer) || box.call.signal.aborted) throw error
    const lost: Outcome = { verdict: 'unsure', code: undefined, failure: error }
    return Array<Outcome>(expectedAnswers(ask)).fill(lost)
  }
}

/** Writes one object; see `write`. */
export async function writeOne(box: Box, ask: Ask): Promise<Outcome> {
  const [outcome] = await write(box, ask)
  return outcome as Outcome
}

/** A status as a failure: 500 may pass by itself, everything else will not. */
function failureOf(status: Status): Failure {
  const code = status.code === 500 ? EXIT.temporary : EXIT.unexpected
  return new Failure(code, `answered ${describeStatus(status)}`)
}

/** Looks one object up. @throws Failure 76 if the name is taken by something that is not ours */
export async function look(box: Box, name: string): Promise<Host | undefined> {
  const { taken, host } = await lookAt(box, name)
  if (!taken || host) return host
  throw new Failure(EXIT.unexpected, `object ${quote(name)} is in the way: not made by us`)
}

/** What there is under a name; `host` only if it is ours. */
export async function lookAt(box: Box, name: string): Promise<{ taken: boolean; host?: Host }> {
  const found = await box.client.get('IPHost', { key: 'Name', criteria: '=', value: name })
  const same = found.find((host) => host.name === name)
  const host = same && readHost(box.settings, box.owner, same)
  return { taken: same !== undefined, ...(host && { host }) }
}

/** True if a member of our group blocks the very address, under whatever name. */
export async function hasTwin(box: Box, address: string, group: string): Promise<boolean> {
  const filter = { key: 'IPAddress', criteria: '=', value: address } as const
  const found = await box.client.get('IPHost', filter)
  return found.some((host) => host.address === address && host.groups.includes(group))
}

/** The groups of an object but for ours. */
export function otherGroups(box: Pick<Box, 'settings'>, groups: string[]): string[] {
  const ours = Object.values(groupsOf(box.settings))
  return groups.filter((group) => !ours.includes(group))
}

/** Every object whose name holds a text; the box may ignore the filter and send everything. */
export async function findHosts(box: Box, prefix: string): Promise<Found[]> {
  const filter = { key: 'Name', criteria: 'like', value: prefix } as const
  const found = await box.client.get('IPHost', filter)
  return found.filter((host) => host.name.startsWith(prefix))
}
