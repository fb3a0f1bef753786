import { closeSync, constants, fchmodSync, fstatSync, openSync, statSync, writeSync } from 'node:fs'
import { EXIT, Failure, ioFailure } from '../failure.ts'

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants

/** So often a line is written again because its file was taken away meanwhile. */
const TRIES = 5

/**
 * Appends a line to a queue as an action line does, with the same promises: see
 * action.d/perimeter-queue.conf.
 *
 * @throws Failure 75 if it cannot be written
 */
export function appendToQueue(path: string, words: string[]): void {
  const line = Buffer.from(`\n${words.join('|')}|.\n`)
  try {
    for (let tried = 0; tried < TRIES; tried++) {
      const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o640)
      try {
        // Its reader may be an account, in whose group it is, and our umask that of anybody.
        const { uid, mode } = fstatSync(fd)
        if (uid === process.getuid?.() && (mode & 0o777) !== 0o640) fchmodSync(fd, 0o640)
        // In one call: what others append must not come in between. A full disk cuts it off.
        if (writeSync(fd, line) < line.length) throw { code: 'ENOSPC' }
        if (isRead(fd, path) || isRead(fd, `${path}.taken`)) return
      } finally {
        closeSync(fd)
      }
    }
  } catch (error) {
    throw ioFailure(`write "${path}"`, error)
  }
  throw new Failure(EXIT.temporary, `Cannot write "${path}": it is taken away all the time`)
}

/** True if the open file is the one with this name. */
function isRead(fd: number, path: string): boolean {
  const [own, named] = [fstatSync(fd), statSync(path, { throwIfNoEntry: false })]
  return named?.ino === own.ino && named.dev === own.dev
}
