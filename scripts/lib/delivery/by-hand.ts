import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Address } from '../address.ts'
import { isNoted } from '../delivery-account.ts'
import { type Lease, now } from '../lease.ts'
import type { Call } from '../target.ts'
import { appendToQueue } from './append.ts'
import { queueDirectory } from './state.ts'

/** Siblings that block; a report is made once. */
const BLOCKING = ['firewall', 'sophosxg', 'mikrotik', 'opnsense', 'fortigate']

/** Something that a person does at all targets of a sibling. */
export type Deed =
  | { verb: 'hold'; lease: Lease }
  | { verb: 'release'; address: Address; jail: string }
  | { verb: 'release-all'; jail: string | undefined }

/**
 * Puts what a person does at targets into the queue as well, where one is. So a ban lasts as long as
 * it says, whatever Fail2Ban says of that jail, and a target that is away now is told when it is back.
 * An action line, which says when its ban began, is no person.
 *
 * @throws Failure 75 if it cannot be written
 */
export function noteByHand(sibling: string, stateDir: string, call: Call, deed: Deed): void {
  const isPerson = !call.dryRun && call.values.time === undefined && !isNoted()
  const directory = queueDirectory(stateDir)
  if (!isPerson || !BLOCKING.includes(sibling) || !existsSync(directory)) return
  appendToQueue(join(directory, sibling), wordsFor(deed, call))
}

function wordsFor(deed: Deed, { ports, protocol }: Call): string[] {
  if (deed.verb === 'release') return [deed.verb, deed.address.text, deed.jail]
  if (deed.verb === 'release-all') return [deed.verb, ...(deed.jail ? [deed.jail] : [])]
  const { address, jail, expires } = deed.lease
  const at = now()
  const times = [`${at}`, `${expires === 0 ? -1 : expires - at}`]
  const naming = ports === undefined ? [] : [ports, protocol ?? '']
  return [deed.verb, address.text, jail, ...times, ...naming]
}
