import { type Call, nameOf, settingsOf } from './call.ts'
import type { Keeper } from './keeper.ts'

/**
 * Remembers the parameters; whatever is in force already is built anew if they are others, and
 * looked at if they are the same: Fail2Ban starts a jail when much may have happened.
 */
export async function begin(
  keeper: Keeper,
  { file, params }: Pick<Call, 'file' | 'params'>,
): Promise<'ran' | 'held'> {
  const settings = settingsOf(params)
  await keeper.files.action(file, settings) // What cannot be resolved is not remembered.
  const known = keeper.place(file, nameOf(params))
  const other = known && JSON.stringify(known.params) !== JSON.stringify(settings)
  if (known && other && !keeper.isIdle(known)) await keeper.change(known, settings)
  const place = known ?? keeper.placeFor(file, nameOf(params), params)
  const fresh = !place.begun || other === true
  place.params = settings
  place.begun = true
  if (fresh) keeper.save()
  const jail = await keeper.ready(place)
  if (await jail.start()) return 'ran'
  const whole = await jail.check()
  return whole && !fresh ? 'held' : 'ran'
}
