import { parseAddress } from '../address.ts'
import { alive, expiry, later } from '../lease.ts'
import { RELEASED } from '../ledger.ts'
import { dynamicTags } from './ban-tags.ts'
import { begin } from './begin.ts'
import { lineOf } from './books.ts'
import { release } from './bulk.ts'
import { type Call, jailOf, nameOf } from './call.ts'
import { differs, type Keeper } from './keeper.ts'
import type { Check } from './limits.ts'
import type { Place } from './places.ts'
import { checkPublic } from './public.ts'

/** What came of a call: see `Node.run`. */
export type Outcome = 'ran' | 'held' | 'over'

/** Runs one checked call; see `Node.run`. */
export async function perform(
  keeper: Keeper,
  call: Call,
  { sentAt, check }: { sentAt: number; check: Check },
): Promise<Outcome> {
  keeper.goOn()
  const { file, action, params } = call
  await checkPublic(file, params, keeper.files)
  if (action === 'actionstart') return await begin(keeper, call)
  if (action === 'actionban' || action === 'actionprolong') {
    check(parseAddress(params.ip ?? ''))
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
  if (differs(place, params)) keeper.warn(place)
  const jail = await keeper.ready(place)
  if (known !== undefined && !jail.prolongs && !jail.timed) {
    keeper.books.note([line])
    return 'held'
  }
  const dynamic = dynamicTags(address, { ...params, time: keeper.local(Number(time)) })
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
    return jail.unban(
      address,
      dynamicTags(address, { time: keeper.local(keeper.now()), ...params }),
    )
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
export async function stop(keeper: Keeper, place: Place): Promise<Outcome> {
  if (keeper.isIdle(place) && !place.begun) return 'held'
  await flush(keeper, place)
  place.begun = false
  await (await keeper.ready(place)).stop()
  return 'ran'
}
