import { readdirSync, readFileSync, statSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'

/** Seconds that a process may take to finish what is under way. */
const PATIENCE = 25

interface Process {
  uid: number
  args: string[]
}

/** Asks processes to end, waits until they have, and kills the others. */
export async function endProcesses(isMeant: (process: Process) => boolean): Promise<void> {
  const end = Date.now() + PATIENCE * 1000
  for (let signal: NodeJS.Signals = 'SIGTERM'; ; signal = 'SIGKILL') {
    for (const pid of find(isMeant)) {
      try {
        process.kill(pid, signal)
      } catch {} // it has just ended
    }
    while (find(isMeant).length > 0 && Date.now() < end) await setTimeout(50)
    if (signal === 'SIGKILL' || find(isMeant).length === 0) return
  }
}

function find(isMeant: (process: Process) => boolean): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => {
    try {
      const args = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0')
      return args.length > 1 && isMeant({ uid: statSync(`/proc/${pid}`).uid, args })
    } catch {
      return false
    }
  })
}
