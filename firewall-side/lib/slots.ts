import {
  type FSWatcher,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { EXIT, Failure, ioFailure } from '../../scripts/lib/failure.ts'

/** Ten come through one connection of sshd's; a server that connects anew needs a few more. */
export const PLACES = 12

/** So many processes may be here at all; those without a place wait for one. */
const ROOM = 32

/** How long one waits for a place, milliseconds, and for those who end without giving theirs back. */
const PATIENCE = { all: 10_000, look: 500 }

/**
 * Takes one of an owner's places on this firewall, until this process ends, however it does. Each is a
 * process of root's that may stay for days: whoever has stolen a key cannot fill the memory with
 * them. Decided before anything large is read.
 *
 * A place is a file named after the process. Taking one starts no program, which a lock would.
 *
 * @param run the directory for what lasts until the next boot
 * @throws Failure 75 if all are in use
 */
export async function takePlace(run: string, owner: string): Promise<void> {
  const folder = join(run, 'firewall.places', owner)
  const own = nameOf('self')
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    writeFileSync(join(folder, own), '')
  } catch (error) {
    throw ioFailure(`write "${folder}"`, error)
  }
  const leave = (): void => rmSync(join(folder, own), { force: true })
  process.on('exit', leave)
  if (await isOurTurn(folder, own)) return
  leave()
  throw new Failure(
    EXIT.temporary,
    `${PLACES} commands and sessions of "${owner}" are open: end one of them first`,
  )
}

/** @returns false if there are too many, or none ends in time */
async function isOurTurn(folder: string, own: string): Promise<boolean> {
  const end = Date.now() + PATIENCE.all
  let watcher: FSWatcher | undefined
  let wake = (): void => {}
  try {
    for (;;) {
      const before = countBefore(folder, own)
      if (before < PLACES) return true
      if (before >= ROOM || Date.now() > end) return false
      // Dozens that look every few milliseconds would take the time of those who have a place.
      watcher ??= watchFor(folder, (name) => (name && name > own) || wake())
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, PATIENCE.look)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  } finally {
    watcher?.close()
  }
}

/** Undefined where this machine has no watches left: it has 128 for each user, for all programs. */
function watchFor(folder: string, listener: (name: string | null) => void): FSWatcher | undefined {
  try {
    return watch(folder, (_, name) => listener(name)).on('error', () => {})
  } catch {
    return undefined
  }
}

/** How many came before us and are still there. Those that were killed are forgotten. */
function countBefore(folder: string, own: string): number {
  const before = readdirSync(folder).filter((name) => name < own)
  if (before.length < PLACES) return before.length
  const gone = before.filter((name) => !isThere(name))
  for (const name of gone) rmSync(join(folder, name), { force: true })
  return before.length - gone.length
}

function isThere(name: string): boolean {
  try {
    return nameOf(name.split('.')[1] ?? '') === name
  } catch {
    return false
  }
}

/** When a process was started, so that names sort in that order and no other ever has it, and which. */
function nameOf(pid: string): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const started = fields[19] ?? ''
  return `${started.padStart(15, '0')}.${stat.split(' ', 1)[0]}`
}
