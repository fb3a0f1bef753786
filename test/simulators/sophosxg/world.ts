/** A simulated firewall, a configuration and the built script: what the tests of the sibling share. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildSync } from 'esbuild'
import { type Ended, run } from '../../../scripts/lib/run.ts'
import { type Options, SophosSimulator } from '../sophosxg.ts'

const ROOT = join(import.meta.dirname, '../../..')

export interface World {
  sim: SophosSimulator
  dir: string
  /** The built script. */
  script: string
  /** Runs a verb as `web1`, or with other settings. */
  run(args: string, options?: { input?: string; config?: string }): Promise<Ended>
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
