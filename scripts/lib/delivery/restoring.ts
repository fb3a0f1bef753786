import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { replaceDurably } from '../durable.ts'
import type { Ban, Jail } from '../fail2ban.ts'

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
  const file = join(stateDir, 'restoring.json')
  const known = readProgress(file)
  const now = Date.now() / 1000
  const progress: Record<string, Progress> = {}
  const waiting = new Map<string, Ban[]>()
  for (const jail of jails) {
    if (jail.waiting.length === 0) continue
    const next = progressOf(jail, known[jail.name], now)
    progress[jail.name] = next
    if (now - next.since < PATIENCE) waiting.set(jail.name, jail.waiting)
  }
  if (JSON.stringify(progress) !== JSON.stringify(known)) keep(stateDir, file, progress)
  return waiting
}

/** What cannot be kept is found anew the next time: they then count for longer. */
function keep(stateDir: string, file: string, progress: Record<string, Progress>): void {
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o755 })
    replaceDurably(file, `${JSON.stringify(progress)}\n`)
  } catch {}
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

function readProgress(file: string): Record<string, Progress> {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return {}
  }
}
