import { constants, fchownSync, fstatSync, openSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

/** An account other than root. */
interface Account {
  uid: number
  gid: number
}

/** Who must work in this directory instead of us: its owner, if we are root and he is not. */
export function otherOwner(directory: string): Account | undefined {
  if (process.getuid?.() !== 0) return undefined
  const stat = statSync(directory, { throwIfNoEntry: false })
  return stat && stat.uid !== 0 ? { uid: stat.uid, gid: stat.gid } : undefined
}

/**
 * Gives up being root for good where the directory is an account's: so no program makes a file there
 * that another cannot read, and root follows no link that the account may have made.
 *
 * To be called when the configuration and its secrets have been read, and before anything of
 * `directory` is opened. `f2b-setup server` decides whose it is.
 *
 * @param directory `state_dir`
 */
export function becomeOwner(directory: string): void {
  const owner = otherOwner(directory)
  if (!owner) return
  process.setgroups?.([owner.gid])
  process.setgid?.(owner.gid)
  process.setuid?.(owner.uid)
  // ssh's sockets: the account has no other place, and all of its processes share connections.
  process.env.XDG_RUNTIME_DIR = directory
}

/**
 * Opens a file to be written, and makes it if need be. Where root must work in an account's directory
 * (it alone may ask Fail2Ban), what it makes there is the account's, and it follows no link.
 *
 * @param how `a` appends, `w` begins anew
 */
export function openToWrite(path: string, how: 'a' | 'w', mode = 0o600): number {
  const owner = otherOwner(dirname(path))
  if (!owner) return openSync(path, how, mode)
  const { O_WRONLY, O_CREAT, O_NOFOLLOW, O_APPEND, O_TRUNC } = constants
  const flags = O_WRONLY | O_CREAT | O_NOFOLLOW | (how === 'a' ? O_APPEND : O_TRUNC)
  const fd = openSync(path, flags, mode)
  if (fstatSync(fd).uid === 0) fchownSync(fd, owner.uid, owner.gid)
  return fd
}
