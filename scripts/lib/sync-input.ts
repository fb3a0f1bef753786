import { keyOf } from './address.ts'
import { bannable } from './bannable.ts'
import type { Values } from './command.ts'
import { EXIT, Failure, messageOf } from './failure.ts'
import { alive, type Lease, later, now, parseLease } from './lease.ts'
import { neverBan } from './never.ts'
import type { Call } from './verbs.ts'

/**
 * Reads the input of `sync`. One malformed line refuses it all; what is in `never_ban` is skipped
 * and counted; what is already over is left out.
 *
 * @throws Failure 65
 */
export function readLeases(
  input: string,
  call: Pick<Call, 'config' | 'owner' | 'jail'>,
  values: Values,
): { leases: Lease[]; refused: number } {
  const mayBan = bannable(neverBan(call.config.never_ban), call.config.min_prefix)
  const at = now()
  if (values['allow-empty'] !== true && input.trim() === '') {
    throw new Failure(
      EXIT.input,
      'Cannot sync: standard input is empty, and that would free everybody (--allow-empty)',
    )
  }
  const leases: Lease[] = []
  let refused = 0
  let number = 0
  for (const raw of input.split('\n')) {
    number++
    const line = raw.trim()
    if (line === '' || line.startsWith('#')) continue
    const lease = readLine(line, number, call.owner)
    if (call.jail !== undefined && lease.jail !== call.jail) continue
    if (!mayBan(lease.address)) refused++
    else if (alive(lease.expires, at)) leases.push(lease)
  }
  return { leases: longest(leases), refused }
}

function readLine(line: string, number: number, owner: string): Lease {
  try {
    return parseLease(line, owner)
  } catch (error) {
    throw new Failure(EXIT.input, `Cannot sync: line ${number}: ${messageOf(error)}`)
  }
}

/** One lease for each (address, jail): the one that ends last; jail by jail. */
export function longest(leases: Lease[]): Lease[] {
  const jails = new Map<string, Map<string | number, Lease>>()
  for (const lease of leases) {
    const { jail, expires, address } = lease
    let kept = jails.get(jail)
    if (!kept) {
      kept = new Map()
      jails.set(jail, kept)
    }
    const key = keyOf(address)
    const known = kept.get(key)
    kept.set(key, known ? { ...known, expires: later(known.expires, expires) } : lease)
  }
  return [...jails.values()].flatMap((kept) => [...kept.values()])
}
