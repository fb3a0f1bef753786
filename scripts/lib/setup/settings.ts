import { isMap, isScalar, parseDocument } from 'yaml'
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
