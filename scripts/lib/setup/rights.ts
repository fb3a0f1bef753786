import {
  closeSync,
  existsSync,
  fchmodSync,
  fchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { deliveryDirectory, queueDirectory } from '../delivery/state.ts'
import { run } from '../run.ts'
import { call } from './account.ts'
import { type Item, type State, say } from './changes.ts'
import { handOver, type Ids, rememberedIn, takeFolder } from './hand-over.ts'

/** The account that delivers: it owns its folder and the key, and may read the configuration. */
export const DELIVERY_ACCOUNT = 'fail2ban-perimeter'

const SHELL = '/usr/sbin/nologin'
const ABOUT = ['--home-dir', '/nonexistent', '--shell', SHELL]
/** What f2b-sync keeps in the state directory, as root. */
const SYNCS = ['sync.lock', 'restoring.json']

const ROOT: Ids = { uid: 0, gid: 0 }

/** @param stop ends whoever delivers */
export function accountItem(state: string, stop: () => Promise<void>): Item {
  return {
    name: `user ${DELIVERY_ACCOUNT}`,
    async look() {
      const found = await accountEntry()
      return !found ? 'absent' : found.uid !== 0 && found.shell === SHELL ? 'same' : 'foreign'
    },
    make: () =>
      call('useradd', ['--system', '--user-group', '--no-create-home', ...ABOUT, DELIVERY_ACCOUNT]),
    async remove() {
      await stop()
      const [queue, delivery] = [queueDirectory(state), deliveryDirectory(state)]
      if (existsSync(queue)) takeFolder(queue, 0o700)
      if (existsSync(delivery)) handOver(state, ROOT, await accountEntry())
      await call('userdel', [DELIVERY_ACCOUNT])
    },
    remedy: `rename it (usermod --login NEW ${DELIVERY_ACCOUNT})`,
  }
}

/** The account; undefined if there is none. */
export async function accountEntry(): Promise<(Ids & { shell: string }) | undefined> {
  const { code, stdout } = await run('getent', ['passwd', DELIVERY_ACCOUNT])
  const [, , uid, gid, , , shell = ''] = stdout.trimEnd().split(':')
  return code === 0 ? { uid: Number(uid), gid: Number(gid), shell } : undefined
}

/**
 * Lets the account read the configuration and the secrets that it names, and own the key, which ssh
 * wants to be its user's. All of them stand in folders of root's.
 */
export function rights(config: string, secrets: string[], key: string): Item {
  // The configuration last: a running f2b-deliver reads it again, and then all that it names.
  const wanted = (ids: Ids): [path: string, ids: Ids, mode: number][] => [
    ...secrets.map((path): [string, Ids, number] => [path, { uid: 0, gid: ids.gid }, 0o640]),
    [key, ids, 0o600],
    [config, { uid: 0, gid: ids.gid }, 0o640],
  ]
  return {
    name: `rights of user ${DELIVERY_ACCOUNT} in ${config} and ${key}`,
    async look(): Promise<State> {
      const ids = await accountEntry()
      const there = ids ? wanted(ids).filter(([path]) => existsSync(path)) : []
      if (there.every(([path]) => statSync(path).gid === 0)) return 'absent'
      const isSame = there.every(([path, { uid, gid }, mode]) => {
        const stat = statSync(path)
        return stat.uid === uid && stat.gid === gid && (stat.mode & 0o7777) === mode
      })
      return isSame ? 'same' : 'different'
    },
    async make() {
      const ids = await accountEntry()
      if (ids) for (const one of wanted(ids)) setRights(...one)
    },
    remove() {
      for (const path of [config, ...secrets, key]) setRights(path, ROOT, 0o600)
    },
  }
}

function setRights(path: string, { uid, gid }: Ids, mode: number): void {
  if (!existsSync(path)) return
  const fd = openSync(path, 'r')
  fchownSync(fd, uid, gid)
  fchmodSync(fd, mode)
  closeSync(fd)
}

/**
 * The queue: root's, since root's action lines open files in it; the account reads. What stands in it
 * that an action line would not open goes.
 */
export function queueFolder(state: string, owned: boolean): Item {
  const path = queueDirectory(state)
  const mode = owned ? 0o2750 : 0o700
  const group = async (): Promise<number> => (owned ? ((await accountEntry())?.gid ?? -1) : 0)
  return {
    name: `${path}/`,
    kept: true,
    async look() {
      const stat = lstatSync(path, { throwIfNoEntry: false })
      if (!stat) return 'absent'
      const isSame = stat.uid === 0 && stat.gid === (await group()) && stat.isDirectory()
      return isSame && (stat.mode & 0o7777) === mode ? 'same' : 'different'
    },
    async make() {
      takeFolder(state, 0o755)
      if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === false) rmSync(path)
      mkdirSync(path, { recursive: true })
      const gid = await group()
      takeFolder(path, mode, gid)
      for (const name of readdirSync(path)) {
        const one = join(path, name)
        const stat = lstatSync(one)
        if (stat.isFile() && stat.uid === 0 && stat.nlink === 1) {
          setRights(one, { uid: 0, gid }, 0o640)
        } else {
          rmSync(one, { recursive: true, force: true })
          say(`note: ${one} was removed: no action line of root's had made it`)
        }
      }
    },
    remove: () => call('rm', ['-r', '--', path]),
  }
}

/** Where the deliverer keeps its books, and the targets what they remember. */
export function deliveryFolder(state: string, owned: boolean, stop: () => Promise<void>): Item {
  const path = deliveryDirectory(state)
  const wanted = async (): Promise<Ids | undefined> => (owned ? await accountEntry() : ROOT)
  return {
    name: `${path}/`,
    kept: true,
    async look() {
      const stat = lstatSync(path, { throwIfNoEntry: false })
      if (!stat) return 'absent'
      const [ids, account] = [await wanted(), await accountEntry()]
      const { uid, mode } = statSync(state)
      const isRoots = uid === 0 && (!owned || (mode & 0o7777) === 0o755)
      const outside = rememberedIn(state, account).filter((name) => {
        return owned || lstatSync(join(state, name)).uid !== 0
      })
      const isOurs = stat.isDirectory() && stat.uid === ids?.uid && outside.length === 0
      return isOurs && isRoots && (stat.mode & 0o7777) === 0o700 ? 'same' : 'different'
    },
    async make() {
      const ids = await wanted()
      if (!ids) return
      await stop()
      handOver(state, ids, await accountEntry())
    },
    async remove() {
      takeFolder(path, 0o700)
      await call('rm', ['-r', '--', path])
    },
  }
}

/** What targets remember beside the deliveries; what others keep in the state directory is not ours. */
export function remains(state: string): Item {
  const paths = (): string[] =>
    [
      ...rememberedIn(state, undefined),
      ...SYNCS.filter((name) => existsSync(join(state, name))),
    ].map((name) => join(state, name))
  return {
    name: `what the deliveries remember in ${state}/`,
    kept: true,
    look: () => (paths().length > 0 ? 'same' : 'absent'),
    make() {},
    remove: () => call('rm', ['-r', '--', ...paths()]),
  }
}
