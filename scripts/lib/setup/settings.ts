import { isMap, isScalar, parseDocument, stringify } from 'yaml'
import { EXIT, Failure } from '../failure.ts'

/**
 * Changes one key at the top of a YAML text and not one character else.
 *
 * @param value undefined leaves it as it is
 * @returns the new text and the old value (undefined if there was none)
 * @throws Failure 78 if the text cannot be read or the value has a form that we do not change
 */
export function withSetting(
  text: string,
  key: string,
  value: string | undefined,
  path: string,
): { text: string; old: string | undefined } {
  if (value === undefined) return { text, old: undefined }
  const document = parseDocument(text)
  const [error] = document.errors
  if (error)
    throw new Failure(EXIT.config, `Cannot read "${path}": ${error.message.split('\n')[0]}`)
  const node = isMap(document.contents) ? document.contents.get(key, true) : undefined
  if (isScalar(node) && node.range) {
    const [from, to] = node.range
    return { text: text.slice(0, from) + value + text.slice(to), old: String(node.value) }
  }
  const added = `${text.replace(/\n*$/, '\n')}${key}: ${value}\n`
  if (node !== undefined || parseDocument(added).toJS()?.[key] !== value) {
    throw new Failure(EXIT.config, `Cannot set "${key}" in "${path}": set it to "${value}" by hand`)
  }
  return { text: added, old: undefined }
}

/** Changes one key somewhere below the top, or adds it, and not one character else where it can. */
export function withNested(text: string, path: string[], value: string): string {
  const document = parseDocument(text)
  if (document.getIn(path) === value) return text
  const node = document.getIn(path, true)
  const line = stringify(value).trim()
  if (isScalar(node) && node.range) {
    const [from, to] = node.range
    return text.slice(0, from) + line + text.slice(to)
  }
  const parent = document.getIn(path.slice(0, -1), true)
  const first = isMap(parent) && !parent.flow ? parent.items[0]?.key : undefined
  if (isScalar(first) && first.range) {
    const [at] = first.range
    const indent = ' '.repeat(at - text.lastIndexOf('\n', at - 1) - 1)
    return `${text.slice(0, at)}${path.at(-1)}: ${line}\n${indent}${text.slice(at)}`
  }
  document.setIn(path, value)
  return document.toString()
}
