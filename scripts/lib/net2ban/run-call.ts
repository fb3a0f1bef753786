import { parseAddress } from '../address.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import { alive, expiry, type Lease, later } from '../lease.ts'
import { type Line, RELEASED } from '../ledger.ts'
import type { Counts } from '../target.ts'
import { Unmet } from './actions.ts'
import { dynamicTags } from './ban-tags.ts'
import { type Call, checkCall, jailOf, nameOf, settingsOf } from './call.ts'
import type { Wish } from './commands.ts'
import type { Jail } from './jail.ts'
import { type Check, checkPublic } from './limits.ts'
import { lineOf } from './node-leases.ts'
import { differs, type JailState, type NodeState } from './node-state.ts'

/** What came of a call: see `Node.run`. */
export type Outcome = 'ran' | 'held' | 'over'

/** Runs one checked call; see `Node.run`. */
export async function runCall(
  node: NodeState,
  call: Call,
  { sentAt, check }: { sentAt: number; check: Check },
): Promise<Outcome> {
  node.goOn()
  const { file, action, params } = call
  await checkPublic(file, params, node.files)
  if (action === 'actionstart') return await startJail(node, call)
  if (action === 'actionban' || action === 'actionprolong') {
    check(parseAddress(params.ip ?? ''))
    return await ban(node, call, sentAt)
  }
  const state = node.state(file, nameOf(params))
  if (!state) return 'held'
  if (action === 'actionunban') return await unban(node, call, state)
  if (action === 'actionstop') return await stop(node, state)
  if (node.isIdle(state)) return 'held'
  if (action === 'actionflush') return await flush(node, state)
  const jail = await node.ready(state)
  if (action === 'actionrepair') await jail.repair()
  else await jail.check()
  return 'ran'
}

async function ban(node: NodeState, { file, params }: Call, sentAt: number): Promise<Outcome> {
  const name = nameOf(params)
  const address = parseAddress(params.ip ?? '')
  const time = params.time ?? String(sentAt)
  const expires = expiry(Number(time), Number(params.bantime ?? -1))
  if (!alive(expires, node.now())) return 'over'
  const state = node.stateFor(file, name, params)
  const line = lineOf(address, jailOf(file, name), expires)
  const known = node.leases.end(address, line.jail)
  if (known !== undefined && later(known, expires) === known) return 'held'
  if (differs(state, params)) node.warn(state)
  const jail = await node.ready(state)
  if (known !== undefined && !jail.prolongs && !jail.timed) {
    node.leases.note([line])
    return 'held'
  }
  const dynamic = dynamicTags(address, { ...params, time: node.local(Number(time)) })
  const [failure] = await node.leases.change([line], () => {
    return known === undefined ? jail.ban(address, dynamic) : jail.prolong(address, dynamic)
  })
  if (failure) throw failure
  return 'ran'
}

async function unban(node: NodeState, { params }: Call, state: JailState): Promise<Outcome> {
  const address = parseAddress(params.ip ?? '')
  const line = lineOf(address, jailOf(state.file, state.name), RELEASED)
  if (node.leases.end(address, line.jail) === undefined) return 'held'
  const jail = await node.ready(state)
  const [failure] = await node.leases.change([line], () => {
    return jail.unban(address, dynamicTags(address, { time: node.local(node.now()), ...params }))
  })
  if (failure) throw failure
  return 'ran'
}

async function flush(node: NodeState, state: JailState): Promise<Outcome> {
  const id = jailOf(state.file, state.name)
  const lines = Array.from(node.held(state), ({ address }) => lineOf(address, id, RELEASED))
  if (lines.length === 0) return 'held'
  const jail = await node.ready(state)
  if (jail.flushes) {
    await jail.flush(() => node.leases.note(lines))
  } else {
    const [failure] = await release(node, jail, lines)
    if (failure) throw failure
  }
  return 'ran'
}

/** As Fail2Ban does: first every address is released, then what was started ends. */
export async function stop(node: NodeState, state: JailState): Promise<Outcome> {
  if (node.isIdle(state) && !state.begun) return 'held'
  await flush(node, state)
  state.begun = false
  await (await node.ready(state)).stop()
  return 'ran'
}

/**
 * Remembers the parameters; whatever is in force already is built anew if they are others, and
 * looked at if they are the same: Fail2Ban starts a jail when much may have happened.
 */
export async function startJail(
  node: NodeState,
  { file, params }: Pick<Call, 'file' | 'params'>,
): Promise<'ran' | 'held'> {
  const settings = settingsOf(params)
  await node.files.action(file, settings) // What cannot be resolved is not remembered.
  const known = node.state(file, nameOf(params))
  const other = known && JSON.stringify(known.params) !== JSON.stringify(settings)
  if (known && other && !node.isIdle(known)) await node.change(known, settings)
  const state = known ?? node.stateFor(file, nameOf(params), params)
  const fresh = !state.begun || other === true
  state.params = settings
  state.begun = true
  if (fresh) node.save()
  const jail = await node.ready(state)
  if (await jail.start()) return 'ran'
  const whole = await jail.check()
  return whole && !fresh ? 'held' : 'ran'
}

/** Seconds after which an unban that failed is tried again. */
const RETRY = 30

/** So many failures in one go say that nothing of it will work now; or some, and so many seconds. */
const HOPELESS = 20
const TOO_LONG = 120

/** Unbans; answers what went wrong. */
export async function release(node: NodeState, jail: Jail, lines: readonly Line[]) {
  return await apply(
    node,
    jail,
    lines.map((line) => ({ ...line, expires: RELEASED })),
  )
}

/** Makes the leases of one jail exactly these; see `Node.sync`. */
export async function syncJail(
  node: NodeState,
  wanted: {
    file: string
    name: string
    leases: readonly Lease[]
    params: Readonly<Record<string, string>>
  },
  check: Check,
): Promise<Counts> {
  const { file, name } = wanted
  const call = checkCall(file, 'actionstart', { ...wanted.params, name })
  await checkPublic(file, call.params, node.files)
  const known = node.state(file, name)
  if (known && differs(known, call.params)) await startJail(node, call)
  const jail = await node.ready(node.stateFor(file, name, call.params))
  const id = jailOf(file, name)
  const at = node.now()
  const { leases, refused } = allowed(wanted.leases, check, at)
  const over = node.leases.ended(at).lines.filter((line) => line.jail === id)
  const failures = await release(node, jail, over)
  const { changes, ...counts } = node.leases.difference(id, leases, at)
  failures.push(...(await apply(node, jail, changes)))
  const refusals = failures.filter((failure) => codeOf(failure) === EXIT.input).length
  if (failures.length > refusals) throw several(failures)
  const all = refused + refusals
  return all > 0 ? { ...counts, added: counts.added - refusals, refused: all } : counts
}

/** Unbans everywhere what is over; see `Node.expire`. */
export async function expire(node: NodeState): Promise<number | undefined> {
  const { lines, next } = node.leases.ended(node.now())
  if (lines.length === 0) return next
  let failed = false
  for (const id of new Set(lines.map((line) => line.jail))) {
    try {
      const jail = await node.ready(node.stateOf(id))
      const own = lines.filter((line) => line.jail === id)
      const failures = await release(node, jail, own)
      if (failures.length > 0) throw several(failures)
    } catch (error) {
      failed = true
      node.log(error)
    }
  }
  const again = node.leases.ended(node.now()).next
  const retry = node.now() + RETRY
  return failed ? Math.min(again ?? retry, retry) : again
}

/** Carries out changes: together what is simple, one by one what goes wrong. */
async function apply(node: NodeState, jail: Jail, changes: readonly Line[]): Promise<Error[]> {
  const { leases } = node
  const wishes = new Map(changes.map((line) => [line, wishOf(node, jail, line)]))
  const noted = changes.filter((line) => {
    return wishes.get(line)?.kind === 'prolong' && !jail.prolongs && !jail.timed
  })
  leases.note(noted)
  for (const line of noted) wishes.delete(line)
  const tried = new Set<Line>()
  const begun = node.now()
  let failures = 0
  const act = async (line: Line): Promise<void> => {
    const long = failures > 0 && node.now() - begun > TOO_LONG
    if (long || failures >= HOPELESS)
      throw new Failure(EXIT.temporary, 'Cannot go on: nothing works')
    try {
      node.goOn()
      await carryOut(jail, wishes.get(line) as Change, tried.has(line))
    } catch (error) {
      failures++
      throw error
    }
  }
  return await leases.change([...wishes.keys()], act, async (batch) => {
    const simple = batch.filter((line) => wishes.get(line)?.kind !== 'prolong')
    if (node.isEnding) return new Set()
    const done = await jail.many(simple.map((line) => wishes.get(line) as Change))
    for (const line of simple) tried.add(line)
    return new Set(simple.filter((_, i) => done[i]))
  })
}

interface Change extends Wish {
  kind: 'ban' | 'unban' | 'prolong'
}

function wishOf({ leases }: NodeState, jail: Jail, { address, jail: id, expires }: Line): Change {
  const parsed = parseAddress(address)
  const ban = expires !== RELEASED
  const isKnown = ban && leases.end(parsed, id) !== undefined
  const kind = isKnown ? 'prolong' : ban ? 'ban' : 'unban'
  return { kind, ban, address: parsed, dynamic: jail.dynamic(parsed, expires) }
}

async function carryOut(jail: Jail, change: Change, tried: boolean): Promise<void> {
  const { kind, address, dynamic } = change
  if (kind === 'unban') return await jail.unban(address, dynamic)
  if (kind === 'prolong') return await jail.prolong(address, dynamic)
  if (tried) await jail.wipe(address, dynamic)
  await jail.ban(address, dynamic)
}

function allowed(leases: readonly Lease[], check: Check, at: number) {
  let refused = 0
  const kept = leases.filter(({ address, expires }) => {
    if (!alive(expires, at)) return false
    try {
      check(address)
      return true
    } catch {
      refused++
      return false
    }
  })
  return { leases: kept, refused }
}

function several(failures: readonly Error[]): Failure {
  const unmet = failures.find((failure) => failure instanceof Unmet)
  if (unmet) return unmet
  const more = failures.length > 1 ? ` (and ${failures.length - 1} more)` : ''
  return new Failure(EXIT.temporary, `${messageOf(failures[0])}${more}`)
}
