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
import { dirname } from 'node:path'
import { replaceDurably } from '../durable.ts'
import { ioFailure } from '../failure.ts'
import type { Item } from './changes.ts'

/** A file whose content, mode and owner (root) are ours. `ours` tells it from a namesake. */
export function file(
  path: string,
  content: string,
  mode: number,
  extra: Pick<Item, 'note' | 'kept' | 'remedy'> & { ours?: (text: string) => boolean } = {},
): Item {
  const { ours = () => true, ...rest } = extra
  return {
    name: path,
    look() {
      const found = textOf(path)
      if (found === undefined) return 'absent'
      if (!ours(found)) return 'foreign'
      return found === content && isRoots(path, mode) ? 'same' : 'different'
    },
    make: () => writeAs(path, content, mode),
    remove: () => rmSync(path),
    ...rest,
  }
}

/** A file that is made if there is none and is the operator's from then on. */
export function fileOnce(path: string, make: () => void | Promise<void>): Item {
  return {
    name: path,
    look: () => (existsSync(path) ? 'same' : 'absent'),
    make,
    remove: () => rmSync(path),
    kept: true,
  }
}

/** A folder of ours; it is removed only when it is empty. */
export function folder(path: string, mode = 0o755): Item {
  return {
    name: `${path}/`,
    look() {
      if (!existsSync(path)) return 'absent'
      return isRoots(path, mode) ? 'same' : 'different'
    },
    make() {
      mkdirSync(path, { recursive: true, mode })
      own(path, mode)
    },
    remove: () => removeEmpty(path),
  }
}

/** A folder that several parts of ours share, whose owner and mode are not this one's to say. */
export function sharedFolder(path: string): Item {
  return { ...folder(path), look: () => (existsSync(path) ? 'same' : 'absent') }
}

/** The state directory, made if there is none: what root does depends on what stands there. */
export function rootsFolder(path: string, mode = 0o755): Item {
  const isRoots = (): boolean => (statSync(path, { throwIfNoEntry: false })?.uid ?? 0) === 0
  const remedy = 'it belongs to another user: run f2b-setup server, which takes it back'
  const shared = sharedFolder(path)
  return { ...folder(path, mode), look: () => (isRoots() ? shared.look() : 'foreign'), remedy }
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

function isRoots(path: string, mode: number): boolean {
  const stat = statSync(path)
  return (stat.mode & 0o7777) === mode && stat.uid === 0 && stat.gid === 0
}

/** A set-group-ID folder above (/usr/local/lib of an older Debian) hands its group down. */
function own(path: string, mode: number): void {
  chownSync(path, 0, 0)
  chmodSync(path, mode)
}

function removeEmpty(path: string): boolean {
  try {
    rmdirSync(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTEMPTY') return false
    throw error
  }
}
