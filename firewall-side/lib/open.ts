import { mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { stampOf } from '../../scripts/lib/durable.ts'
import { EXIT, Failure, ioFailure } from '../../scripts/lib/failure.ts'
import { settled } from '../../scripts/lib/settled.ts'
import type { Backend } from './backend.ts'
import type { Caller } from './books.ts'
import type { FirewallConfig } from './config.ts'
import { ipset } from './ipset.ts'
import { iptables } from './iptables.ts'
import { nftables } from './nftables.ts'
import { type Paths, pathsOf } from './paths.ts'
import { Perimeter } from './perimeter.ts'

/** In the order in which `auto` tries them. */
const BACKENDS = { nftables, ipset, iptables }
type Name = keyof typeof BACKENDS

/** A perimeter, and the configuration that it was opened with. */
export interface Opened {
  perimeter: Perimeter
  config: FirewallConfig
  paths: Paths
  /** Tells this content of the configuration from any other. */
  stamp: string
}

/**
 * Opens this firewall's perimeter for a caller.
 *
 * @throws Failure 75 for a full disk, 77 unless root, 78 for a bad configuration or a backend that does not work here
 */
export async function openPerimeter(caller: Caller, paths = pathsHere()): Promise<Opened> {
  const stamp = stampOf(paths.config)
  const config = await settled(paths.config, 'firewall', async () => {
    return (await import('./config.ts')).readFirewallConfig(paths.config)
  })
  const { backend, changed } = await chooseBackend(config, `${paths.run}/firewall.backend`)
  const perimeter = new Perimeter(config, paths, backend, caller)
  if (changed) await perimeter.restore()
  return { perimeter, config, paths, stamp }
}

/** The same once more if `firewall.yaml` has changed since: a session may be open for days. */
export async function upToDate(opened: Opened, caller: Caller): Promise<Opened> {
  if (stampOf(opened.paths.config) === opened.stamp) return opened
  const next = await openPerimeter(caller, opened.paths)
  next.perimeter.session = opened.perimeter.session
  return next
}

/** Where this firewall side keeps its things, with the folders. @throws Failure 75, or 77 unless root */
export function pathsHere(): Paths {
  if (process.getuid?.() !== 0)
    throw new Failure(
      EXIT.refused,
      'Cannot change the firewall as an ordinary user: run it as root',
    )
  const paths = pathsOf(realpathSync(process.argv[1] ?? ''))
  for (const folder of [paths.run, paths.state]) {
    try {
      mkdirSync(folder, { recursive: true, mode: 0o755 })
    } catch (error) {
      throw ioFailure(`make "${folder}"`, error)
    }
  }
  return paths
}

/**
 * The backend that the configuration names. What `auto` found is remembered until the next boot. If
 * another backend, other hooks or another block type were in use, what they left in the kernel goes
 * and everything has to be built anew (`changed`).
 */
async function chooseBackend(
  config: FirewallConfig,
  memory: string,
): Promise<{ backend: Backend; changed: boolean }> {
  const used = readMemory(memory)
  const [usedName, ...usedRest] = used.split(' ')
  const rest = [config.blocktype, ...config.hooks]
  const sameRest = usedRest.join(' ') === rest.join(' ')
  if (usedName && sameRest && (config.backend === 'auto' || config.backend === usedName)) {
    return { backend: BACKENDS[usedName as Name](config), changed: false }
  }
  const backend = await firstThatWorks(config)
  if (usedName) {
    const hooks = usedRest.slice(1)
    await BACKENDS[usedName as Name]({ ...config, hooks }).remove()
  }
  try {
    writeFileSync(memory, [backend.name, ...rest].join(' '), { mode: 0o600 })
  } catch (error) {
    throw ioFailure(`write "${memory}"`, error)
  }
  return { backend, changed: used !== '' }
}

async function firstThatWorks(config: FirewallConfig): Promise<Backend> {
  const names = config.backend === 'auto' ? (Object.keys(BACKENDS) as Name[]) : [config.backend]
  for (const name of names) {
    const backend = BACKENDS[name](config)
    if (await backend.works()) return backend
  }
  throw new Failure(
    EXIT.config,
    `Cannot block here: ${names.join(', ')} does not work on this machine`,
  )
}

function readMemory(path: string): string {
  try {
    const text = readFileSync(path, 'utf8')
    return Object.keys(BACKENDS).includes(text.split(' ')[0] ?? '') ? text : ''
  } catch {
    return ''
  }
}
