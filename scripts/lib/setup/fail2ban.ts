import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Item, say } from './changes.ts'
import { file, fileOnce, textOf } from './items.ts'
import type { Place } from './place.ts'

const FAIL2BAN = '/etc/fail2ban'
const LOCAL = `${FAIL2BAN}/action.d/iptables-remote.local`
const FOLDERS = ['action.d', 'filter.d']

/** Every file of ours has this word in its head; the document's own iptables-remote.conf has not. */
const MARK = 'fail2ban-perimeter'

/** Our actions and filters in Fail2Ban's folders, and how they deliver. */
export function fail2banItems(place: Place, delivery?: string): Item[] {
  if (!existsSync(place.at(FAIL2BAN))) {
    say(`note: there is no ${place.at(FAIL2BAN)}: actions and filters are not installed`)
    return []
  }
  return [...FOLDERS.flatMap((name) => copies(place, name)), ...deliver(place, delivery)]
}

/** True if the head of a file shows that it is ours. */
function isOurs(text: string): boolean {
  return text.split('\n').slice(0, 12).join('\n').includes(MARK)
}

function copies(place: Place, name: string): Item[] {
  const from = join(place.source, name)
  const names = existsSync(from) ? readdirSync(from).filter((n) => n.endsWith('.conf')) : []
  return names.map((conf) => {
    const target = place.at(join(FAIL2BAN, name, conf))
    return file(target, textOf(join(from, conf)) ?? '', 0o644, { ours: isOurs })
  })
}

function deliver(place: Place, delivery?: string): Item[] {
  const path = place.at(LOCAL)
  const text = `# ${MARK}: written by f2b-setup server --delivery queued, removed by --delivery direct
[Init]
delivery = queued
`
  const item = file(path, text, 0o644, {
    ours: isOurs,
    remedy: 'put "delivery = queued" below its [Init] yourself',
  })
  if (delivery === 'queued') return [item]
  if (delivery === 'direct') return [{ ...item, unwanted: true }]
  return place.uninstall ? [item] : existsSync(path) ? [fileOnce(path, () => {})] : []
}
