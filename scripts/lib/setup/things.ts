import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { replaceDurably } from '../durable.ts'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import { quote } from '../lease.ts'
import { $, tried } from './commands.ts'
import { howToGet, isPackaged } from './packaged.ts'
import { type InstallTarget, LEFT, type Resource, STATE_DIR, unwanted } from './plan.ts'
import { endProcesses } from './processes.ts'

/** A file whose content, mode and owner (root) are ours. `ours` tells it from a namesake. */
export function file(
  path: string,
  content: string,
  mode = 0o644,
  extra: Pick<Resource, 'note' | 'kept' | 'remedy'> & { ours?: (text: string) => boolean } = {},
): Resource {
  const { ours = () => true, ...rest } = extra
  return {
    name: path,
    state() {
      if (isPackaged(path)) return 'same'
      const found = textOf(path)
      if (found === undefined) return 'absent'
      if (!ours(found)) return 'foreign'
      return found === content && isRoots(path, mode) ? 'same' : 'different'
    },
    apply: () => writeAs(path, content, mode),
    undo: () => rmSync(path),
    ...rest,
  }
}

/** A file that is made if there is none and is the operator's from then on. */
export function fileOnce(path: string, apply: () => unknown): Resource {
  const state = () => (existsSync(path) ? 'same' : 'absent')
  return { name: path, state, apply, undo: () => rmSync(path), kept: true }
}

/** A folder of ours; it is removed only when it is empty. */
export function folder(path: string, mode = 0o755): Resource {
  return {
    name: `${path}/`,
    state() {
      if (!existsSync(path)) return 'absent'
      return isRoots(path, mode) ? 'same' : 'different'
    },
    apply() {
      mkdirSync(path, { recursive: true, mode })
      own(path, mode)
    },
    undo: () => removeEmpty(path),
  }
}

/** A folder that several parts of ours share, whose owner and mode are not this one's to say. */
export function sharedFolder(path: string): Resource {
  return { ...folder(path), state: () => (existsSync(path) ? 'same' : 'absent') }
}

/** The state directory, made if there is none: what root does depends on what stands there. */
export function stateFolder(target: InstallTarget, mode = 0o755): Resource {
  const path = target.at(STATE_DIR)
  const isForeign = (): boolean => (statSync(path, { throwIfNoEntry: false })?.uid ?? 0) !== 0
  const remedy = 'it belongs to another user: run f2b-setup server, which takes it back'
  const shared = sharedFolder(path)
  const state = () => (isForeign() ? 'foreign' : shared.state())
  return { ...folder(path, mode), state, remedy }
}

/** What is remembered somewhere, which only an uninstallation touches. */
export function remnants(name: string, paths: () => string[], kept = true): Resource {
  return {
    name,
    kept,
    state: () => (paths().length > 0 ? 'same' : 'absent'),
    undo: () => $`rm -r -- ${paths()}`,
  }
}

/** A file of the package. @throws Failure 78 if it is not there, unless to be undone only */
export function fromPackage(target: InstallTarget, name: string): string {
  const path = join(target.source, name)
  const text = textOf(path)
  if (text !== undefined || target.uninstall) return text ?? ''
  throw new Failure(EXIT.config, `Cannot find "${path}": ${howToGet(name)}`)
}

/** Writes a file at once and durably, with its folder if need be. */
export function writeAs(path: string, content: string, mode: number): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
  rmSync(`${path}.new`, { force: true })
  replaceDurably(path, content, mode)
  own(path, mode)
}

/** The content of a file; undefined if there is none. @throws Failure 75 */
export function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw ioFailure(`read "${path}"`, error)
  }
}

export interface AccountSpec {
  name: string
  home?: string
  /** sshd starts a forced command through it; all others have none. */
  shell?: string
  /** "*" fits nothing; without one it is locked, and an sshd without PAM then refuses keys as well. */
  password?: string
  /** Tells it from a namesake. */
  isOurs?: (found: Entry) => boolean
  remedy?: string
  /** What is to be done before it can go. */
  before?: () => Promise<void>
}

interface Entry {
  uid: number
  gid: number
  home: string
  shell: string
}

/** So often an account is tried to be removed. */
const TRIES = 3

export const NOLOGIN = '/usr/sbin/nologin'

/** A system account without rights. */
export function account(spec: AccountSpec): Resource {
  const { name, shell = NOLOGIN, password, isOurs = () => true, before } = spec
  const { remedy = `rename it (usermod --login NEW ${name})` } = spec
  async function state() {
    const found = await accountEntry(name)
    if (!found) return 'absent'
    if (found.uid === 0 || !isOurs(found)) return 'foreign'
    // Only where somebody logs in does it matter what it has.
    if (password === undefined) return 'same'
    const [, hash] = await entry('shadow', name)
    return found.shell === shell && hash === password ? 'same' : 'different'
  }
  return {
    name: `user ${name}`,
    state,
    async apply() {
      if (await accountEntry(name)) {
        await $`usermod --shell ${shell} --password ${password ?? ''} ${name}`
        return
      }
      const isGroup = (await entry('group', name)).length > 1
      const group = isGroup ? ['--gid', name] : ['--user-group']
      await $`useradd --system --no-create-home ${group} ${accountOptions(spec)} ${name}`
    },
    /** What was just about to become the account is it a moment later, and userdel refuses. */
    async undo() {
      await before?.()
      for (let tries = 1; tries < TRIES; tries++) {
        await endSessions(name)
        if ((await tried`userdel ${name}`).code === 0) return
      }
      await endSessions(name)
      await $`userdel ${name}`
    },
    remedy,
  }
}

/** What useradd is told of an account; also for a person, where `--prefix` leaves it to him. */
export function accountOptions({ home, shell = NOLOGIN, password }: AccountSpec): string[] {
  const where = home === undefined ? [] : ['--home-dir', home]
  return [...where, '--shell', shell, ...(password === undefined ? [] : ['--password', password])]
}

/** An account; undefined if there is none. */
export async function accountEntry(name: string): Promise<Entry | undefined> {
  const [, , uid, gid, , home = '', shell = ''] = await entry('passwd', name)
  return uid === undefined ? undefined : { uid: Number(uid), gid: Number(gid), home, shell }
}

async function entry(database: string, name: string): Promise<string[]> {
  const { stdout } = await tried`getent ${database} ${name}`
  return stdout.trimEnd().split(':')
}

/**
 * Ends what runs as an account: sessions of servers, also the idle connections that they keep open,
 * and what systemd keeps for it for a while. A server whose key still counts connects again.
 *
 * @returns whether there was anything
 */
export async function endSessions(name: string): Promise<boolean> {
  const uid = (await accountEntry(name))?.uid
  return uid !== undefined && (await endProcesses((process) => process.uid === uid)) > 0
}

/** A value of a unit's placeholder: the line is there once for each, and not at all without one. */
export type UnitValues = Record<string, string | readonly string[] | undefined>

/** A plain file of the package with what differs between machines filled in, as `@NODE@`. */
export function rendered(target: InstallTarget, name: string, values: UnitValues): string {
  const lines = fromPackage(target, name).split('\n')
  return Object.entries(values)
    .reduce((all, [key, value]) => all.flatMap((line) => fill(line, `@${key}@`, value)), lines)
    .join('\n')
}

function fill(line: string, key: string, value: UnitValues[string]): string[] {
  if (!line.includes(key)) return [line]
  return [value ?? []].flat().map((one) => line.replaceAll(key, () => one))
}

/** A path where a unit takes all that follows as one, blanks too: systemd expands `%`. */
export function unitPath(path: string): string {
  if (!/\p{Cc}|^\s|[\s\\]$/u.test(path)) return path.replaceAll('%', '%%')
  throw new Failure(EXIT.config, `Cannot name ${quote(path)} in a unit of systemd: rename it`)
}

/** A path as one word of a unit's command. */
export function unitWord(path: string): string {
  const word = unitPath(path).replaceAll('$', '$$$$')
  return /^[\w./:=@+,%$-]+$/.test(word) ? word : `"${word.replace(/["\\]/g, '\\$&')}"`
}

/** Files that systemd hands to a service, which looks for each by its name. */
export function credentials(paths: readonly string[]): string[] {
  return [...new Set(paths)].map((path) => {
    const name = basename(path)
    // systemd takes no other names, and ends one at the first colon.
    if (/^[ -9;-~]+$/.test(name)) return `${unitPath(name)}:${unitPath(path)}`
    throw new Failure(EXIT.config, `Cannot hand ${quote(path)} to a service: rename it`)
  })
}

/** A unit of systemd. */
export function unit(target: InstallTarget, name: string, text: string): Resource {
  const one = file(target.at(`/etc/systemd/system/${name}`), text)
  return {
    ...one,
    async undo() {
      one.undo()
      if (!target.live) return
      await $`systemctl daemon-reload`
      // What was stopped in the middle of its work counts as failed, also when its file is gone.
      await tried`systemctl reset-failed ${name}`
    },
  }
}

/**
 * Units that are enabled and run, where systemd runs.
 *
 * @param files their files, and those of what they start
 * @param parts what they read when they start: they start anew when it is another
 * @param after what is to be done when they have ended for good
 */
export function services(
  target: InstallTarget,
  names: string[],
  files: Resource[],
  { parts = [], after }: { parts?: Resource[]; after?: () => Promise<void> } = {},
): Resource[] {
  if (!target.live) return []
  const states = (all: Resource[]) => Promise.all(all.map((one) => one.state()))
  return [
    {
      name: `systemd ${names.length > 1 ? 'units' : 'unit'} ${names.join(' and ')}`,
      async state() {
        const units = await states(files)
        if (units.every((state) => state === 'absent')) return 'absent'
        // Asked about several units at once, systemctl is content with one.
        const asked = names.flatMap((name) => [
          tried`systemctl is-enabled --quiet ${name}`,
          tried`systemctl is-active --quiet ${name}`,
        ])
        const running = (await Promise.all(asked)).every(({ code }) => code === 0)
        const all = [...units, ...(await states(parts))]
        return running && all.every((state) => state === 'same') ? 'same' : 'different'
      },
      async apply() {
        await $`systemctl daemon-reload`
        await $`systemctl enable ${names}`
        await $`systemctl restart ${names}`
      },
      async undo() {
        const there = installedUnits(target, names)
        if (there.length > 0) await $`systemctl disable --now ${there}`
        await after?.()
      },
    },
  ]
}

/** Those units of ours that are there. */
export function installedUnits(target: InstallTarget, names: string[]): string[] {
  return names.filter((name) => existsSync(target.at(`/etc/systemd/system/${name}`)))
}

/** All if it is so; else what takes them away. */
export function wantedIf(yes: boolean, resources: Resource[]): Resource[] {
  return yes ? resources : unwanted(resources)
}

function isRoots(path: string, mode: number): boolean {
  const stat = statSync(path)
  return (stat.mode & 0o7777) === mode && stat.uid === 0 && stat.gid === 0
}

/** A set-group-ID folder above (/usr/local/lib of an older Debian) hands its group down. */
function own(path: string, mode: number): void {
  chownSync(path, 0, 0)
  chmodSync(path, mode)
}

function removeEmpty(path: string): typeof LEFT | undefined {
  try {
    rmdirSync(path)
    return undefined
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTEMPTY') return LEFT
    throw error
  }
}
