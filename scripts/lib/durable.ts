import {
  closeSync,
  constants,
  fchmodSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { ioFailure } from './failure.ts'

// Files whose changes survive a kill, a full disk and a power cut. No link is followed.

const { O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR, O_WRONLY } = constants

/**
 * Appends to a file and forces it to the disk.
 *
 * @throws Failure 75 if it cannot be written; what had been written of it is taken back
 */
export function appendDurably(path: string, bytes: Buffer): void {
  let fd: number | undefined
  try {
    fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600)
    const before = fstatSync(fd).size
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done)
      fdatasyncSync(fd)
    } catch (error) {
      ftruncateSync(fd, before)
      throw error
    }
  } catch (error) {
    throw ioFailure(`write "${path}"`, error)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

/** Cuts a file off, which takes no room on a full disk. @throws Failure 75 if it cannot */
export function truncateDurably(path: string, bytes: number): void {
  try {
    const fd = openSync(path, O_RDWR | O_NOFOLLOW)
    try {
      ftruncateSync(fd, bytes)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw ioFailure(`write "${path}"`, error)
  }
}

/**
 * Replaces a file so that a reader sees the old or the new one and a power cut leaves one of them.
 *
 * @throws Failure 75 if it cannot be written; the old file is then untouched
 */
export function replaceDurably(path: string, bytes: Buffer | string, mode = 0o600): void {
  const beside = `${path}.new`
  try {
    rmSync(beside, { force: true }) // from a process that was killed
    const fd = openSync(beside, O_WRONLY | O_CREAT | O_EXCL, mode)
    try {
      fchmodSync(fd, mode) // Fail2Ban's umask is 0077
      const all = Buffer.from(bytes)
      for (let done = 0; done < all.length; ) done += writeSync(fd, all, done)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(beside, path)
    const directory = openSync(dirname(path), 'r')
    fsyncSync(directory)
    closeSync(directory)
  } catch (error) {
    try {
      unlinkSync(beside)
    } catch {}
    throw ioFailure(`write "${path}"`, error)
  }
}

/** Reads a file. @throws Failure 75 */
export function readWhole(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw ioFailure(`read "${path}"`, error)
  }
}

/**
 * Reads a file and cuts off an unfinished last line: its writer has told no client that it is kept.
 *
 * @throws Failure 75
 */
export function readFinished(path: string): Buffer {
  try {
    const bytes = readFileSync(path)
    const end = bytes.lastIndexOf(10) + 1
    if (end === bytes.length) return bytes
    cutOff(path, end)
    return bytes.subarray(0, end)
  } catch (error) {
    throw ioFailure(`read "${path}"`, error)
  }
}

/** What cannot be cut off now, on a read-only file system, cannot be added to either. */
function cutOff(path: string, end: number): void {
  try {
    const fd = openSync(path, O_RDWR | O_NOFOLLOW)
    ftruncateSync(fd, end)
    closeSync(fd)
  } catch {}
}

/** Tells this content of a file from any other; empty if there is none. */
export function stampOf(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
  return stat ? `${stat.ino} ${stat.size} ${stat.mtimeNs}` : ''
}
