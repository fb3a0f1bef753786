import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { run } from '../run.ts'
import type { Place } from './place.ts'

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
  { stateDir, systemd, isFirewall }: { stateDir: string; systemd: boolean; isFirewall: boolean },
): Promise<string | undefined> {
  if (place.prefix) return 'an account is made on the machine itself only'
  if (!systemd) return 'only systemd can lock an account in'
  if (isFirewall) return 'this machine is a firewall itself'
  const units = ['server', 'client'].map((word) => `/etc/systemd/system/net2ban-${word}.service`)
  if (units.some((path) => existsSync(path))) return `net2ban keeps its books in ${stateDir}`
  const { fortigate } = settings
  const list = (fortigate as { list_file?: unknown } | undefined)?.list_file
  if (typeof list === 'string' && dirname(list) !== stateDir) {
    return `an account cannot write "${list}"`
  }
  for (const { host, identity_file } of entries(settings)) {
    if (identity_file !== undefined) return `an account cannot read "${identity_file}"`
    if (typeof host === 'string' && (await isRootsAlias(host))) {
      return `the connection to ${host} is set up in root's own ssh_config`
    }
  }
  return undefined
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
