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
import { $ } from './commands.ts'
import { handOver, type Ids, rememberedIn, takeFolder } from './hand-over.ts'
import { type Resource, type State, say } from './plan.ts'
import { account, accountEntry, NOLOGIN, remnants } from './things.ts'

/** The account that delivers: it owns its folder and the key, and may read the configuration. */
export const DELIVERY_ACCOUNT = 'fail2ban-perimeter'

/** What f2b-sync keeps in the state directory, as root. */
const SYNCS = ['sync.lock', 'restoring.json']

const ROOT: Ids = { uid: 0, gid: 0 }

const ids = () => accountEntry(DELIVERY_ACCOUNT)

/** @param stop ends what delivers */
export function deliveryAccount(state: string, stop: () => Promise<void>): Resource {
  return account({
    name: DELIVERY_ACCOUNT,
    home: '/nonexistent',
    isOurs: ({ shell }) => shell === NOLOGIN,
    async before() {
      await stop()
      const [queue, delivery] = [queueDirectory(state), deliveryDirectory(state)]
      if (existsSync(queue)) takeFolder(queue, 0o700)
      if (existsSync(delivery)) handOver(state, ROOT, await ids())
    },
  })
}

/**
 * Lets the account read the configuration and the secrets that it names, and own the key, which ssh
 * wants to be its user's. All of them stand in folders of root's.
 */
export function rights(config: string, secrets: string[], key: string): Resource {
  // The configuration last: a running f2b-deliver reads it again, and then all that it names.
  const wanted = (own: Ids): [path: string, ids: Ids, mode: number][] => [
    ...secrets.map((path): [string, Ids, number] => [path, { uid: 0, gid: own.gid }, 0o640]),
    [key, own, 0o600],
    [config, { uid: 0, gid: own.gid }, 0o640],
  ]
  return {
    name: `rights of user ${DELIVERY_ACCOUNT} in ${config} and ${key}`,
    async state(): Promise<State> {
      const own = await ids()
      const there = own ? wanted(own).filter(([path]) => existsSync(path)) : []
      if (there.every(([path]) => statSync(path).gid === 0)) return 'absent'
      const isSame = there.every(([path, { uid, gid }, mode]) => {
        const stat = statSync(path)
        return stat.uid === uid && stat.gid === gid && (stat.mode & 0o7777) === mode
      })
      return isSame ? 'same' : 'different'
    },
    async apply() {
      const own = await ids()
      if (own) for (const one of wanted(own)) setRights(...one)
    },
    undo() {
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
export function queueFolder(state: string, owned: boolean): Resource {
  const path = queueDirectory(state)
  const mode = owned ? 0o2750 : 0o700
  const group = async (): Promise<number> => (owned ? ((await ids())?.gid ?? -1) : 0)
  return {
    name: `${path}/`,
    kept: true,
    async state() {
      const stat = lstatSync(path, { throwIfNoEntry: false })
      if (!stat) return 'absent'
      const isSame = stat.uid === 0 && stat.gid === (await group()) && stat.isDirectory()
      return isSame && (stat.mode & 0o7777) === mode ? 'same' : 'different'
    },
    async apply() {
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
    undo: () => $`rm -r -- ${path}`,
  }
}

/** Where the deliverer keeps its books, and the targets what they remember. */
export function deliveryFolder(state: string, owned: boolean, stop: () => Promise<void>): Resource {
  const path = deliveryDirectory(state)
  const wanted = async (): Promise<Ids | undefined> => (owned ? await ids() : ROOT)
  return {
    name: `${path}/`,
    kept: true,
    async state() {
      const stat = lstatSync(path, { throwIfNoEntry: false })
      if (!stat) return 'absent'
      const [own, account] = [await wanted(), await ids()]
      const { uid, mode } = statSync(state)
      const isRoots = uid === 0 && (!owned || (mode & 0o7777) === 0o755)
      const outside = rememberedIn(state, account).filter((name) => {
        return owned || lstatSync(join(state, name)).uid !== 0
      })
      const isOurs = stat.isDirectory() && stat.uid === own?.uid && outside.length === 0
      return isOurs && isRoots && (stat.mode & 0o7777) === 0o700 ? 'same' : 'different'
    },
    async apply() {
      const own = await wanted()
      if (!own) return
      await stop()
      handOver(state, own, await ids())
    },
    async undo() {
      takeFolder(path, 0o700)
      await $`rm -r -- ${path}`
    },
  }
}

/** What targets remember beside the deliveries; what others keep in the state directory is not ours. */
export function remembered(state: string): Resource {
  return remnants(`what the deliveries remember in ${state}/`, () =>
    [
      ...rememberedIn(state, undefined),
      ...SYNCS.filter((name) => existsSync(join(state, name))),
    ].map((name) => join(state, name)),
  )
}
