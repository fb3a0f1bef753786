import { type Options, textOption, type Values } from './command.ts'
import { EXIT, Failure } from './failure.ts'
import { expiry, now, quote } from './lease.ts'

/** The options that say how long a ban lasts. */
export const EXPIRY_OPTIONS: Options = { bantime: { type: 'string' }, time: { type: 'string' } }

/** Options that are read the same everywhere: when a ban began and how long it lasts. */
export function readExpiry(values: Values): number {
  const bantime = textOption(values, 'bantime') ?? '-1'
  const time = textOption(values, 'time')
  if (!/^(-1|\d{1,10})$/.test(bantime)) {
    throw new Failure(EXIT.input, `Cannot read ban time ${quote(bantime)}: seconds, or -1 for ever`)
  }
  if (time !== undefined && !/^\d{1,12}(\.\d{1,9})?$/.test(time)) {
    throw new Failure(EXIT.input, `Cannot read time ${quote(time)}: epoch seconds`)
  }
  return expiry(time === undefined ? now() : Number(time), Number(bantime))
}
