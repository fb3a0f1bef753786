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

/** Throws a Failure 65 for what must never be banned here. */
export type Check = (address: Address) => void

/** This machine's own addresses and gateways are read again after so many milliseconds. */
const FRESH = 10_000

/** What a node refuses to ban: what nobody may ban, what would cut it off, and what is configured. */
export function limitsOf({ neverBan: more = [], minPrefix = MIN_PREFIX }: Limits): Check {
  let never: Address[] = []
  let read = Number.NEGATIVE_INFINITY
  return (address) => {
    if (performance.now() - read > FRESH) {
      never = neverBan(more)
      read = performance.now()
    }
    try {
      checkBannable(address, never, minPrefix)
    } catch (error) {
      throw new Failure(EXIT.input, `Cannot ban "${address.text}": ${messageOf(error)}`)
    }
  }
}
