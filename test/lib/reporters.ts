import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseAddress } from '../../scripts/lib/address.ts'
import type { Lease } from '../../scripts/lib/lease.ts'
import type { Clock } from '../../scripts/lib/reporter/pace.ts'
import { type Ended, run } from '../../scripts/lib/run.ts'

/** A private directory with a configuration in it, and the script that reads it. */
export interface Bench {
  directory: string
  config: string
  state: string
  /** The command line of the built script with this configuration. */
  command: string[]
  /** Runs the built script with these arguments, as Fail2Ban would: `f2b('ban', '--ip', ...)`. */
  f2b(...args: string[]): Promise<Ended>
  /** The same with something on standard input. */
  feed(input: string, ...args: string[]): Promise<Ended>
  remove(): void
}

const DIST = fileURLToPath(new URL('../../dist', import.meta.url))

/**
 * @param script `threatjammer` or `abuseipdb`
 * @param section the lines of its section but for the key, which is put into a file
 */
export function makeBench(
  script: string,
  key: string,
  section: string[],
  top: string[] = [],
): Bench {
  const directory = mkdtempSync(join(tmpdir(), `f2b-${script}-`))
  const config = join(directory, 'config.yaml')
  const state = join(directory, 'state')
  const keyFile = join(directory, 'key')
  writeFileSync(keyFile, `${key}\n`, { mode: 0o600 })
  const lines = [`key_file: ${keyFile}`, ...section].map((line) => `  ${line}`)
  const head = ['owner: web1', `state_dir: ${state}`, ...top, `${script}:`]
  writeFileSync(config, `${[...head, ...lines].join('\n')}\n`)
  const file = join(DIST, `${script}.cjs`)
  const feed = (input: string, ...args: string[]) =>
    run(process.execPath, [file, ...args, '--config', config], { input })
  const command = [process.execPath, file, `--config=${config}`]
  return {
    directory,
    config,
    state,
    command,
    f2b: (...args) => feed('', ...args),
    feed,
    // A process that reports later may be writing there.
    remove: () => rmSync(directory, { recursive: true, force: true, maxRetries: 10 }),
  }
}

/** The text of one of the files in `state_dir`. */
export function stateFile(bench: Bench, name: string): string {
  return readFileSync(join(bench.state, name), 'utf8')
}

/** A clock that stands still until somebody waits or turns it. */
export function makeClock(start = 1_800_000_000_000): Clock & { turn(ms: number): void } {
  let now = start
  const turn = (ms: number): void => {
    now += ms
  }
  return { now: () => now, wait: async (ms) => turn(ms), turn }
}

export function makeLease(address: string, jail: string, expires: number): Lease {
  return { address: parseAddress(address), jail, expires, owner: 'web1' }
}
