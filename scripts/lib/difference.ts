import { alive, type Lease } from './lease.ts'
import { type Ledger, type Line, RELEASED } from './ledger.ts'

/** What a set of leases must go through to become another. */
export interface Difference {
  changes: Line[]
  added: number
  extended: number
  removed: number
  unchanged: number
}

/** What turns the leases of an owner (in one jail, or in all) into exactly the wanted ones. */
export function differenceOf(
  ledger: Ledger,
  owner: string,
  jail: string | undefined,
  wanted: Line[],
  at: number,
): Difference {
  const result: Difference = { changes: [], added: 0, extended: 0, removed: 0, unchanged: 0 }
  const own = [...ledger.living(at)].filter((line) => {
    return line.owner === owner && (jail === undefined || line.jail === jail)
  })
  if (own.length === 0) {
    const changes = wanted.map((line) => (line.owner === owner ? line : { ...line, owner }))
    return { ...result, changes, added: wanted.length }
  }
  const keep = new Set(wanted.map((l) => `${l.address} ${l.jail}`))
  for (const line of own) {
    if (keep.has(`${line.address} ${line.jail}`)) continue
    result.changes.push({ ...line, expires: RELEASED })
    result.removed++
  }
  for (const line of wanted) {
    const known = ledger.held(line.address).find((r) => r.jail === line.jail && r.owner === owner)
    if (known?.expires === line.expires) {
      result.unchanged++
      continue
    }
    result.changes.push(line.owner === owner ? line : { ...line, owner })
    if (known && alive(known.expires, at)) result.extended++
    else result.added++
  }
  return result
}

/** The counts of a sync, from what a target had and what it is to have. */
export function countsOf(had: Lease[], wanted: Lease[]): Omit<Difference, 'changes'> {
  const left = new Map(
    had.map(({ address, jail, expires }) => [`${address.text} ${jail}`, expires]),
  )
  const counts = { added: 0, extended: 0, removed: 0, unchanged: 0 }
  for (const { address, jail, expires } of wanted) {
    const key = `${address.text} ${jail}`
    const was = left.get(key)
    if (was === undefined) counts.added++
    else if (was === expires) counts.unchanged++
    else counts.extended++
    left.delete(key)
  }
  return { ...counts, removed: left.size }
}
