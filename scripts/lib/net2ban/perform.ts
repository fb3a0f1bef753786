import { type Address, checkBannable, type MinPrefix, parseAddress } from '../address.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { alive, expiry, later } from '../lease.ts'
import { RELEASED } from '../ledger.ts'
import { neverBan } from '../never.ts'
import { lineOf } from './books.ts'
import { release } from './bulk.ts'
import { type Call, jailOf, nameOf } from './call.ts'
import { dynamicTags } from './jail.ts'
import { differs, type Keeper, settingsOf } from './keeper.ts'
import type { Place } from './places.ts'
import { checkPublic } from './public.ts'

/** What came of a call: see `Node.run`. */
export type Outcome = 'ran' | 'held' | 'over'

/** What may be banned on a node. */
export interface Limits {
  /** Addresses and ranges never to ban here, beside this machine's own. */
  neverBan?: readonly string[] | undefined
  /** The widest range; default /24 and /48. */
  minPrefix?: MinPrefix | undefined
}

const MIN_PREFIX = { ipv4: 24, ipv6: 48 }

/** What refuses, with a Failure 65, whatever must never be banned here. */
export function limitsOf({ neverBan: more = [], minPrefix = MIN_PREFIX }: Limits) {
  const never = neverBan(more)
  return (address: Address): void => {
    try {
      checkBannable(address, never, minPrefix)
    } catch (error) {
      throw new Failure(EXIT.input, `Cannot ban "${address.text}": ${messageOf(error)}`)
    }
  }
}

/** Runs one checked call; see `Node.run`. */
export async function perform(
  keeper: Keeper,
  call: Call,
  { sentAt, limits }: { sentAt: number; limits: Limits },
): Promise<Outcome> {
  keeper.goOn()
  const { file, action, params } = call
  checkPublic(keeper.definitions.file(file), params)
  if (action === 'actionstart') return await start(keeper, call)
  if (action === 'actionban' || action === 'actionprolong') {
    limitsOf(limits)(parseAddress(params.ip ?? ''))
    return await ban(keeper, call, sentAt)
  }
  const place = keeper.place(file, nameOf(params))
  if (!place) return 'held'
  if (action === 'actionunban') return await unban(keeper, call, place)
  if (action === 'actionstop') return await stop(keeper, place)
  if (keeper.isIdle(place)) return 'held'
  if (action === 'actionflush') return await flush(keeper, place)
  const jail = await keeper.ready(place)
  if (action === 'actionrepair') await jail.repair()
  else await jail.check()
  return 'ran'
}

/** Remembers the parameters; whatever is in force already is built anew if they are others. */
export async function start(keeper: Keeper, { file, params }: Call): Promise<Outcome> {
  const settings = settingsOf(params)
  const known = keeper.place(file, nameOf(params))
  const other = known && JSON.stringify(known.params) !== JSON.stringify(settings)
  if (known && other && !keeper.isIdle(known)) await keeper.change(known, settings)
  const place = known ?? keeper.placeFor(file, nameOf(params), params)
  const fresh = !place.begun || other === true
  place.params = settings
  place.begun = true
  if (fresh) keeper.save()
  const ran = await (await keeper.ready(place)).start()
  return ran || fresh ? 'ran' : 'held'
}

async function ban(keeper: Keeper, { file, params }: Call, sentAt: number): Promise<Outcome> {
  const name = nameOf(params)
  const address = parseAddress(params.ip ?? '')
  const time = params.time ?? String(sentAt)
  const expires = expiry(Number(time), Number(params.bantime ?? -1))
  if (!alive(expires, keeper.now())) return 'over'
  const place = keeper.placeFor(file, name, params)
  const line = lineOf(address, jailOf(file, name), expires)
  const known = keeper.books.end(address, line.jail)
  if (known !== undefined && later(known, expires) === known) return 'held'
  if (differs(place, params)) {
    keeper.log(`${file} for ${name} keeps the parameters of its actionstart`)
  }
  const jail = await keeper.ready(place)
  if (known !== undefined && !jail.prolongs && !jail.timed) {
    keeper.books.note([line])
    return 'held'
  }
  const dynamic = dynamicTags(address, { ...params, time })
  const [failure] = await keeper.books.change([line], () => {
    return known === undefined ? jail.ban(address, dynamic) : jail.prolong(address, dynamic)
  })
  if (failure) throw failure
  return 'ran'
}

async function unban(keeper: Keeper, { params }: Call, place: Place): Promise<Outcome> {
  const address = parseAddress(params.ip ?? '')
  const line = lineOf(address, jailOf(place.file, place.name), RELEASED)
  if (keeper.books.end(address, line.jail) === undefined) return 'held'
  const jail = await keeper.ready(place)
  const [failure] = await keeper.books.change([line], () => {
    return jail.unban(address, dynamicTags(address, { time: String(keeper.now()), ...params }))
  })
  if (failure) throw failure
  return 'ran'
}

async function flush(keeper: Keeper, place: Place): Promise<Outcome> {
  const id = jailOf(place.file, place.name)
  const lines = Array.from(keeper.held(place), ({ address }) => lineOf(address, id, RELEASED))
  if (lines.length === 0) return 'held'
  const jail = await keeper.ready(place)
  if (jail.flushes) {
    await jail.flush(() => keeper.books.note(lines))
  } else {
    const [failure] = await release(keeper, jail, lines)
    if (failure) throw failure
  }
  return 'ran'
}

/** As Fail2Ban does: first everybody is released, then what was started ends. */
async function stop(keeper: Keeper, place: Place): Promise<Outcome> {
  if (keeper.isIdle(place) && !place.begun) return 'held'
  await flush(keeper, place)
  place.begun = false
  await (await keeper.ready(place)).stop()
  return 'ran'
}
