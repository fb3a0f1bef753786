import { parseAddress } from '../address.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import { alive, type Lease } from '../lease.ts'
import { type Line, RELEASED } from '../ledger.ts'
import type { Counts } from '../target.ts'
import { begin } from './begin.ts'
import { checkCall, jailOf } from './call.ts'
import { Unmet, type Wish } from './commands.ts'
import type { Jail } from './jail.ts'
import { differs, type Keeper } from './keeper.ts'
import type { Check } from './limits.ts'
import { checkPublic } from './public.ts'

/** Seconds after which an unban that failed is tried again. */
const RETRY = 30

/** So many failures in one go say that nothing of it will work now; or some, and so many seconds. */
const HOPELESS = 20
const TOO_LONG = 120

/** Unbans; answers what went wrong. */
export async function release(keeper: Keeper, jail: Jail, lines: readonly Line[]) {
  return await apply(
    keeper,
    jail,
    lines.map((line) => ({ ...line, expires: RELEASED })),
  )
}

/** Makes the leases of one jail exactly these; see `Node.sync`. */
export async function syncJail(
  keeper: Keeper,
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
  checkPublic(() => keeper.definitions.file(file), call.params)
  const known = keeper.place(file, name)
  if (known && differs(known, call.params)) await begin(keeper, call)
  const jail = await keeper.ready(keeper.placeFor(file, name, call.params))
  const id = jailOf(file, name)
  const at = keeper.now()
  const { leases, refused } = allowed(wanted.leases, check, at)
  const over = keeper.books.ended(at).lines.filter((line) => line.jail === id)
  const failures = await release(keeper, jail, over)
  const { changes, ...counts } = keeper.books.difference(id, leases, at)
  failures.push(...(await apply(keeper, jail, changes)))
  const refusals = failures.filter((failure) => codeOf(failure) === EXIT.input).length
  if (failures.length > refusals) throw several(failures)
  const all = refused + refusals
  return all > 0 ? { ...counts, added: counts.added - refusals, refused: all } : counts
}

/** Unbans everywhere what is over; see `Node.expire`. */
export async function expire(keeper: Keeper): Promise<number | undefined> {
  const { lines, next } = keeper.books.ended(keeper.now())
  if (lines.length === 0) return next
  let failed = false
  for (const id of new Set(lines.map((line) => line.jail))) {
    try {
      const jail = await keeper.ready(keeper.placeOf(id))
      const own = lines.filter((line) => line.jail === id)
      const failures = await release(keeper, jail, own)
      if (failures.length > 0) throw several(failures)
    } catch (error) {
      failed = true
      keeper.log(error)
    }
  }
  const again = keeper.books.ended(keeper.now()).next
  const retry = keeper.now() + RETRY
  return failed ? Math.min(again ?? retry, retry) : again
}

/** Carries out changes: together what is simple, one by one what goes wrong. */
async function apply(keeper: Keeper, jail: Jail, changes: readonly Line[]): Promise<Error[]> {
  const { books } = keeper
  const wishes = new Map(changes.map((line) => [line, wishOf(keeper, jail, line)]))
  const noted = changes.filter((line) => {
    return wishes.get(line)?.kind === 'prolong' && !jail.prolongs && !jail.timed
  })
  books.note(noted)
  for (const line of noted) wishes.delete(line)
  const tried = new Set<Line>()
  const begun = keeper.now()
  let failures = 0
  const act = async (line: Line): Promise<void> => {
    const long = failures > 0 && keeper.now() - begun > TOO_LONG
    if (long || failures >= HOPELESS)
      throw new Failure(EXIT.temporary, 'Cannot go on: nothing works')
    try {
      keeper.goOn()
      await carryOut(jail, wishes.get(line) as Change, tried.has(line))
    } catch (error) {
      failures++
      throw error
    }
  }
  return await books.change([...wishes.keys()], act, async (batch) => {
    const simple = batch.filter((line) => wishes.get(line)?.kind !== 'prolong')
    if (keeper.isEnding) return new Set()
    const done = await jail.many(simple.map((line) => wishes.get(line) as Change))
    for (const line of simple) tried.add(line)
    return new Set(simple.filter((_, i) => done[i]))
  })
}

interface Change extends Wish {
  kind: 'ban' | 'unban' | 'prolong'
}

function wishOf({ books }: Keeper, jail: Jail, { address, jail: id, expires }: Line): Change {
  const parsed = parseAddress(address)
  const ban = expires !== RELEASED
  const isKnown = ban && books.end(parsed, id) !== undefined
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
