import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { deliveryDirectory } from '../delivery/state.ts'
import { say } from './plan.ts'

// What deliveries remember goes from one owner to another. An account may have made anything in a
// folder that it could write: links, pipes, files with set-user-ID. So the folder is made root's
// first, through a descriptor, and from then on names in it stand for what they stand for; and its
// files are copied, never given to another owner.

export interface Ids {
  uid: number
  gid: number
}

/** What targets remember: in `delivery` where an account delivers, else beside it. */
const REMEMBERED =
  /^((generation|session)\..*|(sophosxg|opnsense)-.*|(threatjammer|abuseipdb)\..*|net2banctl|\.fail2ban-perimeter)$/

/** What the next process makes for itself. */
const PASSING = ['lock', 'socket', 'sync.lock', '.fail2ban-perimeter']

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants

/** Names in the state directory that are what targets remember, or the account's. */
export function rememberedIn(stateDir: string, account: Ids | undefined): string[] {
  return names(stateDir).filter((name) => {
    if (name === 'queue' || /^delivery(\.new|\.old)?$/.test(name)) return false
    return REMEMBERED.test(name) || look(join(stateDir, name))?.uid === account?.uid
  })
}

/** Makes a folder root's, whoever had it. It must be one, and its parent root's. */
export function takeFolder(path: string, mode: number, gid = 0): void {
  const fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  try {
    fchownSync(fd, 0, gid)
    fchmodSync(fd, mode)
  } finally {
    closeSync(fd)
  }
}

/**
 * Gives `delivery` and what targets remember to another owner. Nobody may be delivering. Killed at
 * any point, it can be done again, and nothing is lost.
 *
 * @param account who else may have something there
 */
export function handOver(stateDir: string, to: Ids, account: Ids | undefined): void {
  takeFolder(stateDir, 0o755)
  const delivery = deliveryDirectory(stateDir)
  const [fresh, old] = [`${delivery}.new`, `${delivery}.old`]
  if (!look(delivery) && look(old)) renameSync(old, delivery)
  for (const path of [fresh, old]) rmSync(path, { recursive: true, force: true })
  if (look(delivery)?.isDirectory() === false) rmSync(delivery)
  mkdirSync(fresh, { mode: 0o700 })
  if (look(delivery)) copyFolder(delivery, fresh, to)
  const outside = rememberedIn(stateDir, account)
  if (to.uid !== 0) {
    for (const name of outside) copy(join(stateDir, name), join(fresh, name), to)
  } else {
    for (const name of outside) retake(join(stateDir, name), to)
    const inside = names(fresh).filter((name) => REMEMBERED.test(name))
    for (const name of inside) {
      rmSync(join(stateDir, name), { recursive: true, force: true })
      renameSync(join(fresh, name), join(stateDir, name))
    }
  }
  giveFolder(fresh, to)
  if (look(delivery)) renameSync(delivery, old)
  renameSync(fresh, delivery)
  rmSync(old, { recursive: true, force: true })
  if (to.uid === 0) return
  for (const name of outside) rmSync(join(stateDir, name), { recursive: true, force: true })
}

/** Replaces what an account has by a copy of root's, in place. */
function retake(path: string, to: Ids): void {
  if (look(path)?.uid === 0) return
  const beside = `${path}.copy`
  rmSync(beside, { recursive: true, force: true })
  copy(path, beside, to)
  rmSync(path, { recursive: true, force: true })
  if (look(beside)) renameSync(beside, path)
}

/** Copies files and folders; what else stands there is left out. */
function copy(from: string, to: string, ids: Ids): void {
  const stat = look(from)
  if (stat?.isDirectory()) {
    rmSync(to, { recursive: true, force: true })
    mkdirSync(to, { mode: 0o700 })
    copyFolder(from, to, ids)
    giveFolder(to, ids)
  } else if (stat?.isFile()) {
    copyFile(from, to, ids)
  } else {
    say(`note: ${from} was left out: it is no file`)
  }
}

function copyFolder(from: string, to: string, ids: Ids): void {
  takeFolder(from, 0o700)
  for (const name of names(from).filter((one) => !PASSING.includes(one))) {
    copy(join(from, name), join(to, name), ids)
  }
}

function copyFile(from: string, to: string, { uid, gid }: Ids): void {
  const source = openSync(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  try {
    const stat = fstatSync(source)
    if (!stat.isFile() || stat.nlink > 1) {
      say(`note: ${from} was left out: it has two names`)
      return
    }
    rmSync(to, { force: true })
    const target = openSync(to, O_WRONLY | O_CREAT | O_EXCL, 0o600)
    try {
      const bytes = Buffer.alloc(1_048_576)
      for (let got = 1; got > 0; ) {
        got = readSync(source, bytes)
        for (let done = 0; done < got; ) done += writeSync(target, bytes, done, got - done)
      }
      fchmodSync(target, 0o600 | (stat.mode & 0o044))
      fchownSync(target, uid, gid)
    } finally {
      closeSync(target)
    }
  } finally {
    closeSync(source)
  }
}

/** The last step with a folder: from here on it is another's. */
function giveFolder(path: string, { uid, gid }: Ids): void {
  const fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  fchownSync(fd, uid, gid)
  closeSync(fd)
}

function look(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false })
}

function names(folder: string): string[] {
  return look(folder) ? readdirSync(folder) : []
}
