import { XMLParser, XMLValidator } from 'fast-xml-parser'
import type { Faults } from './faults.ts'
import { getGroup, getHost, matches } from './reading.ts'
import type { Box } from './state.ts'
import { removeObject, type Tree, textOf, writeGroup, writeHost } from './writing.ts'

export interface Handled {
  xml: string
  verb: string
  kind: string
  names: string[]
  wrote: boolean
}

interface Result {
  /** Inner XML of one result element for each object. */
  elements: string[]
  names: string[]
  wrote: boolean
}

const HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
const OPEN = '<Response APIVersion="2200.1" IPS_CAT_VER="1" IS_WIFI6="0">'
const TEXTS: Record<string, string> = {
  200: 'Configuration applied successfully.',
  201: 'Configuration applied partially.',
  216: 'Operation Successful.',
  217: 'Unable to get status message',
  500: 'Operation could not be performed on Entity.',
  501: 'Configuration parameters validation failed.',
  502: 'Operation failed. Entity having same name already exists.',
  503: 'Operation failed. Entity having same parameter details already exists.',
  504: 'Operation failed. Deletion of entity referred by another entity.',
  510: 'Operation failed. Deletion of entity referred by another entity.',
  526: 'Record does not exist.',
  528: 'Operation failed. Built-in entity cannot be edited.',
  529: 'Input request module is Invalid',
  535: 'Operation failed. Insufficient privileges.',
}

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: '@',
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
})

/** One request from XML to XML: envelope, login, then verb by verb in the order of the document. */
export function handle(box: Box, xml: string, faults: Faults): Handled {
  const refused = refusal(box, xml, faults)
  if (refused !== undefined) return { ...NOTHING, xml: envelope(refused) }
  const { Request } = parser.parse(xml) as { Request: Tree }
  const verbs = verbsOf(Request)
  if (faults.oneVerbOnly && verbs.length > 1) return { ...NOTHING, xml: envelope(status(529)) }
  const done = verbs.map(([verb, body]) => carryOut(box, verb, body, faults))
  const text = done.map((one) => one.xml).join('')
  const login = '<Login><status>Authentication Successful</status></Login>'
  return { ...(done.at(-1) ?? NOTHING), xml: envelope(login + text) }
}

const NOTHING = { verb: 'login', kind: '', names: [], wrote: false }

function envelope(body: string): string {
  return `${HEAD}${OPEN}${body}</Response>`
}

/** Malformed, API off, caller not allowed, login: in this order, each alone in its answer (7, 8). */
function refusal(box: Box, xml: string, faults: Faults): string | undefined {
  const valid = xml !== '' && XMLValidator.validate(xml) === true
  const { Request } = (valid ? parser.parse(xml) : {}) as { Request?: Tree }
  if (!Request) return status(529, 'Input request file is Invalid')
  const version = Request['@APIVersion']
  if (version !== undefined && !faults.apiVersions.includes(String(version))) {
    return status(529, 'There is no API Version')
  }
  if (faults.apiOff) return status(532, 'API access is not enabled.')
  if (faults.ipRefused) {
    return status(534, 'API operations are not allowed from the requester IP address')
  }
  const known = loginOf(box, Request.Login as Tree | undefined) && !faults.loginRefused
  return known ? undefined : '<Login><status>Authentication Failure</status></Login>'
}

function verbsOf(request: Tree): [string, Tree][] {
  return Object.entries(request)
    .filter(([tag]) => /^(get|set|remove)$/i.test(tag))
    .flatMap(([tag, body]) => asList(body).map((one) => [tag.toLowerCase(), one] as [string, Tree]))
}

function carryOut(box: Box, verb: string, body: Tree, faults: Faults): Handled {
  const [kind = '', value] =
    Object.entries(body).find(([tag]) => !tag.startsWith('@') && tag !== '#text') ?? []
  const about = { verb, kind, names: [] as string[], wrote: false }
  if (kind !== 'IPHost' && kind !== 'IPHostGroup') {
    return { ...about, xml: `<${kind}>${status(529)}</${kind}>` }
  }
  if (faults.noRights) return { ...about, xml: element(kind, status(Number(faults.noRights))) }
  const result =
    verb === 'get'
      ? get(box, kind, asList(value)[0] ?? {}, faults)
      : verb === 'set'
        ? set(box, kind, asList(value), String(body['@operation'] ?? ''), faults)
        : remove(box, kind, asList(value), faults)
  const xml = result.elements.map((inner) => element(kind, inner)).join('')
  return { ...about, ...result, xml: faults.writeStatus === 'none' && verb !== 'get' ? '' : xml }
}

function get(box: Box, kind: string, body: Tree, faults: Faults): Result {
  const key = asList(asList(body.Filter)[0]?.key)[0]
  const filter = key && !faults.ignoreFilter ? key : undefined
  const elements =
    kind === 'IPHost'
      ? [...box.hosts.values()].filter((h) => matches(filter, h)).map((h) => getHost(box, h))
      : [...box.groups.values()].filter((g) => matches(filter, g)).map(getGroup)
  const wording = {
    no: '<Status>No. of records Zero.</Status>',
    number: '<Status>Number of records Zero.</Status>',
    526: '<Status code="526">No. of records Zero.</Status>',
  }
  const found = elements.length > 0 ? elements : [wording[faults.zeroRecords]]
  return { elements: found, names: [], wrote: false }
}

function set(box: Box, kind: string, bodies: Tree[], operation: string, faults: Faults): Result {
  const outcomes = bodies.map((body) => {
    const name = textOf(body.Name)
    if (faults.writeIgnored && name.includes(faults.only)) return ignored(faults, name)
    const write = kind === 'IPHost' ? writeHost : writeGroup
    const outcome = write(box, body, operation, faults)
    return { name, inner: inner(outcome.code, faults, outcome.params), wrote: outcome.code === 200 }
  })
  return collect(outcomes)
}

function remove(box: Box, kind: string, bodies: Tree[], faults: Faults): Result {
  const outcomes = bodies.flatMap((body) =>
    asArray(body.Name).map((raw) => {
      const name = textOf(raw)
      if (faults.writeIgnored && name.includes(faults.only)) return ignored(faults, name)
      const { code, wrote } = removeObject(box, kind, name, body, faults)
      return { name, inner: inner(code, faults), wrote }
    }),
  )
  // Several names in one element are answered by several Status in one element (27).
  const result = collect(outcomes)
  return { ...result, elements: [result.elements.join('')] }
}

function ignored(faults: Faults, name: string) {
  const code = faults.writeIgnored ?? ''
  const text = code === 'text' ? '<Status>Transaction fail</Status>' : status(Number(code))
  return { name, inner: text, wrote: false }
}

function collect(outcomes: { name: string; inner: string; wrote: boolean }[]): Result {
  return {
    elements: outcomes.map((one) => one.inner),
    names: outcomes.map((one) => one.name),
    wrote: outcomes.some((one) => one.wrote),
  }
}

function inner(code: number | string, faults: Faults, params?: string): string {
  if (code === 'text') return '<Status>Operation could not be performed on Entity.</Status>'
  if (faults.writeStatus === 'zero') return '<Status></Status>'
  if (Number(code) === 200 && faults.writeStatus && faults.writeStatus !== 'none') {
    return status(Number(faults.writeStatus))
  }
  const invalid = params ? `<InvalidParams><Params>${params}</Params></InvalidParams>` : ''
  return `${status(Number(code))}${invalid}`
}

function loginOf(box: Box, login: Tree | undefined): boolean {
  const password = (login?.Password ?? '') as Tree | string
  const form = typeof password === 'object' ? String(password['@passwordform'] ?? 'plain') : 'plain'
  const wanted = form === 'encrypt' ? `encrypted:${box.pass}` : box.pass
  const given = typeof password === 'object' ? (password['#text'] ?? '') : password
  return textOf(login?.Username) === box.user && String(given) === wanted
}

function status(code: number, text = TEXTS[code] ?? 'Operation failed.'): string {
  return `<Status code="${code}">${text}</Status>`
}

function element(kind: string, inner: string): string {
  return `<${kind} transactionid="">${inner}</${kind}>`
}

function asArray(value: unknown): unknown[] {
  if (value === undefined) return []
  return Array.isArray(value) ? value : [value]
}

function asList(value: unknown): Tree[] {
  return asArray(value).map((one) => (typeof one === 'object' && one !== null ? (one as Tree) : {}))
}
