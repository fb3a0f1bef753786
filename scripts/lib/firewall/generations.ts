import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { accountInstead } from '../delivery-account.ts'
import { replaceDurably } from '../durable.ts'

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

/**
 * A number for a session with a firewall, larger than that of any session before: the clock's, unless
 * it was put back. Where the last one cannot be kept the firewall says which is to be beaten.
 */
export function nextSession(stateDir: string, host: string, beaten = 0): number {
  const path = join(stateDir, `session.${host}`)
  const number = Math.max(Date.now(), beaten + 1, readNumber(path) + 1)
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o755 })
    replaceDurably(path, `${number}\n`)
  } catch {
    // As above: the clock and the firewall know as well.
  }
  return number
}

function readNumber(path: string): number {
  try {
    const number = Number(readFileSync(path, 'utf8'))
    return Number.isSafeInteger(number) ? number : 0
  } catch {
    return 0
  }
}
