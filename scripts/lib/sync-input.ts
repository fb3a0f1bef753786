import { type Address, checkBannable } from './address.ts'
import type { Values } from './command.ts'
import { EXIT, Failure, messageOf } from './failure.ts'
import { alive, type Lease, later, now, parseLease } from './lease.ts'
import { neverBan } from './never.ts'
import type { Config } from './settings/schema.ts'
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
  const never = neverBan(call.config.never_ban)
  const lines = input.split('\n').map((line) => line.trim())
  if (values['allow-empty'] !== true && lines.every((line) => line === '')) {
    throw new Failure(
      EXIT.input,
      'Cannot sync: standard input is empty, and that would free everybody (--allow-empty)',
    )
  }
  const leases: Lease[] = []
  let refused = 0
  for (const [i, line] of lines.entries()) {
    if (line === '' || line.startsWith('#')) continue
    let lease: Lease
    try {
      lease = parseLease(line, call.owner)
    } catch (error) {
      throw new Failure(EXIT.input, `Cannot sync: line ${i + 1}: ${messageOf(error)}`)
    }
    if (call.jail !== undefined && lease.jail !== call.jail) continue
    if (isRefused(lease.address, never, call.config)) refused++
    else if (alive(lease.expires, now())) leases.push(lease)
  }
  return { leases: longest(leases), refused }
}

function isRefused(address: Address, never: Address[], config: Config): boolean {
  try {
    checkBannable(address, never, config.min_prefix)
    return false
  } catch {
    return true
  }
}

/** One lease for each (address, jail): the one that ends last. */
export function longest(leases: Lease[]): Lease[] {
  const kept = new Map<string, Lease>()
  for (const lease of leases) {
    const key = `${lease.address.text} ${lease.jail}`
    const known = kept.get(key)
    kept.set(key, known ? { ...known, expires: later(known.expires, lease.expires) } : lease)
  }
  return [...kept.values()]
}
