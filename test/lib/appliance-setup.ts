/** An appliance set up by `f2b-setup`: what its tests and its demonstration share. */
import { X509Certificate } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mikrotikTargets } from '../../scripts/lib/mikrotik/target.ts'
import { opnsenseTargets } from '../../scripts/lib/opnsense/target.ts'
import { type Ended, run } from '../../scripts/lib/run.ts'
import type { ApplianceSimulator, Mishaps } from '../simulators/appliance.ts'
import { MikrotikSimulator } from '../simulators/mikrotik.ts'
import { OpnsenseSimulator } from '../simulators/opnsense.ts'
import { inWorld, type Kind, type World } from './appliance.ts'

const SECRET = 'Ge&heim"1'

export const SETUP = join(import.meta.dirname, '../../dist/setup.cjs')
export const CONFIG = 'etc/fail2ban-perimeter/config.yaml'

/** A simulated appliance and a folder to install below. */
export interface Site<S> {
  world: World<S>
  prefix: string
  /** Its certificate's fingerprint as openssl prints it. */
  pin: string
  setup(args: string): Promise<Ended>
  /** A file of the installation. */
  read(path: string): string
}

/** What its setup takes beside: the option for its secret, the end of its file's name, its text. */
export interface Sort<S> extends Kind<S> {
  login: [option: string, extension: string, text: string]
}

export const MIKROTIK: Sort<MikrotikSimulator> = {
  section: 'mikrotik',
  make: () => Object.assign(new MikrotikSimulator(), { pass: SECRET }),
  settings: ({ user, pass }) => ({ user, pass }),
  targets: ({ mikrotik }) => mikrotikTargets(mikrotik),
  login: ['--pass-file', 'pass', `${SECRET}\n`],
}

export const OPNSENSE: Sort<OpnsenseSimulator> = {
  section: 'opnsense',
  make: () => Object.assign(new OpnsenseSimulator(), { secret: SECRET }),
  settings: ({ key, secret }) => ({ key: `key=${key}\nsecret=${secret}\n` }),
  targets: ({ opnsense, owner }) => opnsenseTargets(opnsense, owner),
  login: ['--key-file', 'key', `key=w86XNZob\nsecret=${SECRET}\n`],
}

export type Simulator = ApplianceSimulator<Mishaps> & { blocked(): string[]; reboot(): void }

export async function inSite<S extends Simulator>(
  sort: Sort<S>,
  work: (site: Site<S>) => Promise<void>,
): Promise<void> {
  await inWorld(sort, async (world) => {
    const prefix = join(world.dir, 'root')
    mkdirSync(join(prefix, 'etc/fail2ban/action.d'), { recursive: true })
    const [option, , text] = sort.login
    const secret = join(world.dir, 'secret')
    writeFileSync(secret, text, { mode: 0o600 })
    const address = world.sim.url.replace('https://', '')
    const fixed = [sort.section, '--address', address, option, secret, '--prefix', prefix]
    const words = [SETUP, ...fixed]
    await work({
      world,
      prefix,
      pin: new X509Certificate(readFileSync(world.sim.ca)).fingerprint256,
      setup: (args) => run(process.execPath, [...words, ...args.split(' ')]),
      read: (path) => readFileSync(join(prefix, path), 'utf8'),
    })
  })
}

/**
 * The written configuration, with its files where they are now.
 *
 * @param more sections of it
 */
export function usable<S>({ world, prefix, read }: Site<S>, more = ''): string {
  const file = join(world.dir, 'made.yaml')
  const text = read(CONFIG).replaceAll(' /etc/', ` ${prefix}/etc/`)
  writeFileSync(file, `${text}state_dir: ${world.dir}/web1\n${more}`)
  return file
}
