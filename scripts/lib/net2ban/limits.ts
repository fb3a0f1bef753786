import { type Address, checkBannable, type MinPrefix } from '../address.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { neverBan } from '../never.ts'

/** What may be banned on a node. */
export interface Limits {
  /** Addresses and ranges never to ban here, beside this machine's own. */
  neverBan?: readonly string[] | undefined
  /** The widest range; default /24 and /48. */
  minPrefix?: MinPrefix | undefined
}

/** The default of the whole project. */
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
