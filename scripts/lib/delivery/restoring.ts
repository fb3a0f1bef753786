import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Ban, Jail } from '../fail2ban.ts'
import { Journal } from '../journal.ts'

/** Seconds without any progress after which Fail2Ban has restored what it will. */
const PATIENCE = 120

/** How far a jail has come since its start. */
interface Progress {
  started: number
  restored: number
  /** When it was seen to restore a ban the last time. */
  since: number
}

/**
 * Stored bans that count as banned, by jail. After a start Fail2Ban bans them again one by one, which
 * takes as long as its actions do, and leaves out what is in `ignoreip` by now. It does not say how
 * far it is, so those that have not had their turn count until nothing has been restored for a while.
 */
export function stillRestoring(stateDir: string, jails: Jail[]): Map<string, Ban[]> {
  const known = new Journal<Progress>(join(stateDir, 'restoring.json'), (value) => {
    return Object.entries(value as Record<string, Progress>)
  })
  const now = Date.now() / 1000
  const restoring = jails.filter((jail) => jail.waiting.length > 0)
  const names = new Set(restoring.map(({ name }) => name))
  for (const [name] of known.entries()) if (!names.has(name)) known.delete(name)
  const waiting = new Map<string, Ban[]>()
  for (const jail of restoring) {
    const next = progressOf(jail, known.get(jail.name), now)
    known.set(jail.name, next)
    if (now - next.since < PATIENCE) waiting.set(jail.name, jail.waiting)
  }
  try {
    if (restoring.length > 0) mkdirSync(stateDir, { recursive: true, mode: 0o755 })
    known.commit()
  } catch {
    // What cannot be kept is found anew the next time: the bans then count for longer.
  }
  return waiting
}

function progressOf(
  { started = 0, restored = 0 }: Jail,
  known: Progress | undefined,
  now: number,
): Progress {
  // The moment of a start is found anew each time, and differs by the clock's last digits.
  if (!known || Math.abs(known.started - started) > 2) return { started, restored, since: now }
  return restored > known.restored ? { ...known, restored, since: now } : known
}
