import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import { DEFAULT, parseIni, type Sections } from './ini.ts'

/** An action file as Fail2Ban sees it: with what it includes, and what is laid over it. */
export interface ActionFile {
  readonly file: string
  readonly sections: Sections
  /** The files that it was read from, in order; a later one goes before an earlier one. */
  readonly paths: readonly string[]
}

/** What an action file may be called: no path, nothing that an option or a shell would be. */
export const FILE = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/

/** Nobody includes so many by intention. */
const MOST_FILES = 100

type Read = (path: string) => string | undefined

/**
 * Reads `<file>.conf` with `<file>.d/*.conf`, `<file>.local` and all `before` and `after`.
 *
 * @throws Failure 78 if there is no such file, or if it is none that Fail2Ban could read
 */
export function readActionFile(directory: string, file: string): ActionFile {
  const base = join(resolve(directory), file)
  const paths = [...layers(base, 'conf'), ...layers(base, 'local')].filter(existsSync)
  if (paths.length === 0) {
    throw new Failure(EXIT.config, `Cannot run ${quote(file)}: no such action file`)
  }
  try {
    return load(file, paths, readText)
  } catch (error) {
    throw new Failure(EXIT.config, `Cannot read action ${quote(file)}: ${messageOf(error)}`)
  }
}

/**
 * Reads a text as if it stood in the directory as `<file>.conf`.
 *
 * @throws Error for what Fail2Ban could not read
 */
export function readAsIf(directory: string, file: string, text: string): ActionFile {
  const base = join(resolve(directory), file)
  const main = `${base}.conf`
  const others = [...layers(base, 'conf'), ...layers(base, 'local')].slice(1).filter(existsSync)
  return load(file, [main, ...others], (path) => (path === main ? text : readText(path)))
}

function layers(base: string, end: string): string[] {
  const folder = `${base}.d`
  const more = existsSync(folder) ? readdirSync(folder).filter((n) => n.endsWith(`.${end}`)) : []
  return [`${base}.${end}`, ...more.sort().map((name) => join(folder, name))]
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

function load(file: string, paths: string[], read: Read): ActionFile {
  const sections: Sections = new Map([[DEFAULT, new Map()]])
  const files = withLocal(paths).flatMap((path) => expand(path, [], read))
  if (files.length > MOST_FILES) throw new Error('it includes too many files')
  for (const { parsed } of files) merge(sections, parsed)
  if (!sections.has('Definition')) throw new Error('it has no section [Definition]')
  return { file, sections, paths: files.map(({ path }) => path) }
}

interface Part {
  path: string
  parsed: Sections
}

/** A file with what it includes, in the order in which they are laid over each other. */
function expand(path: string, seen: readonly string[], read: Read): Part[] {
  const text = read(path)
  if (text === undefined) return [] // As Fail2Ban: an include may be missing.
  const parsed = parseFile(path, text)
  const include = (option: string): Part[] => {
    const names = parsed.get('INCLUDES')?.get(option)?.split('\n') ?? []
    const wanted = names.map((name) => (isAbsolute(name) ? name : join(dirname(path), name)))
    return withLocal(wanted.filter((other) => !seen.includes(other) && other !== path)).flatMap(
      (other) => expand(other, [...seen, path], read),
    )
  }
  return [...include('before'), { path, parsed }, ...include('after')]
}

/** Each file with the `.local` that goes with it, if there is one. */
function withLocal(paths: string[]): string[] {
  return paths.flatMap((path) => {
    const local = `${path.replace(/\.[^./]*$/, '')}.local`
    return paths.includes(local) || !existsSync(local) ? [path] : [path, local]
  })
}

function parseFile(path: string, text: string): Sections {
  try {
    return parseIni(text)
  } catch (error) {
    throw new Error(`${path.slice(path.lastIndexOf('/') + 1)}: ${messageOf(error)}`)
  }
}

/** Lays a file over what there is. `[Init?family=inet6]` becomes options `x?family=inet6`. */
function merge(all: Sections, parsed: Sections): void {
  for (const [title, options] of parsed) {
    const [, name = title, condition = ''] = /^(\w+)(\?.+)$/.exec(title) ?? []
    const known = all.get(name) ?? new Map<string, string>()
    const before = all.get(`KNOWN/${name}`) ?? new Map<string, string>()
    for (const [option, value] of options) {
      const key = option + condition
      const old = known.get(key)
      if (old !== undefined) before.set(key, old)
      known.set(key, value)
    }
    all.set(name, known)
    if (before.size > 0 && name !== DEFAULT) all.set(`KNOWN/${name}`, before)
  }
}
