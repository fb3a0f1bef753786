import { existsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { canEnter, canReach } from '../delivery-account.ts'
import { run } from '../run.ts'
import { KINDS } from '../siblings.ts'
import type { Place } from './place.ts'
import { accountEntry } from './rights.ts'

/** What matters here of a configuration, which a person may have written. */
export interface Settings {
  owner?: unknown
  state_dir?: unknown
  firewalls?: unknown
  fortigate?: unknown
}

/** What an account without rights could not do, or would not be safe with. */
export async function whyRoot(
  place: Place,
  settings: Settings,
  { stateDir, systemd }: { stateDir: string; systemd: boolean },
): Promise<string | undefined> {
  if (place.prefix) return 'an account is made on the machine itself only'
  if (!systemd) return 'only systemd can lock an account in'
  if (hostsOf(settings).includes('local')) return 'this machine is a firewall itself'
  // Root reads it as well, and people write in it: its folder cannot be an account's.
  if (settings.fortigate) return 'an account cannot write the list of fortigate'
  const units = ['server', 'client'].map((word) => `/etc/systemd/system/net2ban-${word}.service`)
  if (units.some((path) => existsSync(path))) return `net2ban keeps its books in ${stateDir}`
  if (!canReach(process.execPath)) return `an account cannot run "${process.execPath}"`
  const gid = (await accountEntry())?.gid
  const closed = secretsOf(settings).find((path) => !canShow(path, gid))
  if (closed !== undefined) return `an account cannot read "${closed}"`
  for (const { host, identity_file } of entries(settings)) {
    if (identity_file !== undefined) return `an account cannot read "${identity_file}"`
    if (typeof host === 'string' && (await isRootsAlias(host))) {
      return `the connection to ${host} is set up in root's own ssh_config`
    }
  }
  return undefined
}

/** The files of secrets that the targets need. */
export function secretsOf(settings: Settings): string[] {
  const found: string[] = []
  const visit = (value: unknown): void => {
    for (const [key, one] of Object.entries(value && typeof value === 'object' ? value : {})) {
      if (/^(pass|token|key|secret|authkey)_file$/.test(key)) found.push(String(one))
      else visit(one)
    }
  }
  for (const { section, secrets = section } of KINDS) {
    const path = secrets.split('.')
    visit(path.reduce<unknown>((at, key) => (at as Record<string, unknown>)?.[key], settings))
  }
  return [...new Set(found)].filter((path) => existsSync(path))
}

/** True if a file is root's alone, or already the account's to read, in folders open to all. */
function canShow(path: string, account: number | undefined): boolean {
  const { uid, gid } = statSync(path)
  return uid === 0 && (gid === 0 || gid === account) && canEnter(dirname(path))
}

/** True if root's ~/.ssh/config changes how the host is reached. */
async function isRootsAlias(host: string): Promise<boolean> {
  const asked = [
    ['-G', '--', host],
    ['-F', '/etc/ssh/ssh_config', '-G', '--', host],
  ]
  const [own, common] = await Promise.all(asked.map((args) => run('ssh', args)))
  return own?.code === 0 && own.stdout !== common?.stdout
}

export function hostsOf(settings: Settings): unknown[] {
  return entries(settings).map(({ host }) => host)
}

function entries({ firewalls }: Settings): { host?: unknown; identity_file?: unknown }[] {
  return Array.isArray(firewalls) ? firewalls.filter((one) => one && typeof one === 'object') : []
}
