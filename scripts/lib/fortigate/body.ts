import { type JsonObject, readJson, TWICE } from './json.ts'

/** The fields of one FortiOS log. Values are foreign text. */
export type Fields = ReadonlyMap<string, string>

/** Why a body is refused; the text is ours and holds nothing of the body. */
export class Refused extends Error {
  override name = 'Refused'
}

/** The user of a log that could be read up to the name only. */
export const UNCLEAR = '?'

const MAX_FIELDS = 200
// C0, DEL, C1 and the two Unicode line ends: whatever some reader might take for a new line.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/

/**
 * Reads one log in any shape that the device's webhook action sends it in: raw `key=value`, the same
 * as a urlencoded form, JSON of single fields, JSON with the raw log in one field (also when the
 * device put it there without escaping its quotes).
 *
 * What a user typed as his name is part of it, so it must not be able to say anything about another
 * field: quotes decide where a value ends, and a key that comes twice, a control character or a
 * backslash before a quote (an escape on one device, a name on another) makes it unclear. Then only
 * what the device has said before the name counts; where that is nothing, the body is refused.
 *
 * @param type the Content-Type header
 * @throws Refused
 */
export function readBody(body: Buffer, type: string): Fields {
  const text = body
    .toString('utf8')
    .replace(/^\ufeff/, '')
    .trim()
  if (text === '') throw new Refused('empty body')
  if (text.startsWith('{') || text.startsWith('"')) return readJsonShape(text)
  if (text.startsWith('[')) throw new Refused('several logs in one body')
  // A raw log has blanks between its fields whatever its header says; an encoded one has none.
  const encoded = type.includes('form-urlencoded') && !/\s/.test(text)
  return encoded ? readForm(text) : readLog(text)
}

// What stands before the first key: a priority (`<189>`), a number (`1: `), the words of an alert mail.
const PREAMBLE = /^(?:[^="]{0,200}[\s>])?(?=[A-Za-z][\w.-]{0,63}=)/
// Key, then a quoted or a plain value, then a blank or the end: an unescaped quote inside a value is
// followed by neither.
const FIELD = /([A-Za-z][\w.-]{0,63})=(?:"([^"]*)"|([^\s"]*))(?: +|$)/y

/** Reads `key=value key="value" ...`, with something before the first key or not. @throws Refused */
function readLog(whole: string): Fields {
  const text = whole.slice(PREAMBLE.exec(whole)?.[0].length ?? 0)
  return orHead(() => readPairs(text), text, FIELD)
}

function readPairs(text: string): Fields {
  refuseControl(text)
  if (text.includes('\\"')) throw new Refused('a backslash before a quote')
  const fields = new Map<string, string>()
  FIELD.lastIndex = 0
  while (FIELD.lastIndex < text.length) {
    const match = FIELD.exec(text)
    if (!match) throw new Refused('not a list of key=value')
    setOnce(fields, match[1] ?? '', match[2] ?? match[3] ?? '')
  }
  return fields
}

// Fields whose values only the device says: no name that somebody typed is in them.
const OWN = new Set(
  `date time eventtime tz devname devid logid type subtype level vd logdesc sn action status reason
  tunneltype tunnelid tunnelip remip srcip ui method locip remport locport outintf srccountry cookies
  role exch`.split(/\s+/),
)
const IPSEC_MESSAGE = /^[A-Za-z ]*IPsec phase [12][A-Za-z ]*$/
/** The end of the message about an administrator: behind the name, so it is the device's own. */
const ADMIN_FAILED = / login failed from [\w-]+\(([\da-fA-F.:]+)\) because of [\w ]+"?$/
const NEXT_KEY = /\s*"?([A-Za-z][\w.-]{0,63})"?\s*[=:]/y

/** What `read` reads; if that is unclear, what the device says before the first name. @throws Refused */
function orHead(read: () => Fields, text: string, pair: RegExp): Fields {
  try {
    return read()
  } catch (error) {
    const head = error instanceof Refused ? headOf(text, pair) : undefined
    if (head?.has('logid')) return head
    throw error
  }
}

/** The device's own fields at the beginning of a log; undefined if these are unclear themselves. */
function headOf(text: string, pair: RegExp): Fields | undefined {
  const head = new Map<string, string>()
  for (let at = 0; ; at = pair.lastIndex) {
    NEXT_KEY.lastIndex = pair.lastIndex = at
    const key = NEXT_KEY.exec(text)?.[1]
    const match = pair.exec(text)
    const value = match?.[2] ?? match?.[3] ?? ''
    const isOwn = key && (OWN.has(key) || (key === 'msg' && IPSEC_MESSAGE.test(value)))
    if (key && !isOwn) break
    if (!isOwn || !match || head.has(key) || CONTROL.test(value)) return undefined
    head.set(key, value)
  }
  const [, admin] = ADMIN_FAILED.exec(text) ?? []
  if (admin && !head.has('action')) {
    head.set('srcip', admin).set('action', 'login').set('status', 'failed')
  }
  return head.set('user', UNCLEAR)
}

/** One field is the log itself, cut at its first `=`; several are its fields. @throws Refused */
function readForm(text: string): Fields {
  if (!text.includes('=')) return readLog(decode(text).trim())
  const pairs = text.split('&').map((pair) => {
    const cut = pair.indexOf('=')
    if (cut < 1) throw new Refused('not a form')
    return [decode(pair.slice(0, cut)), decode(pair.slice(cut + 1))] as const
  })
  const [first] = pairs
  if (pairs.length === 1 && first) {
    const [key, value] = first
    return readLog(isLog(value) ? value.trim() : `${key}=${value}`.trim())
  }
  return fieldsOf(pairs)
}

// The log must be the only field: with another before it, a user's name there could open a second
// one. Behind it nothing can follow, since the raw log reaches up to the last quote.
const UNESCAPED = /^\{\s*"[\w.-]{1,64}"\s*:\s*"((?:[^="]{0,200}[\s>])?[a-z]\w{0,63}=[\s\S]*)"\s*\}$/

function readJsonShape(text: string): Fields {
  const raw = UNESCAPED.exec(text)?.[1]
  const value = readJson(text)
  if (value === undefined && raw !== undefined) return readLog(raw.trim())
  if (typeof value === 'string') return readLog(value.trim())
  const read = (): Fields => {
    if (value === TWICE) throw new Refused('a key that comes twice')
    if (value === undefined) throw new Refused('not JSON of one log')
    return fieldsOrLog(value)
  }
  return orHead(read, text.slice(1), JSON_FIELD)
}

const JSON_FIELD = /\s*"([A-Za-z][\w.-]{0,63})"\s*:\s*"([^"\\]*)"\s*,/y

/**
 * JSON has either the log's fields, or the log as its first field, called `log`, or its only one. A
 * `log` further behind may be what somebody typed as his name.
 */
function fieldsOrLog(pairs: JsonObject): Fields {
  const plain = pairs.flatMap(([key, value]) =>
    typeof value === 'string' ? [[key, value] as const] : [],
  )
  if (plain.some(([key]) => key === 'logid')) return fieldsOf(plain)
  const [first] = pairs
  const value = pairs.length === 1 || first?.[0] === 'log' ? first?.[1] : undefined
  if (Array.isArray(value)) return fieldsOrLog(value)
  if (value === undefined || !isLog(value.replace(PREAMBLE, '')))
    throw new Refused('no log in the body')
  return readLog(value.trim())
}

function fieldsOf(pairs: readonly (readonly [string, string])[]): Fields {
  const fields = new Map<string, string>()
  for (const [key, value] of pairs) {
    refuseControl(key + value)
    setOnce(fields, key, value)
  }
  return fields
}

function setOnce(fields: Map<string, string>, key: string, value: string): void {
  if (fields.has(key)) throw new Refused('a key that comes twice')
  if (fields.size >= MAX_FIELDS) throw new Refused('too many fields')
  fields.set(key, value)
}

function isLog(text: string): boolean {
  return /^\s*(?:<\d{1,3}>)?[A-Za-z]\w{0,63}=\S* +[A-Za-z]\w{0,63}=/.test(text)
}

function refuseControl(text: string): void {
  if (CONTROL.test(text)) throw new Refused('a control character')
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    throw new Refused('not a form')
  }
}
