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

/** What our actions include. */
const INCLUDED = ['perimeter-blocks', 'perimeter-queue']

/** Some of our actions, with what they include, which is taken away with the last that needs it. */
export function actionItems(place: Place, actions: string[]): Item[] {
  const folder = place.at(`${FAIL2BAN}/action.d`)
  const isIn = (names: string[], { name }: Item): boolean =>
    names.some((one) => name === join(folder, `${one}.conf`))
  const all = fail2banItems(place).filter(({ name }) => name.startsWith(`${folder}/`))
  const others = all.filter((item) => !isIn([...actions, ...INCLUDED], item))
  const needed = place.uninstall && others.some(({ name }) => existsSync(name))
  return all.filter((item) => isIn(actions, item) || (!needed && isIn(INCLUDED, item)))
}

/** How to have Fail2Ban use what is new: its `reload` drops an action that is new in a running jail. */
export function restartCommand(): string {
  return existsSync('/run/systemd/system')
    ? 'systemctl restart fail2ban'
    : 'fail2ban-client restart'
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
