import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { tried } from './commands.ts'
import { type InstallTarget, type Resource, STATE_DIR, say } from './plan.ts'
import { file, textOf } from './things.ts'

// What we put beside Fail2Ban's own actions and filters, and what it must let us do.

const FAIL2BAN = '/etc/fail2ban'
const ACTIONS = `${FAIL2BAN}/action.d`

/** Every file of ours has this word in its head; the document's own iptables-remote.conf has not. */
const MARK = 'fail2ban-perimeter'

/** What our actions include. */
const INCLUDED = ['perimeter-blocks', 'perimeter-queue']

/** <action>.local, which Fail2Ban reads after <action>.conf, switches an action of ours to the queue. */
const HEAD = `# Made by f2b-setup server (fail2ban-perimeter), and taken away by it with --delivery direct. With
# settings of your own in it, it is yours: f2b-setup leaves it alone.
`

/** Our actions and filters in Fail2Ban's folders. */
export function fail2banFiles(target: InstallTarget): Resource[] {
  if (existsSync(target.at(FAIL2BAN))) {
    return ['action.d', 'filter.d'].flatMap((folder) => {
      return confs(target, folder).map((conf) => {
        const text = textOf(join(target.source, folder, conf)) ?? ''
        return file(target.at(join(FAIL2BAN, folder, conf)), text, 0o644, { ours: isOurs })
      })
    })
  }
  say(`note: there is no ${target.at(FAIL2BAN)}: actions and filters are not installed`)
  return []
}

/** Some of our actions, with what they include, which is taken away with the last that needs it. */
export function actionFiles(target: InstallTarget, actions: string[]): Resource[] {
  const folder = target.at(ACTIONS)
  const isIn = (names: string[], { name }: Resource): boolean =>
    names.some((one) => name === join(folder, `${one}.conf`))
  const all = fail2banFiles(target).filter(({ name }) => name.startsWith(`${folder}/`))
  const others = all.filter((one) => !isIn([...actions, ...INCLUDED], one))
  const needed = target.uninstall && others.some(({ name }) => existsSync(name))
  return all.filter((one) => isIn(actions, one) || (!needed && isIn(INCLUDED, one)))
}

/** How to have Fail2Ban use what is new: its `reload` drops an action that is new in a running jail. */
export function restartCommand(): string {
  return existsSync('/run/systemd/system')
    ? 'systemctl restart fail2ban'
    : 'fail2ban-client restart'
}

/** A file for each action that knows both ways, but for those that an operator has written. */
export function queueSwitches(target: InstallTarget, stateDir: string): Resource[] {
  const queue = stateDir === STATE_DIR ? '' : `queue = ${stateDir}/queue\n`
  const text = `${HEAD}[Init]\ndelivery = queued\n${queue}`
  const ours = locals(target).filter((path) => !isForeign(path))
  return ours.map((path) => file(path, text))
}

/** True if bans go through the queue now. */
export function isQueued(target: InstallTarget): boolean {
  return locals(target).some(saysQueued)
}

/** Says what an operator must change in the files that are his. */
export function adviseSwitches(target: InstallTarget, queued: boolean): void {
  for (const path of locals(target)) {
    if (!isForeign(path) || saysQueued(path) === queued) continue
    if (queued) say(`note: ${path} was left as it is; add to it:\n  [Init]\n  delivery = queued`)
    else say(`note: ${path} was left as it is; take out of it: delivery = queued`)
  }
}

/** Says what a hardened Fail2Ban (as on ArchWiki, or NixOS) needs to write the queue. */
export async function adviseHardened(target: InstallTarget, queue: string): Promise<void> {
  if (!target.live) return
  const asked = ['ProtectSystem', 'ReadOnlyPaths', 'ReadWritePaths', 'InaccessiblePaths']
  const options = asked.map((property) => `-p${property}`)
  const { code, stdout } = await tried`systemctl show fail2ban ${options}`
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

function confs({ source }: InstallTarget, folder: string): string[] {
  const from = join(source, folder)
  return existsSync(from) ? readdirSync(from).filter((name) => name.endsWith('.conf')) : []
}

/** True if the head of a file shows that it is ours. */
function isOurs(text: string): boolean {
  return text.split('\n').slice(0, 12).join('\n').includes(MARK)
}

/** Where the switches of our actions are, or would be. */
function locals(target: InstallTarget): string[] {
  if (!existsSync(target.at(ACTIONS))) return []
  const queueing = confs(target, 'action.d').filter((conf) => {
    return /^delivery *=/m.test(textOf(join(target.source, 'action.d', conf)) ?? '')
  })
  return queueing.map((conf) => target.at(join(ACTIONS, conf.replace(/conf$/, 'local'))))
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
