import { closeSync, constants, openSync } from 'node:fs'
import { EXIT, Failure, ioFailure } from './failure.ts'
import { run } from './run.ts'

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants

/**
 * Takes an exclusive kernel lock on a file and returns the function that releases it.
 *
 * Node has no flock(2). `flock FD` locks the open file description that it shares with us, so the
 * lock stays ours after it has ended, and the kernel releases it the moment we die, however we die.
 *
 * @param seconds how long to wait for the process that holds it
 * @param signal ends the waiting earlier
 * @param opened told what will hold the lock: it lasts until every copy of that is closed
 * @throws Failure 75 if the file cannot be opened or the lock is not free in time
 */
export async function lock(
  path: string,
  seconds = 15,
  signal?: AbortSignal,
  opened?: (fd: number) => void,
): Promise<() => void> {
  const fd = await lockedFile(path, seconds, signal, opened)
  if (fd !== undefined) return () => closeSync(fd)
  throw new Failure(EXIT.temporary, `Cannot lock "${path}": somebody else is busy with it`)
}

/** Like `lock`, but undefined if another process holds it all the while. */
export async function tryLock(
  path: string,
  seconds = 0,
  signal?: AbortSignal,
): Promise<(() => void) | undefined> {
  const fd = await lockedFile(path, seconds, signal)
  return fd === undefined ? undefined : () => closeSync(fd)
}

/** Like `tryLock`, but returns what holds the lock: it stays until every copy of it is closed. */
export async function lockedFile(
  path: string,
  seconds: number,
  signal?: AbortSignal,
  opened: (fd: number) => void = () => {},
): Promise<number | undefined> {
  let fd: number
  try {
    fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600)
  } catch (error) {
    throw ioFailure(`open "${path}"`, error)
  }
  opened(fd)
  const { code } = await run('flock', ['-w', String(seconds), '3'], {
    fds: [fd],
    says: 'nothing',
    ...(signal && { signal }),
  })
  if (code === 0) return fd
  closeSync(fd)
  if (code !== 127) return undefined
  throw new Failure(EXIT.temporary, `Cannot lock "${path}": flock is missing (install util-linux)`)
}
