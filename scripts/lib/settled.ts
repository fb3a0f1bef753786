import { existsSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import manifest from '../../package.json' with { type: 'json' }
import { EXIT, Failure } from './failure.ts'
import type { Config } from './settings/schema.ts'

// Reading YAML and checking it against a schema costs 20 ms a process, most of it for loading the
// two libraries: as much as a packet filter takes for three bans. So what a ban needs of a
// configuration is kept as JSON in /run, for as long as the file it came from is the same.

/** The usual places. Root reads nothing of a directory that it happens to be in. */
const PLACES = ['/etc/fail2ban-perimeter/config.yaml', ...(isRoot() ? [] : ['./config.yaml'])]

/** Only root writes in this directory, so nobody else can settle anything for it. */
const CACHE = '/run/fail2ban-perimeter'

/** A configuration, where it came from, and what stops nothing but should be known. */
export interface Loaded {
  config: Config
  path: string
  /** Secrets that others can read, for instance. */
  warnings: string[]
}

/**
 * Which file is read: the given one, else the environment's, else the first of the usual places.
 *
 * @throws Failure 78 if there is none
 */
export function configPath(given?: string): string {
  const named = given ?? process.env.FAIL2BAN_PERIMETER_CONFIG
  const path = named ?? PLACES.find((place) => existsSync(place))
  if (path !== undefined) return isRoot() ? onlyRootWrites(path) : path
  throw new Failure(
    EXIT.config,
    `Cannot find a configuration: ${PLACES.join(' and ')} ${isRoot() ? 'does' : 'do'} not exist`,
  )
}

/** What it says, root runs: `fail2ban.client`, for instance. @throws Failure 78 */
function onlyRootWrites(path: string): string {
  if (!existsSync(path)) return path // its reader says so
  const file = realpathSync(path)
  for (const at of [file, dirname(file)]) {
    const { uid, gid, mode } = statSync(at)
    // Where the sticky bit is set (/tmp), nobody replaces what is root's.
    const isOpen = at !== file && (mode & 0o1000) !== 0 ? 0 : mode & 0o022
    if (uid === 0 && !(isOpen & 0o002) && !(isOpen & 0o020 && gid !== 0)) continue
    const remedy = uid === 0 ? `chmod go-w ${at}` : `chown root ${at}`
    const why = `others can write ${at === path ? 'it' : `"${at}"`}: ${remedy}`
    throw new Failure(EXIT.config, `Cannot let root read "${path}": ${why}`)
  }
  return path
}

function isRoot(): boolean {
  return process.getuid?.() === 0
}

/** Whether there is a configuration in one of the usual places, or named by the environment. */
export function isConfigured(): boolean {
  const { FAIL2BAN_PERIMETER_CONFIG: named } = process.env
  return named !== undefined || PLACES.some((place) => existsSync(place))
}

/**
 * What `make` makes of a file, remembered until the file changes.
 *
 * @param name of what is remembered
 */
export async function settled<T>(path: string, name: string, make: () => Promise<T>): Promise<T> {
  const cache = join(CACHE, `${name}.settled`)
  const stamp = stampOf(path)
  const known = isRoot() ? read<T>(cache) : undefined
  if (known && known.stamp === stamp) return known.value
  const value = await make()
  try {
    if (isRoot()) writeFileSync(cache, JSON.stringify({ stamp, value }), { mode: 0o600 })
  } catch {
    // No such directory yet, or a full disk: then the next one reads the file again.
  }
  return value
}

function stampOf(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
  // A new version may know more keys, whose defaults an old result does not have.
  return `${manifest.version} ${path} ${stat?.ino} ${stat?.size} ${stat?.mtimeNs} ${stat?.ctimeNs}`
}

function read<T>(cache: string): { stamp: string; value: T } | undefined {
  try {
    return JSON.parse(readFileSync(cache, 'utf8')) as { stamp: string; value: T }
  } catch {
    return undefined
  }
}
