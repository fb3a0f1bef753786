import { existsSync, realpathSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { EXIT, Failure } from '../failure.ts'
import { unitWord } from './things.ts'

/**
 * The first line of a program that root starts. The absolute path of this very Node: `env node`
 * would take the first one on whatever PATH there is.
 *
 * @throws Failure 78 if the kernel could not read it
 */
export function shebang(node: string): string {
  // The kernel reads 255 bytes and splits at the first blank.
  if (/\s/.test(node) || node.length > 250) {
    throw new Failure(
      EXIT.config,
      `Cannot use Node at "${node}": the path is too long or has blanks`,
    )
  }
  return `#!${node}`
}

/** This very Node in the command of a unit. @throws Failure 78 */
export function nodeInUnit(): string {
  return unitWord(shebang(process.execPath).slice(2))
}

/** The same for cron's shell. @throws Failure 78 if it would read something else in the path */
export function nodeInCron(): string {
  const node = shebang(process.execPath).slice(2)
  if (!/[%"'$\\]/.test(node)) return node
  throw new Failure(EXIT.config, `Cannot use Node at "${node}": the path has special characters`)
}

/**
 * Refuses a path that another user than root can change, itself or any folder above it: what root
 * starts from there would be theirs to choose. A folder with the sticky bit (/tmp) is safe, since
 * no other user can rename or remove there what belongs to root.
 *
 * @throws Failure 78
 */
export function checkOnlyRootWrites(path: string): void {
  let at = path
  while (!existsSync(at)) at = dirname(at)
  for (const start of new Set([at, realpathSync(at)])) {
    for (let here = start; ; here = dirname(here)) {
      checkOne(here, path)
      if (here === '/') break
    }
  }
}

function checkOne(at: string, path: string): void {
  const stat = statSync(at)
  if (stat.uid !== 0) throw hole(path, at, `belongs to user ${stat.uid}`, `chown root:root ${at}`)
  if (stat.isDirectory() && stat.mode & 0o1000) return
  if (stat.mode & 0o002) throw hole(path, at, 'can be written by everybody', `chmod o-w ${at}`)
  if (stat.mode & 0o020 && stat.gid !== 0) {
    throw hole(path, at, `can be written by group ${stat.gid}`, `chmod g-w ${at}`)
  }
}

function hole(path: string, at: string, how: string, remedy: string): Failure {
  const what = at === path ? `"${path}"` : `"${path}": "${at}"`
  return new Failure(
    EXIT.config,
    `Cannot let root run programs from ${what} ${how}: ${remedy}, or use one that only root can write`,
  )
}
