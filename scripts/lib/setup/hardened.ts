import { existsSync } from 'node:fs'
import { run } from '../run.ts'
import { say } from './changes.ts'
import type { Place } from './place.ts'

const ASKED = ['ProtectSystem', 'ReadOnlyPaths', 'ReadWritePaths', 'InaccessiblePaths']

/** Says what a hardened Fail2Ban (as on ArchWiki, or NixOS) needs to write the queue. */
export async function adviseHardened(place: Place, queue: string): Promise<void> {
  if (place.prefix || !existsSync('/run/systemd/system')) return
  const { code, stdout } = await run('systemctl', [
    'show',
    'fail2ban',
    ...ASKED.map((p) => `-p${p}`),
  ])
  if (code !== 0 || mayWrite(stdout, queue)) return
  const folder = '/etc/systemd/system/fail2ban.service.d'
  say(`note: fail2ban.service may not write ${queue}, so no ban would be queued. Let it:`)
  say(`  mkdir -p ${folder}`)
  say(`  printf '[Service]\\nReadWritePaths=${queue}\\n' >${folder}/perimeter.conf`)
  say('  systemctl daemon-reload && systemctl restart fail2ban')
}

/**
 * Whether a service may write a folder: the longest path that is named decides (systemd.exec(5)).
 *
 * @param shown what `systemctl show` says of it
 */
export function mayWrite(shown: string, folder: string): boolean {
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(shown)?.[1] ?? ''
  const longest = (paths: string): number => {
    const named = paths.split(/\s+/).map((path) => path.replace(/^[-+]+/, '').replace(/\/+$/, '/'))
    const fits = named.filter((path) => {
      return path !== '' && `${folder}/`.startsWith(path.endsWith('/') ? path : `${path}/`)
    })
    return Math.max(-1, ...fits.map((path) => path.replace(/\/$/, '').length))
  }
  const isStrict = value('ProtectSystem') === 'strict' ? 0 : -1
  const closed = [value('ReadOnlyPaths'), value('InaccessiblePaths')].map(longest)
  return longest(value('ReadWritePaths')) >= Math.max(isStrict, ...closed)
}
