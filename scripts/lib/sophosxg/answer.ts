import { XMLParser, XMLValidator } from 'fast-xml-parser'
import { EXIT, Failure } from '../failure.ts'
import type { Kind } from './request.ts'

/** What the box says about one object. Some answers carry a text and no code. */
export interface Status {
  code: number | undefined
  text: string
  /** The answer to a Get that found nothing: two wordings, with and without a code. */
  nothing: boolean
}

/** An object as the box has it. */
export interface Found {
  name: string
  family: string
  type: string
  description: string
  groups: string[]
  address: string
  subnet: string
  /** Members of an IPList. */
  list: string[]
}

/** An answer whose login succeeded. */
export interface Answer {
  /** Every Status of every object, in the order of the request. */
  statuses: Status[]
  found: Found[]
}

/** What a status means for the write that it answers. */
export type Verdict = 'done' | 'unsure' | 'exists' | 'missing' | 'twin' | 'in use' | 'refused'

const VERDICTS: Record<number, Verdict> = {
  200: 'done',
  202: 'done',
  216: 'done',
  201: 'unsure',
  203: 'unsure',
  211: 'unsure',
  212: 'unsure',
  213: 'unsure',
  214: 'unsure',
  215: 'unsure',
  217: 'unsure',
  222: 'unsure',
  500: 'unsure',
  502: 'exists',
  503: 'twin',
  504: 'in use',
  510: 'in use',
  526: 'missing',
}

/** Codes that no object can help: the sentence says what to click on the firewall. */
const REFUSALS: Record<number, string> = {
  532: 'its API is switched off (532): tick "API configuration" under Backup & firmware > API (SFOS 22: under Administration)',
  534: 'it does not let this server use the API (534): add the address of this server to "Allowed IP address" under Backup & firmware > API (SFOS 22: under Administration)',
  535: 'the account lacks the rights (535): set "Objects" and "Network" to Read-write in its profile under Profiles > Device access',
}

/** What a login that is refused calls for; the box never says why. */
export const LOGIN =
  'login refused: check user and pass in the configuration; under Authentication > Users the account must be a local one of type Administrator with an API profile, allowed to log in, without one-time password'

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: '@',
  // "007" and "1e5" are names, not numbers.
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: true,
  // Also numeric entities such as &#39;.
  htmlEntities: true,
  isArray: (tag) => ['IPHost', 'IPHostGroup', 'HostGroup', 'Host', 'Status'].includes(tag),
})

/**
 * Reads an answer strictly: a whole Response, no refusal on top, a login that succeeded.
 *
 * @param secret what no text that we pass on may hold, should the box echo it
 * @throws Failure 77 if we are refused, 76 for anything that is not such an answer
 */
export function readAnswer(body: string, kind: Kind | undefined, secret: string): Answer {
  const response = parseResponse(body)
  const statusesOf = (tree: Tree): Status[] =>
    asList(tree.Status).map((status) => readStatus(status, secret))
  const [top] = statusesOf(response)
  if (top) throw refusal(top) ?? unexpected(`answered ${describeStatus(top)}`)
  const login = (response.Login as Tree | undefined)?.status
  if (typeof login !== 'string') throw unexpected('answered without a login status')
  // The one sentence of success: "Unsuccessful" holds that word, too.
  if (!/^authentication successful$/i.test(login)) throw new Failure(EXIT.refused, LOGIN)
  const entities = asList(kind && response[kind])
  const statuses = entities.flatMap(statusesOf)
  const foreign = kind && foreignParts(response, kind).flatMap(statusesOf)[0]
  for (const status of foreign ? [...statuses, foreign] : statuses) {
    const refused = refusal(status)
    if (refused) throw refused
    if (status.code === 529) throw unexpected(`did not understand us: ${describeStatus(status)}`)
  }
  return { statuses, found: entities.filter((e) => e.Name !== undefined).map(readFound) }
}

/** What a status means; one without a known code is a refusal, one without any code is unsure. */
export function judge(status: Status): Verdict {
  if (status.code === undefined) return 'unsure'
  return VERDICTS[status.code] ?? 'refused'
}

/** `501 "Operation failed"`, for messages; the text is cut, since it comes from outside. */
export function describeStatus(status: Status): string {
  const text = JSON.stringify(status.text.slice(0, 100))
  return status.code === undefined ? `${text} without a code` : `${status.code} ${text}`
}

type Tree = Record<string, unknown>

function parseResponse(body: string): Tree {
  // Seen on real boxes: bytes before the declaration, NULs, and transactionid twice on one tag.
  const text = body
    .replaceAll('\0', '')
    .replace(/^[^<]+/, '')
    .replace(/( transactionid="[^"]*")(?:\s+transactionid="[^"]*")+/g, '$1')
  if (text === '') throw unexpected('answered nothing')
  if (/^<!doctype html|^<html/i.test(text)) throw unexpected('answered a web page: check url')
  if (XMLValidator.validate(text) !== true) throw unexpected('answered broken or cut XML')
  const { Response } = parser.parse(text) as Tree
  if (Response === undefined) throw unexpected('answered XML without a Response')
  return asTree(Response)
}

function readStatus(tree: Tree, secret: string): Status {
  const given = tree['@code']
  const code = typeof given === 'string' && /^\d{3}$/.test(given) ? Number(given) : undefined
  const text = textOf(tree)
  const nothing =
    (code === undefined || code === 526) && /^(no\.?|number) of records zero/i.test(text)
  return { code, text: withhold(text, secret), nothing }
}

/** A text of the box, unless it holds the password in whatever spelling. */
function withhold(text: string, secret: string): string {
  const plain = text.toLowerCase()
  const spellings = [
    secret,
    encodeURIComponent(secret),
    new URLSearchParams([['', secret]]).toString().slice(1),
    escapeXml(secret),
  ]
  return spellings.some((one) => plain.includes(one.toLowerCase())) ? '(withheld)' : text
}

function escapeXml(text: string): string {
  const names: Record<string, string> = {
    '&': 'amp',
    '<': 'lt',
    '>': 'gt',
    '"': 'quot',
    "'": 'apos',
  }
  return text.replace(/[&<>"']/g, (c) => `&${names[c]};`)
}

/** An unknown module answers under its own tag; its status must not be overlooked. */
function foreignParts(response: Tree, kind: Kind): Tree[] {
  const others = Object.entries(response).filter(
    ([tag]) => tag !== kind && tag !== 'Login' && !tag.startsWith('@'),
  )
  return others.flatMap(([, value]) => asList(value))
}

function readFound(tree: Tree): Found {
  return {
    name: textOf(tree.Name),
    family: textOf(tree.IPFamily),
    type: textOf(tree.HostType),
    description: textOf(tree.Description),
    groups: asArray(asTree(tree.HostGroupList).HostGroup).map(textOf),
    address: textOf(tree.IPAddress),
    subnet: textOf(tree.Subnet),
    list: textOf(tree.ListOfIPAddresses)
      .split(',')
      .map((item) => item.trim())
      .filter((item) => item !== ''),
  }
}

function refusal(status: Status): Failure | undefined {
  const sentence = REFUSALS[status.code ?? 0]
  return sentence === undefined ? undefined : new Failure(EXIT.refused, sentence)
}

function unexpected(message: string): Failure {
  return new Failure(EXIT.unexpected, message)
}

function asArray(value: unknown): unknown[] {
  if (value === undefined) return []
  return Array.isArray(value) ? value : [value]
}

function asTree(value: unknown): Tree {
  return typeof value === 'object' && value !== null ? (value as Tree) : { '#text': value }
}

function asList(value: unknown): Tree[] {
  return asArray(value).map(asTree)
}

function textOf(value: unknown): string {
  const text = typeof value === 'object' && value !== null ? (value as Tree)['#text'] : value
  return text === undefined ? '' : String(text)
}
