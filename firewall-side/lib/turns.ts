import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { lock } from '../../scripts/lib/lock.ts'

/** How long one waits for the firewall, seconds. */
const PATIENCE = 15

/** Milliseconds after which half of the time that an owner has used is forgotten. */
const HALF = 10_000

/** Milliseconds that one steps back for who has used less. */
const STEP_BACK = 30

/** Time that each owner had the firewall to itself: milliseconds, as of a moment. */
type Used = Record<string, { ms: number; at: number }>

/**
 * The firewall's lock, and turns between the owners: whoever wants it while another waits who has used
 * less of it lately lets the other go first. So nobody waits for more than the work that is under way
 * already, whatever one owner sends; and who is alone never waits.
 */
export class Turns {
  readonly #run: string
  readonly #owner: string

  constructor(run: string, owner: string) {
    this.#run = run
    this.#owner = owner
  }

  /**
   * @param opened told what will hold the lock
   * @returns what ends the turn
   * @throws Failure 75 if the firewall is busy for too long
   */
  async take(opened: (fd: number) => void): Promise<() => void> {
    const waiting = join(this.#run, 'firewall.waiting')
    const own = join(waiting, `${this.#owner} ${process.pid}`)
    try {
      mkdirSync(waiting, { recursive: true, mode: 0o700 })
      writeFileSync(own, '')
    } catch {
      // A full /run: then nobody steps back for us.
    }
    try {
      const end = Date.now() + PATIENCE * 1000
      while (!this.#mayGo(this.#used(), waiting)) {
        if (Date.now() > end) throw new Failure(EXIT.temporary, 'busy with other servers')
        await sleep(STEP_BACK)
      }
      const path = join(this.#run, 'firewall.lock')
      return this.#begin(await lock(path, PATIENCE, undefined, opened))
    } finally {
      rmSync(own, { force: true })
    }
  }

  #begin(release: () => void): () => void {
    const used = this.#used()
    const began = performance.now()
    return () => {
      const ms = usedBy(used, this.#owner) + performance.now() - began
      used[this.#owner] = { ms, at: Date.now() }
      try {
        writeFileSync(join(this.#run, 'firewall.turns'), JSON.stringify(used), { mode: 0o600 })
      } catch {
        // As above.
      }
      release()
    }
  }

  #mayGo(used: Used, waiting: string): boolean {
    const own = usedBy(used, this.#owner)
    if (own < STEP_BACK) return true
    return !namesIn(waiting).some((name) => {
      const [owner = '', pid = ''] = name.split(' ')
      if (owner === this.#owner || usedBy(used, owner) >= own) return false
      if (isRunning(pid)) return true
      rmSync(join(waiting, name), { force: true }) // it was killed
      return false
    })
  }

  #used(): Used {
    try {
      const text = readFileSync(join(this.#run, 'firewall.turns'), 'utf8')
      return Object.assign(Object.create(null), JSON.parse(text))
    } catch {
      return Object.create(null) // none yet, or half of one
    }
  }
}

function usedBy(used: Used, owner: string): number {
  const { ms = 0, at = 0 } = used[owner] ?? {}
  return ms * 2 ** (-Math.abs(Date.now() - at) / HALF)
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

export function isRunning(pid: string | number): boolean {
  try {
    process.kill(Number(pid), 0)
    return true
  } catch {
    return false
  }
}
