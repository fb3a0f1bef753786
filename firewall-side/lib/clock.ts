import { readFileSync, writeFileSync } from 'node:fs'
import { uptime } from 'node:os'
import { join } from 'node:path'

/** A clock that was set by more seconds than this has jumped. */
const JUMP = 60

/** Seconds of running for which a clock must not have jumped, to be believed. */
const STEADY = 3600

/**
 * Whether this machine's clock has run evenly for an hour. One that was a year ahead for a minute, or
 * is wrong since the machine was started, must not be what leases are forgotten for.
 *
 * @param run the directory for what lasts until the next boot
 */
export function isSteady(run: string, up = uptime(), now = Date.now() / 1000): boolean {
  const path = join(run, 'firewall.clock')
  const began = now - up
  const known = read(path)
  if (known && Math.abs(known.began - began) <= JUMP) return up - known.since >= STEADY
  try {
    writeFileSync(path, JSON.stringify({ began, since: up }), { mode: 0o600 })
  } catch {
    // A full /run: then it is not believed, and nothing forgotten.
  }
  return false
}

/** When the machine was started, as its clock had it, and since when the clock has said so. */
function read(path: string): { began: number; since: number } | undefined {
  try {
    const { began, since } = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
    return typeof began === 'number' && typeof since === 'number' ? { began, since } : undefined
  } catch {
    return undefined
  }
}
