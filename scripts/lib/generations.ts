import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { accountInstead } from './delivery-account.ts'
import { replaceDurably } from './durable.ts'

// Which generation of a firewall's ledger has our leases. A firewall that lost everything, as after
// its disk was replaced, cannot know that it did; we can, since its generation is another one then.
// Where an account delivers, its service knows and repairs; what root does by hand needs to know nothing.

/** The generation that we last filled, as `checkfw` names it; undefined before the first contact. */
export function knownGeneration(stateDir: string, host: string): string | undefined {
  if (accountInstead(stateDir)) return undefined
  try {
    return readFileSync(fileOf(stateDir, host), 'utf8').trim()
  } catch {
    return undefined
  }
}

/** Remembers the generation that has our leases from now on. @throws Failure 75 */
export function rememberGeneration(stateDir: string, host: string, generation: string): void {
  if (accountInstead(stateDir) || knownGeneration(stateDir, host) === generation) return
  mkdirSync(stateDir, { recursive: true, mode: 0o755 })
  replaceDurably(fileOf(stateDir, host), `${generation}\n`)
}

function fileOf(stateDir: string, host: string): string {
  return join(stateDir, `generation.${host}`)
}
