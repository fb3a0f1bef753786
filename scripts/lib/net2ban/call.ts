import { parseAddress } from '../address.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { checkJail, quote } from '../lease.ts'
import { readNaming } from '../ports.ts'

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

declare const checked: unique symbol

/** One call of one action of one Fail2Ban action file, that `checkCall` has let through. */
export interface Call {
  readonly [checked]: true
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
 * Checks what a sender wants to run: the file's name, the action, every parameter's name and value
 * by the narrow pattern of its kind. Done once by net2banctl, once by the server, once by the node.
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
  const values = Object.entries(params).map(([name, value]) => [name, checkParameter(name, value)])
  const of = OF_AN_ADDRESS.includes(action)
  if (of !== Object.hasOwn(params, 'ip')) {
    throw new Failure(EXIT.input, `Cannot run ${action} with${of ? 'out' : ''} an ip`)
  }
  jailOf(file, nameOf(params))
  return { file, action, params: Object.fromEntries(values) } as Call
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

// The kinds of values that may enter an action. Each has a narrow pattern in which nothing means
// anything to a shell, nothing begins like an option, and nothing is a path.

/** A kind answers the text in its canonical form, or throws what is wrong with it. */
type Kind = (text: string) => string

const address: Kind = (text) => parseAddress(text).text

const jail: Kind = (text) => {
  if (/^[A-Za-z0-9_]/.test(text)) return checkJail(text)
  throw new Error('it does not begin with a letter or digit')
}

/** Stock actions know no `all` for ports, only for protocols. */
const ports: Kind = (text) => {
  const list = readNaming(text, 'all').ports
  return list === 'all' ? '0:65535' : list
}

const protocols: Kind = (text) => readNaming('all', text).protocol

const chain: Kind = matching(
  /^[A-Za-z_][A-Za-z0-9_.-]{0,28}(,[A-Za-z_][A-Za-z0-9_.-]{0,28}){0,7}$/,
  'it is no chain, nor a list of chains',
)
const integer: Kind = matching(/^\d{1,12}$/, 'it is no whole number')
const seconds: Kind = matching(/^(-1|\d{1,10})$/, 'it is no number of seconds, nor -1')
const moment: Kind = matching(/^\d{1,12}(\.\d{1,9})?$/, 'it is no moment in epoch seconds')
const flag: Kind = matching(/^[01]$/, 'it is neither 0 nor 1')

/**
 * What blocks, as iptables, nftables, ufw, `ip route` and Cloudflare call it. Anything else may open a
 * node (ACCEPT, pass, whitelist) or jump to a chain of the node's own that does.
 */
const BLOCKING = /^(drop|reject|deny|block|tarpit|unreach|unreachable|blackhole|prohibit)$/i

/** True for a word that says what happens to a banned packet. */
export function isVerdict(text: string): boolean {
  return BLOCKING.test(text)
}

const verdict: Kind = matching(BLOCKING, 'it does not block')

// What becomes of packets that are not banned: with DROP the node would be cut off.
const returning: Kind = matching(/^return$/i, 'only RETURN lets others pass')

/** One plain word. */
export const word: Kind = matching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/, 'it is not one plain word')

/** What belongs to a single ban: Fail2Ban's dynamic tags. */
const DYNAMIC: Readonly<Record<string, Kind>> = {
  ip: address,
  time: moment,
  bantime: seconds,
  failures: integer,
  bancount: integer,
  restored: flag,
}

/** What every jail may pass, whether the action file has an `[Init]` tag for it or not. */
const USUAL: Readonly<Record<string, Kind>> = {
  name: jail,
  port: ports,
  protocol: protocols,
  chain,
  type: word,
  blocktype: verdict,
  returntype: returning,
}

/** Never: they are programs, change what the file's author decided, or say whose the bans are. */
const NEVER =
  /^(_|action|known$|owner$|family$|families$|timeout$|lockingopt$|ip6?tables|nft|nftables|ipset$|norestored$|actname$)/
const NAME = /^[a-z][a-z0-9_-]{0,31}$/

/** True for a tag that belongs to one ban, not to the whole jail. */
export function isDynamic(name: string): boolean {
  return Object.hasOwn(DYNAMIC, name)
}

/** True for a tag that a jail may pass to any action file. */
export function isUsual(name: string): boolean {
  return Object.hasOwn(USUAL, name)
}

/** Checks one parameter. @returns its value in the canonical form @throws Failure 65 */
export function checkParameter(name: string, value: string): string {
  if (!NAME.test(name) || NEVER.test(name)) {
    throw new Failure(EXIT.input, `Cannot set ${quote(name)}: no public parameter`)
  }
  const kind = own(DYNAMIC, name) ?? own(USUAL, name) ?? word
  try {
    return kind(value)
  } catch (error) {
    throw new Failure(EXIT.input, `Cannot set "${name}" to ${quote(value)}: ${messageOf(error)}`)
  }
}

function own(kinds: Readonly<Record<string, Kind>>, name: string): Kind | undefined {
  return Object.hasOwn(kinds, name) ? kinds[name] : undefined
}

function matching(pattern: RegExp, complaint: string): Kind {
  return (text) => {
    if (pattern.test(text)) return text
    throw new Error(complaint)
  }
}
