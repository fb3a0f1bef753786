import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Item, say } from './changes.ts'
import { file, textOf } from './items.ts'
import type { Place } from './place.ts'

// What switches our actions to the queue: <action>.local, which Fail2Ban reads after <action>.conf.

const ACTIONS = '/etc/fail2ban/action.d'
const STATE_DIR = '/var/lib/fail2ban-perimeter'

const HEAD = `# Made by f2b-setup server (fail2ban-perimeter), and taken away by it with --delivery direct. With
# settings of your own in it, it is yours: f2b-setup leaves it alone.
`

/** A file for each action that knows both ways, but for those that an operator has written. */
export function locals(place: Place, stateDir: string): Item[] {
  return names(place).flatMap((name) => {
    const path = place.at(join(ACTIONS, `${name}.local`))
    return isForeign(path) ? [] : [file(path, `${HEAD}${settings(stateDir)}`, 0o644)]
  })
}

/** True if bans go through the queue now. */
export function isQueued(place: Place): boolean {
  return names(place).some((name) => saysQueued(place.at(join(ACTIONS, `${name}.local`))))
}

/** Says what an operator must change in the files that are his. */
export function adviseLocals(place: Place, queued: boolean): void {
  for (const name of names(place)) {
    const path = place.at(join(ACTIONS, `${name}.local`))
    if (!isForeign(path) || saysQueued(path) === queued) continue
    if (queued) say(`note: ${path} was left as it is; add to it:\n  [Init]\n  delivery = queued`)
    else say(`note: ${path} was left as it is; take out of it: delivery = queued`)
  }
}

function names(place: Place): string[] {
  const from = join(place.source, 'action.d')
  if (!existsSync(place.at(ACTIONS)) || !existsSync(from)) return []
  const conf = readdirSync(from).filter((name) => name.endsWith('.conf'))
  const queueing = conf.filter((name) => /^delivery *=/m.test(textOf(join(from, name)) ?? ''))
  return queueing.map((name) => name.slice(0, -'.conf'.length))
}

function settings(stateDir: string): string {
  const queue = stateDir === STATE_DIR ? '' : `queue = ${stateDir}/queue\n`
  return `[Init]\ndelivery = queued\n${queue}`
}

/** True if there is one that says more than we would. */
function isForeign(path: string): boolean {
  const text = textOf(path)
  if (text === undefined) return false
  const own = /^(\[Init\]|delivery = queued|queue = \/.*|#.*|\s*)$/
  return !text.startsWith(HEAD.split('\n')[0] ?? '') || !text.split('\n').every((l) => own.test(l))
}

function saysQueued(path: string): boolean {
  return /^delivery\s*=\s*queued\s*$/m.test(textOf(path) ?? '')
}
