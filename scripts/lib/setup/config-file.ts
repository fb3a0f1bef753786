import { chmodSync, chownSync, rmSync, statSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { isMap, isScalar, parseDocument } from 'yaml'
import { parseYaml } from '../config.ts'
import { EXIT, Failure } from '../failure.ts'
import { schema } from '../settings/schema.ts'
import type { Item } from './changes.ts'
import { textOf, writeAs } from './items.ts'
import { CONFIG_DIR, type Place } from './place.ts'

// config.yaml, which several parts of ours share: each writes and removes its own sections only.

const CONFIG = `${CONFIG_DIR}/config.yaml`

/** The sections of the parts that have a setup of their own; all others are the server side's. */
const PARTS = ['sophosxg', 'fortigate', 'net2ban']

/** What the file holds now. */
export function configText(place: Place): string | undefined {
  return textOf(place.at(CONFIG))
}

/**
 * config.yaml with one part's section in it. It is read as every command will read it before it takes
 * the old one's place.
 *
 * @param text all of it, as it is to be; of no importance to an uninstallation
 * @param part the section; `server` is all that belongs to no other part
 * @throws Failure 78 with a line for each problem, before anything is changed
 */
export function configItem(place: Place, part: string, text: string): Item {
  const path = place.at(CONFIG)
  const found = textOf(path)
  if (!place.uninstall) parseYaml(text, path, schema)
  return {
    name: part === 'server' ? path : `${path} (section ${part})`,
    kept: true,
    look() {
      if (found === undefined) return 'absent'
      if (place.uninstall) return without(found, part) === found ? 'absent' : 'same'
      return found === text ? 'same' : 'different'
    },
    make: () => write(path, text),
    remove() {
      const left = without(found ?? '', part)
      if (left === undefined) rmSync(path)
      else write(path, left)
    },
  }
}

/** A file with a secret that config.yaml names: who may read that one may read this one. */
export function secretItem(place: Place, path: string, text: string): Item {
  const at = place.at(path)
  const found = textOf(at)
  return {
    name: at,
    kept: true,
    look: () => (found === undefined ? 'absent' : found === text ? 'same' : 'different'),
    make: () => write(at, text, place.at(CONFIG)),
    remove: () => rmSync(at),
  }
}

/** Whoever may read it, or the other file, now may read it then. */
function write(path: string, text: string, like = path): void {
  const before = statSync(like, { throwIfNoEntry: false })
  writeAs(path, text, 0o600)
  if (!before || before.mode & 0o007) return
  chownSync(path, before.uid, before.gid)
  chmodSync(path, before.mode & 0o7777)
}

/**
 * A configuration without what is one part's, and not one character else changed.
 *
 * @returns undefined if nothing is left in it that another part uses
 */
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
