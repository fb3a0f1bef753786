import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'

/** Seconds that a process may take to finish what is under way. */
const PATIENCE = 25

interface Process {
  uid: number
  args: string[]
}

/**
 * Asks processes to end, waits until they have, and kills the others.
 *
 * @returns how many there were
 */
export async function endProcesses(isMeant: (process: Process) => boolean): Promise<number> {
  const end = Date.now() + PATIENCE * 1000
  const count = find(isMeant).length
  for (let signal: NodeJS.Signals = 'SIGTERM'; ; signal = 'SIGKILL') {
    for (const pid of find(isMeant)) {
      try {
        process.kill(pid, signal)
      } catch {} // it has just ended
    }
    while (find(isMeant).length > 0 && Date.now() < end) await setTimeout(50)
    if (signal === 'SIGKILL' || find(isMeant).length === 0) return count
  }
}

/** True if a program of that name runs, whatever interpreter runs it. */
export function isRunning(name: string): boolean {
  return (
    find(({ args }) => args.slice(0, 3).some((word) => word.split('/').at(-1) === name)).length > 0
  )
}

function find(isMeant: (process: Process) => boolean): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => {
    try {
      const args = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0')
      // Not the owner of the folder: where a process has changed its user, that is root.
      const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
      return args.length > 1 && isMeant({ uid: Number(uid), args })
    } catch {
      return false
    }
  })
}
