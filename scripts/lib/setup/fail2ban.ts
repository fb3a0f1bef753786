import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Item, say } from './changes.ts'
import { file, textOf } from './items.ts'
import type { Place } from './place.ts'

const FAIL2BAN = '/etc/fail2ban'
const FOLDERS = ['action.d', 'filter.d']

/** Every file of ours has this word in its head; the document's own iptables-remote.conf has not. */
const MARK = 'fail2ban-perimeter'

/** Our actions and filters in Fail2Ban's folders. */
export function fail2banItems(place: Place): Item[] {
  if (!existsSync(place.at(FAIL2BAN))) {
    say(`note: there is no ${place.at(FAIL2BAN)}: actions and filters are not installed`)
    return []
  }
  return FOLDERS.flatMap((name) => copies(place, name))
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
