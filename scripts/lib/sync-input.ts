import { bannable } from './bannable.ts'
import { latestEach } from './bulk.ts'
import type { Values } from './command.ts'
import { EXIT, Failure, messageOf } from './failure.ts'
import { alive, byJail, type Lease, now, parseLease } from './lease.ts'
import { neverBan } from './never.ts'
import type { Call } from './target.ts'

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
): { leases: readonly Lease[]; refused: number } {
  const mayBan = bannable(neverBan(call.config.never_ban), call.config.min_prefix)
  const moment = now()
  if (values['allow-empty'] !== true && input.trim() === '') {
    throw new Failure(
      EXIT.input,
      'Cannot sync: standard input is empty, and that would free everybody (--allow-empty)',
    )
  }
  const leases: Lease[] = []
  let refused = 0
  let number = 0
  // Line by line: 100,000 lines split at once are carried along by the garbage collector.
  for (let start = 0, end = 0; start < input.length; start = end + 1) {
    end = input.indexOf('\n', start)
    if (end < 0) end = input.length
    number++
    const line = input.slice(start, end).trim()
    if (line === '' || line.startsWith('#')) continue
    const lease = readLine(line, number, call.owner)
    if (call.jail !== undefined && lease.jail !== call.jail) continue
    if (!mayBan(lease.address)) refused++
    else if (alive(lease.expires, moment)) leases.push(lease)
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
export function longest(leases: readonly Lease[]): readonly Lease[] {
  const [first = [], ...others] = Array.from(byJail(leases).values(), latestEach)
  return others.length === 0 ? first : [first, ...others].flat()
}
