import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { realpathSync } from 'node:fs'
import { dirname, extname, join } from 'node:path'
import { type ExitCode, Failure } from '../failure.ts'

/** An f2b-deliver that somebody needs for a while, to work with its books. */
export interface Spawned {
  /** @throws Failure if it has ended, with what it said */
  check(): void
  /** Lets it finish what is under way, and waits for its end. */
  end(): Promise<void>
}

/** Starts the f2b-deliver that is beside this very script. */
export function spawnDeliverer(config: string): Spawned {
  const script = realpathSync(process.argv[1] ?? '')
  const deliver = join(dirname(script), `deliver${extname(script)}`)
  const args = [...process.execArgv, deliver, '--host', '--config', config]
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'ignore', 'pipe'] })
  const gone = once(child, 'close')
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-1000)
  })
  return {
    check() {
      if (child.exitCode === null && child.signalCode === null) return
      const line = said
        .trim()
        .split('\n')
        .at(-1)
        ?.replace(/^deliver: /, '')
      throw new Failure((child.exitCode || 70) as ExitCode, line || 'Cannot start f2b-deliver')
    },
    async end() {
      child.stdin.end()
      await gone
    },
  }
}
