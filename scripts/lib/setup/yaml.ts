import { chmodSync, chownSync, rmSync, statSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { type Document, isMap, isScalar, isSeq, parseDocument, stringify } from 'yaml'
import { type Address, parseAddress } from '../address.ts'
import { parseYaml } from '../config.ts'
import { EXIT, Failure } from '../failure.ts'
import { schema } from '../settings/schema.ts'
import { CONFIG, type InstallTarget, type Resource } from './plan.ts'
import { textOf, writeAs } from './things.ts'

// YAML files that people write in as well: what is ours is changed, and not one character else. And
// config.yaml, which several parts of ours share: each writes and removes its own sections only.

/** What matters here of a configuration, which a person may have written. */
export interface Settings {
  owner?: unknown
  state_dir?: unknown
  firewalls?: unknown
  sophosxg?: unknown
  mikrotik?: unknown
  opnsense?: unknown
  fortigate?: unknown
  fail2ban?: unknown
}

/** The sections of the parts that have a setup of their own; all others are the server side's. */
const PARTS = ['sophosxg', 'mikrotik', 'opnsense', 'fortigate', 'net2ban']

/** @throws Failure 78 if it cannot be read */
export function parsed(text: string, path: string): Document.Parsed {
  const document = parseDocument(text)
  const [error] = document.errors
  if (!error) return document
  throw new Failure(EXIT.config, `Cannot read "${path}": ${error.message.split('\n')[0]}`)
}

/** What config.yaml says; undefined if there is none. @throws Failure 78 if it cannot be read */
export function readSettings(target: InstallTarget): Settings | undefined {
  const path = target.at(CONFIG)
  const text = textOf(path)
  return text === undefined ? undefined : ((parsed(text, path).toJS() ?? {}) as Settings)
}

/** The same; what cannot be read must not keep anybody from an uninstallation. */
export function settingsIfReadable(target: InstallTarget): Settings {
  try {
    return readSettings(target) ?? {}
  } catch {
    return {}
  }
}

/** Sets one value. @throws Failure 78 if the text has a form that we do not change */
export function withValue(text: string, keys: string[], value: string, path: string): string {
  const document = parsed(text, path)
  if (document.getIn(keys) === value) return text
  const made = placed(text, document, keys, stringify(value).trim())
  if (made !== undefined) {
    const again = parseDocument(made)
    if (again.errors.length === 0 && again.getIn(keys) === value) return made
  } else if (keys.length > 1) {
    document.setIn(keys, value)
    return document.toString()
  }
  const name = keys.join('.')
  throw new Failure(EXIT.config, `Cannot set "${name}" in "${path}": set it to "${value}" by hand`)
}

/** In the old one's place, else at the end, or at the top of its section. */
function placed(text: string, document: Document, keys: string[], line: string) {
  const node = document.getIn(keys, true)
  if (isScalar(node) && node.range) {
    const [from, to] = node.range
    return text.slice(0, from) + line + text.slice(to)
  }
  if (keys.length === 1) {
    return node === undefined ? `${text.replace(/\n*$/, '\n')}${keys[0]}: ${line}\n` : undefined
  }
  const parent = document.getIn(keys.slice(0, -1), true)
  const first = isMap(parent) && !parent.flow ? parent.items[0]?.key : undefined
  if (!isScalar(first) || !first.range) return undefined
  const [at] = first.range
  const indent = ' '.repeat(at - text.lastIndexOf('\n', at - 1) - 1)
  return `${text.slice(0, at)}${keys.at(-1)}: ${line}\n${indent}${text.slice(at)}`
}

/** The addresses and networks in `never_ban`. */
export function neverIn(text: string): Address[] {
  const list = (parseDocument(text).toJS() as { never_ban?: unknown } | null)?.never_ban
  return Array.isArray(list) ? list.map((entry) => parseAddress(String(entry))) : []
}

/**
 * firewall.yaml with more in its `never_ban`.
 *
 * @throws Failure 78 if the list has a form that we do not change
 */
export function withProtected(text: string, more: readonly string[], path: string): string {
  const missing = [...new Set(more.map((entry) => parseAddress(entry).text))].filter(
    (entry) => !neverIn(text).some((known) => known.text === entry),
  )
  if (missing.length === 0) return text
  const node = parseDocument(text).getIn(['never_ban'], true)
  const flow = (items: unknown[]): string =>
    `[${items.map((item) => stringify(item, { defaultStringType: 'QUOTE_DOUBLE' }).trim()).join(', ')}]`
  if (node === undefined) return `${text.replace(/\n*$/, '\n')}never_ban: ${flow(missing)}\n`
  const last = isSeq(node) ? node.items.at(-1) : undefined
  if (isSeq(node) && node.range && (node.flow || !last)) {
    const items = [...(node.toJSON() as unknown[]), ...missing]
    return text.slice(0, node.range[0]) + flow(items) + text.slice(node.range[1])
  }
  if (isScalar(last) && last.range) {
    const at = text.lastIndexOf('\n', last.range[0]) + 1
    const dash = /^ *- +/.exec(text.slice(at))?.[0]
    const end = text.indexOf('\n', last.range[1])
    const added = missing.map((entry) => `${dash}${flow([entry]).slice(1, -1)}\n`).join('')
    if (dash && end >= 0) return text.slice(0, end + 1) + added + text.slice(end + 1)
  }
  throw new Failure(EXIT.config, `Cannot add to "never_ban" in "${path}": add ${missing} by hand`)
}

/** A section more, at the end. */
export function withSection(text: string, section: Record<string, unknown>): string {
  return `${text.trim() === '' ? '' : `${text.trimEnd()}\n\n`}${stringify(section)}`
}

/**
 * config.yaml with one part's section in it. It is read as every command will read it before it takes
 * the old one's place.
 *
 * @param text all of it, as it is to be; of no importance to an uninstallation
 * @param part the section; `server` is all that belongs to no other part
 * @throws Failure 78 with a line for each problem, before anything is changed
 */
export function configEdit(target: InstallTarget, part: string, text: string): Resource {
  const path = target.at(CONFIG)
  const found = textOf(path)
  if (!target.uninstall) parseYaml(text, path, schema)
  return {
    name: part === 'server' ? path : `${path} (section ${part})`,
    kept: true,
    state() {
      if (found === undefined) return 'absent'
      if (target.uninstall) return without(found, part) === found ? 'absent' : 'same'
      return found === text ? 'same' : 'different'
    },
    apply: () => write(path, text),
    undo() {
      const left = without(found ?? '', part)
      if (left === undefined) rmSync(path)
      else write(path, left)
    },
  }
}

/** A file with a secret that config.yaml names: who may read that one may read this one. */
export function secretFile(target: InstallTarget, path: string, text: string): Resource {
  const at = target.at(path)
  const found = textOf(at)
  return {
    name: at,
    kept: true,
    state: () => (found === undefined ? 'absent' : found === text ? 'same' : 'different'),
    apply: () => write(at, text, target.at(CONFIG)),
    undo: () => rmSync(at),
  }
}

/** Who may read it, or the other file, now may read it then. */
function write(path: string, text: string, like = path): void {
  const before = statSync(like, { throwIfNoEntry: false })
  writeAs(path, text, 0o600)
  if (!before || before.mode & 0o007) return
  chownSync(path, before.uid, before.gid)
  chmodSync(path, before.mode & 0o7777)
}

/** @returns undefined if nothing is left in it that another part uses */
function without(text: string, part: string): string | undefined {
  const keys = Object.keys(parseDocument(text).toJS() ?? {})
  const shared = ['owner', 'never_ban', 'min_prefix', 'state_dir']
  const partOf = (key: string) => (PARTS.includes(key) ? key : 'server')
  const used = keys.filter((key) => !shared.includes(key))
  const gone = used.filter((key) => partOf(key) === part)
  if (gone.length === used.length && (part === 'server' || gone.length > 0)) return undefined
  return gone.reduce(withoutKey, text)
}

function withoutKey(text: string, key: string): string {
  const document = parseDocument(text)
  const pairs = isMap(document.contents) ? document.contents.items : []
  const pair = pairs.find((one) => isScalar(one.key) && one.key.value === key)
  const node = pair?.value as { range?: [number, number, number] } | null | undefined
  const from = isScalar(pair?.key) ? pair.key.range?.[0] : undefined
  const { [key]: _, ...wanted } = document.toJS()
  if (from !== undefined && node?.range) {
    const cut = `${text.slice(0, from).trimEnd()}\n${text.slice(node.range[1]).replace(/^\n*/, '\n')}`
    const trimmed = `${cut.trim()}\n`
    if (isDeepStrictEqual(parseDocument(trimmed).toJS() ?? {}, wanted)) return trimmed
  }
  throw new Failure(EXIT.config, `Cannot take "${key}" out of "${CONFIG}": take it out by hand`)
}
