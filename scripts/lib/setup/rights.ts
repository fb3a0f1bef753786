import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  rmSync,
} from 'node:fs'
import { join } from 'node:path'
import { queueDirectory } from '../delivery/state.ts'
import { run } from '../run.ts'
import { call } from './account.ts'
import type { Item, State } from './changes.ts'
import { endProcesses } from './processes.ts'

/** The account that delivers: it owns the state directory and the key, and nothing else. */
export const DELIVERY_ACCOUNT = 'fail2ban-perimeter'

const SHELL = '/usr/sbin/nologin'
const ABOUT = ['--home-dir', '/nonexistent', '--shell', SHELL]

interface Ids {
  uid: number
  gid: number
}

export function deliveryAccount(): Item {
  return {
    name: `user ${DELIVERY_ACCOUNT}`,
    async look() {
      const found = await accountEntry()
      return !found ? 'absent' : found.uid !== 0 && found.shell === SHELL ? 'same' : 'foreign'
    },
    make: () =>
      call('useradd', ['--system', '--user-group', '--no-create-home', ...ABOUT, DELIVERY_ACCOUNT]),
    remove: () => call('userdel', [DELIVERY_ACCOUNT]),
    remedy: `rename it (usermod --login NEW ${DELIVERY_ACCOUNT})`,
  }
}

/**
 * Gives the state directory and the key to the account; undone, back to root. Only what is root's or
 * the account's is touched: what belongs to others stays theirs.
 */
export function rights(stateDir: string, key: string): Item {
  // What is in the queue is root's, who wrote it, and readable for the directory's group.
  const queued = `${queueDirectory(stateDir)}/`
  const all = (): string[] =>
    [stateDir, ...below(stateDir), key].filter(
      (path) => existsSync(path) && !path.startsWith(queued),
    )
  return {
    name: `rights of user ${DELIVERY_ACCOUNT} in ${stateDir}/`,
    async look(): Promise<State> {
      const ids = await accountEntry()
      const owners = all().map((path) => lstatSync(path).uid)
      if (!ids || !owners.includes(ids.uid)) return 'absent'
      return owners.includes(0) ? 'different' : 'same'
    },
    async make() {
      const ids = await accountEntry()
      if (ids) for (const path of all()) hand(path, { uid: 0, gid: 0 }, ids)
    },
    async remove() {
      const ids = await accountEntry()
      if (!ids) return
      // Such as a shared connection of a command that somebody used by hand.
      await endProcesses(({ uid }) => uid === ids.uid)
      for (const path of all()) {
        if (lstatSync(path).isSocket()) rmSync(path)
        else hand(path, ids, { uid: 0, gid: 0 })
      }
    },
  }
}

/** Through a descriptor, and no file with a second name: the account may have made links. */
function hand(path: string, from: Ids, to: Ids): void {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const stat = lstatSync(path)
  if (!stat.isFile() && !stat.isDirectory()) return
  const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  try {
    const { uid, gid, nlink, mode } = fstatSync(fd)
    const isLinked = stat.isFile() && nlink > 1
    if (uid !== from.uid || isLinked) return
    fchownSync(fd, to.uid, gid === from.gid ? to.gid : gid)
    fchmodSync(fd, mode & 0o7777) // fchown takes set-group-ID from files
  } finally {
    closeSync(fd)
  }
}

function below(folder: string): string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { withFileTypes: true }).flatMap((item) => {
    const path = join(folder, item.name)
    if (item.isDirectory()) return [path, ...below(path)]
    return item.isFile() || item.isSocket() ? [path] : []
  })
}

/** The account; undefined if there is none. */
export async function accountEntry(): Promise<(Ids & { shell: string }) | undefined> {
  const { code, stdout } = await run('getent', ['passwd', DELIVERY_ACCOUNT])
  const [, , uid, gid, , , shell = ''] = stdout.trimEnd().split(':')
  return code === 0 ? { uid: Number(uid), gid: Number(gid), shell } : undefined
}
