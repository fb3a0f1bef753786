/** A simulated firewall, a configuration and the built script: what the tests of the sibling share. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildSync } from 'esbuild'
import { loadConfig } from '../../../scripts/lib/config.ts'
import { formatLease, type Lease, parseLease } from '../../../scripts/lib/lease.ts'
import { type Ended, run } from '../../../scripts/lib/run.ts'
import { sophosTargets } from '../../../scripts/lib/sophosxg/target.ts'
import { changeOne, type Target } from '../../../scripts/lib/target.ts'
import { describe, makeCall } from '../../../scripts/lib/verbs.ts'
import { type Options, SophosSimulator } from '../sophosxg.ts'

const ROOT = join(import.meta.dirname, '../../..')

export interface World {
  sim: SophosSimulator
  dir: string
  /** The built script. */
  script: string
  /** Runs a verb as `web1`, or with other settings. */
  run(args: string, options?: { input?: string; config?: string }): Promise<Ended>
  /** The same in this process: quicker, for what a test only needs to have done. */
  within<T>(
    work: (target: Target, call: ReturnType<typeof makeCall>) => Promise<T>,
    config?: string,
  ): Promise<T>
  /** Writes a configuration file and returns its path. */
  configure(settings?: Record<string, unknown>, owner?: string): string
}

export interface Setting {
  simulator?: Options
  settings?: Record<string, unknown>
}

/** Makes a world, hands it to the work and takes everything down again. */
export async function inWorld(setting: Setting, work: (world: World) => Promise<void>) {
  const sim = await new SophosSimulator(setting.simulator).listen()
  const dir = mkdtempSync(join(tmpdir(), 'sophosxg-'))
  const script = buildScript()
  let files = 0
  const configure = (settings: Record<string, unknown> = {}, owner = 'web1'): string => {
    const file = join(dir, `config-${files++}.yaml`)
    const known = { url: sim.url, user: 'apiuser', pass: 'secret', ca: sim.ca, name: 'fw1' }
    const sophosxg = { ...known, ...setting.settings, ...settings }
    // Every JSON text is YAML.
    writeFileSync(file, JSON.stringify({ owner, state_dir: join(dir, owner), sophosxg }))
    return file
  }
  const config = configure()
  try {
    await work({
      sim,
      dir,
      script,
      configure,
      within: async (inside, other = config) => {
        const loaded = loadConfig(other, 'sophosxg')
        const [target] = sophosTargets(loaded.config.sophosxg)
        return await inside(target as Target, makeCall(loaded, {}, 60))
      },
      run: (args, options = {}) =>
        run(process.execPath, [script, ...args.split(' '), '--config', options.config ?? config], {
          ...(options.input !== undefined && { input: options.input }),
        }),
    })
  } finally {
    await sim.close()
    rmSync(dir, { recursive: true, force: true })
  }
}

// Verbs that a test only needs to have been done: in its own process.

export async function start(world: World): Promise<void> {
  await world.within((target, call) => target.start(call))
}

/** @param line a lease as `list` prints it */
export async function ban(world: World, line: string, config?: string): Promise<void> {
  const [lease] = leasesFrom(line) as [Lease]
  await world.within((target, call) => {
    return changeOne(target, call, { verb: 'ban', lease: { ...lease, owner: call.owner } })
  }, config)
}

export async function unban(world: World, line: string): Promise<void> {
  const [{ address, jail }] = leasesFrom(line) as [Lease]
  await world.within((target, call) => changeOne(target, call, { verb: 'unban', address, jail }))
}

/** @returns the counts as `f2b-sophosxg sync` prints them */
export async function sync(world: World, lines: string, config?: string): Promise<string> {
  const leases = leasesFrom(lines)
  return describe(await world.within((target, call) => target.sync(call, leases), config))
}

export async function flush(world: World): Promise<void> {
  await world.within((target, call) => target.sync(call, []))
}

/** @returns lines as `f2b-sophosxg list` prints them, in the order of the box */
export async function list(world: World): Promise<string> {
  const leases = await world.within((target, call) => target.list(call))
  return leases.map((lease) => `${formatLease(lease)}\n`).join('')
}

/** Leases of `web1`, from lines as `list` prints them. */
export function leasesFrom(lines: string): Lease[] {
  const full = lines.split('\n').filter((line) => line !== '')
  return full.map((line) => parseLease(line, 'web1'))
}

let built: string | undefined

/** One self-contained file, as it is installed; built once for each test file. */
export function buildScript(): string {
  if (built) return built
  const dir = mkdtempSync(join(tmpdir(), 'sophosxg-build-'))
  process.on('exit', () => rmSync(dir, { recursive: true, force: true }))
  built = join(dir, 'sophosxg.mjs')
  buildSync({
    entryPoints: [join(ROOT, 'scripts/sophosxg.ts')],
    outfile: built,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    logLevel: 'warning',
    banner: {
      js: 'import{createRequire}from"node:module";const require=createRequire(import.meta.url);',
    },
  })
  return built
}
