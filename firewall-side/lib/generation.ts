import { replaceDurably } from '../../scripts/lib/durable.ts'
import { now } from '../../scripts/lib/lease.ts'

/**
 * Writes an empty ledger with a new generation.
 *
 * @param lost true if there should have been one: every owner must then sync again
 * @throws Failure 75 if it cannot be written
 */
export function createLedger(path: string, lost = false): void {
  replaceDurably(path, `# ${generationRemark(lost)}\n`)
}

/** The remark for a generation that begins now. */
export function generationRemark(lost: boolean): string {
  const { randomBytes } = process.getBuiltinModule('node:crypto')
  return `generation ${randomBytes(4).toString('hex')} ${now()}${lost ? ' lost' : ''}`
}
