import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import { checkParameter, isDynamic } from './kinds.ts'

/** What an action file may be called: no path, nothing that an option or a shell would be. */
export const FILE = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/

const ACTIONS = [
  'actionstart',
  'actionstop',
  'actioncheck',
  'actionflush',
  'actionban',
  'actionunban',
  'actionprolong',
  'actionrepair',
] as const

export type ActionName = (typeof ACTIONS)[number]

/** One call of one action of one Fail2Ban action file: what a message carries. */
export interface Call {
  readonly file: string
  readonly action: ActionName
  readonly params: Readonly<Record<string, string>>
}

/** The jail of a call that names none, as in the document's `[Init]`. */
const DEFAULT_NAME = 'default'

/** The longest jail that a lease can have. */
const LONGEST = 64

const OF_AN_ADDRESS: readonly string[] = ['actionban', 'actionunban', 'actionprolong']

/**
 * Checks what somebody wants to run: the file's name, the action, every parameter's name and value
 * by the narrow pattern of its kind. Done by net2banctl before it sends, and by the node again.
 *
 * @throws Failure 65 in one line
 */
export function checkCall(
  file: string,
  action: string,
  params: Readonly<Record<string, string>>,
): Call {
  if (!FILE.test(file)) throw new Failure(EXIT.input, `Cannot run ${quote(file)}: no file name`)
  if (!isAction(action)) {
    throw new Failure(EXIT.input, `Cannot run ${quote(action)}: one of ${ACTIONS.join(', ')}`)
  }
  const checked = Object.entries(params).map(([name, value]) => [name, checkParameter(name, value)])
  const of = OF_AN_ADDRESS.includes(action)
  if (of !== Object.hasOwn(params, 'ip')) {
    throw new Failure(EXIT.input, `Cannot run ${action} with${of ? 'out' : ''} an ip`)
  }
  jailOf(file, nameOf(params))
  return { file, action, params: Object.fromEntries(checked) }
}

/** The jail that a call is about. */
export function nameOf(params: Readonly<Record<string, string>>): string {
  return Object.hasOwn(params, 'name') ? (params.name ?? DEFAULT_NAME) : DEFAULT_NAME
}

/** The parameters that hold for a whole jail, in one order. */
export function settingsOf(params: Readonly<Record<string, string>>): Record<string, string> {
  const all = Object.entries({ ...params, name: nameOf(params) })
  const fixed = all.filter(([name]) => !isDynamic(name))
  return Object.fromEntries(fixed.sort(([a], [b]) => (a < b ? -1 : 1)))
}

/**
 * The jail of a node's leases: `<file>:<name>`, since a lease's jail has no `/`. The name of an
 * action file has no colon, so the first one parts them.
 *
 * @throws Failure 65 if it is longer than a lease's jail may be
 */
export function jailOf(file: string, name: string): string {
  const jail = `${file}:${name}`
  if (jail.length <= LONGEST) return jail
  throw new Failure(EXIT.input, `Cannot use jail ${quote(jail)}: longer than ${LONGEST} characters`)
}

function isAction(word: string): word is ActionName {
  return (ACTIONS as readonly string[]).includes(word)
}
