import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as v from 'valibot'
import { isMap, isSeq, LineCounter, type Node, type Pair, parseDocument, visit } from 'yaml'
import { EXIT, Failure, ioFailure, messageOf } from './failure.ts'
import { targetAddresses } from './never.ts'
import { schema } from './settings/schema.ts'
import { configPath, type Loaded } from './settled.ts'

/** The keys whose value is a secret; each may be given as `<key>_file` instead. */
const SECRETS = ['pass', 'token', 'key', 'secret', 'authkey']

/**
 * Reads and checks the configuration; the targets' own addresses join `never_ban`. All problems are
 * reported together, a line each, with file, line and column.
 *
 * @param sections whose secrets are read from their files (`fortigate`, `fortigate.feed`); the
 *   others' may be unreadable for us
 * @throws Failure 78
 */
export function loadConfig(given?: string, ...sections: string[]): Loaded {
  const path = configPath(given)
  const { value, warnings } = readYaml(path, schema, ...sections)
  const never_ban = [...value.never_ban, ...targetAddresses(value)]
  return { config: { ...value, never_ban }, path, warnings }
}

/** Reads a YAML file against a schema; see `loadConfig`. @throws Failure 78 */
export function readYaml<S extends v.GenericSchema>(
  path: string,
  shape: S,
  ...sections: string[]
): { value: v.InferOutput<S>; warnings: string[] } {
  let source: string
  try {
    source = readFileSync(path, 'utf8')
  } catch (error) {
    const { message } = ioFailure(`read "${path}"`, error)
    throw new Failure(EXIT.config, message, { cause: error })
  }
  return parseYaml(source, path, shape, ...sections)
}

/** Reads a YAML text that is, or is going to be, in the file; see `loadConfig`. @throws Failure 78 */
export function parseYaml<S extends v.GenericSchema>(
  source: string,
  path: string,
  shape: S,
  ...sections: string[]
): { value: v.InferOutput<S>; warnings: string[] } {
  const lines = new LineCounter()
  const document = parseDocument(source, { lineCounter: lines })
  const problems: { offset: number; message: string }[] = []
  const warnings: string[] = []
  const report = (offset: number, message: string): void => {
    problems.push({ offset, message })
  }
  for (const error of document.errors) report(error.pos[0], firstLine(error.message))
  if (problems.length === 0) {
    for (const { node, key, file } of sections.flatMap((name) =>
      secretFiles(document.contents, name),
    )) {
      try {
        if (node.has(key)) report(file.at, `give "${key}" or "${key}_file", not both`)
        if (isExposed(file.path, path)) warnings.push(`"${file.path}" can be read by others`)
        node.set(key, readFileSync(file.path, 'utf8').replace(/\r?\n$/, ''))
      } catch (error) {
        report(file.at, ioFailure(`read "${file.path}"`, error).message)
      }
    }
    const result = v.safeParse(shape, document.toJS() ?? {})
    if (result.success && problems.length === 0) return { value: result.output, warnings }
    for (const issue of (result.issues ?? []).flatMap(issuesOf)) {
      report(offsetOf(document.contents, issue), explain(issue))
    }
  }
  const sorted = problems.sort((a, b) => a.offset - b.offset)
  const text = sorted.map(({ offset, message }) => {
    const { line, col } = lines.linePos(offset)
    return `${path}:${line}:${col}: ${message}`
  })
  throw new Failure(EXIT.config, [...new Set(text)].join('\n'))
}

/**
 * True if others can read a secret. The group of the configuration itself is who delivers; and what
 * systemd hands over, it has locked by an ACL, which a mode does not show.
 */
function isExposed(path: string, config: string): boolean {
  if (path.startsWith(`${process.env.CREDENTIALS_DIRECTORY}/`)) return false
  const { gid, mode } = statSync(path)
  return (mode & 0o007) !== 0 || ((mode & 0o070) !== 0 && gid !== 0 && gid !== statSync(config).gid)
}

/** Every `<secret>_file` below the section, with the map that it stands in. */
function secretFiles(root: unknown, section: string) {
  const found: { node: YamlMap; key: string; file: { path: string; at: number } }[] = []
  const top = isMap(root) ? root.getIn(section.split('.'), true) : undefined
  if (!isMap(top) && !isSeq(top)) return found
  visit(top as Node, {
    Map(_, node) {
      for (const pair of node.items as Pair<YamlScalar, YamlScalar>[]) {
        const key = SECRETS.find((name) => pair.key.value === `${name}_file`)
        const path = pair.value?.value
        if (!key || typeof path !== 'string') continue
        found.push({ node, key, file: { path: handedOver(path), at: pair.value?.range?.[0] ?? 0 } })
      }
    },
  })
  return found
}

/**
 * Where a file that the configuration names is for us: systemd hands a service without rights copies
 * of such files (LoadCredential=<base name>:<path>, systemd.exec(5)), else it is where it is named.
 */
export function handedOver(path: string): string {
  const folder = process.env.CREDENTIALS_DIRECTORY
  const copy = folder === undefined ? path : join(folder, basename(path))
  return existsSync(copy) ? copy : path
}

type YamlMap = { has(key: string): boolean; set(key: string, value: string): void }
type YamlScalar = { value: unknown; range?: [number, number, number] | null }

/** Where in the file an issue is: its key if that is the trouble, else its value. */
function offsetOf(root: unknown, issue: v.BaseIssue<unknown>): number {
  let node = root
  let offset = 0
  for (const item of issue.path ?? []) {
    const pair = isMap(node)
      ? node.items.find((p) => (p.key as YamlScalar).value === item.key)
      : undefined
    const next = pair ? pair.value : isSeq(node) ? node.items[item.key as number] : undefined
    const at = issue.type === 'strict_object' || !next ? (pair?.key ?? next) : next
    const range = (at as YamlScalar | undefined)?.range
    if (range) offset = range[0]
    node = next
  }
  return offset
}

/**
 * What is wrong with a value that may be one of several shapes: the issues of the shape that it has,
 * instead of "must be this or that". And of a list in a map's place, not each of its items.
 */
function issuesOf(issue: v.BaseIssue<unknown>): v.BaseIssue<unknown>[] {
  const shape = Array.isArray(issue.input) ? 'array' : 'object'
  const inner = (issue.issues ?? []).filter(
    (one) => issue.type === 'union' && one.path?.[0].type === shape,
  )
  const all = inner.map((one) => withPath(one, [...(issue.path ?? []), ...(one.path ?? [])]))
  return (inner.length > 0 ? all : [issue]).map((one) => {
    const at = one.path?.findIndex(({ type, input }) => type === 'object' && Array.isArray(input))
    if (at === undefined || at < 0) return one
    return {
      ...withPath(one, one.path?.slice(0, at)),
      type: 'record',
      received: 'Array',
      message: 'must be a map',
    }
  })
}

function withPath(issue: v.BaseIssue<unknown>, path: v.IssuePathItem[] = []) {
  return { ...issue, path: path.length > 0 ? (path as [v.IssuePathItem]) : undefined }
}

/** What is wrong with which key, as a sentence for whoever has written the file. */
export function explain(issue: v.BaseIssue<unknown>): string {
  const where = (issue.path ?? []).map(({ key }) => String(key)).join('.')
  if (issue.type === 'strict_object' && issue.expected === 'never') return `unknown key "${where}"`
  if (issue.received === 'undefined') return `missing key "${where}"`
  const text = issue.message.startsWith('Invalid ') ? `must be ${wanted(issue)}` : issue.message
  return where === '' ? text : `"${where}": ${text}`
}

/** What has to stand there; never what does, which may be a secret. */
function wanted({ type, expected, input }: v.BaseIssue<unknown>): string {
  const words: Record<string, string> = {
    array: 'a list',
    boolean: 'true or false',
    picklist: (expected ?? '')
      .replace(/[("|)]+/g, '')
      .replace(/ +(?=\S+$)/, ' or ')
      .replace(/ {2,}/g, ', '),
    record: 'a map',
    strict_object: 'a map',
    string: typeof input === 'object' ? 'text' : 'text: put it in quotes',
    union: 'a map or a list of maps',
  }
  return `${words[type] ?? expected}${input === null ? ', and is empty' : ''}`
}

function firstLine(message: string): string {
  return (
    messageOf(message)
      .split('\n')[0]
      ?.replace(/ at line \d+, column \d+:?$/, '') ?? message
  )
}
