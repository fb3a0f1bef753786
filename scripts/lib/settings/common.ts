import * as v from 'valibot'
import { parseAddress } from '../address.ts'
import { messageOf } from '../failure.ts'
import { checkOwner } from '../lease.ts'

/** Turns one of our checking functions into a schema: what it throws becomes the message. */
export function checkedText(check: (text: string) => unknown) {
  return v.pipe(
    v.string(),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return
      try {
        check(dataset.value)
      } catch (error) {
        addIssue({ message: messageOf(error) })
      }
    }),
  )
}

export const addressText = checkedText(parseAddress)
export const ownerName = checkedText(checkOwner)
export const path = v.pipe(v.string(), v.startsWith('/', 'must be an absolute path'))

/** A whole number in a range, both ends included. */
export function integer(min: number, max: number) {
  const range = `must be a whole number from ${min} to ${max}`
  return v.pipe(v.number(range), v.integer(range), v.minValue(min, range), v.maxValue(max, range))
}

const UNITS: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400 }

/** A duration such as `500ms`, `45s`, `15m`, `2h`, `1d`; becomes seconds. */
export const duration = v.pipe(
  v.string(),
  v.regex(/^\d{1,9}(ms|[smhd])$/, 'must be a duration such as 45s, 15m, 2h or 1d'),
  v.transform((text) => {
    const [, count = '0', unit = 's'] = /^(\d+)(\D+)$/.exec(text) ?? []
    return Number(count) * (UNITS[unit] ?? 1)
  }),
)

/** Shortest prefix that may be banned; what the two families have as default. */
export const minPrefix = v.optional(
  v.strictObject({
    ipv4: v.optional(integer(1, 32), 24),
    ipv6: v.optional(integer(1, 128), 48),
  }),
  {},
)

/** A service's key: one word that may stand in a header. Its text never enters a message. */
export const serviceKey = v.pipe(
  v.string(),
  v.regex(/^[\x21-\x7e]{1,512}$/, 'must be one word of printable characters'),
)

/** Where a service is: an https URL, or http on this very machine, since a key travels with it. */
export const serviceUrl = v.pipe(
  v.string(),
  v.check(isServiceUrl, 'must be an https URL without user, query and fragment'),
  v.transform((text) => text.replace(/\/+$/, '')),
)

function isServiceUrl(text: string): boolean {
  if (!URL.canParse(text) || /[?#]/.test(text)) return false
  const { protocol, hostname, username, password } = new URL(text)
  const here = ['127.0.0.1', '[::1]', 'localhost'].includes(hostname)
  return username + password === '' && (protocol === 'https:' || (protocol === 'http:' && here))
}

/** What messages call a target; left out, it is the host of its url. */
export const targetName = v.optional(
  v.pipe(v.string(), v.regex(/^[\w.:-]{1,64}$/, 'must be a short word')),
)

/** The host of a url, an IPv6 address without its brackets. */
export function hostOf(url: string): string {
  return new URL(url).hostname.replace(/^\[|\]$/g, '')
}

/** The SHA-256 fingerprint of a certificate, as hex digits without colons. */
export const pin = v.pipe(
  v.string(),
  v.regex(
    /^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$/,
    'must be a SHA-256 fingerprint (64 hex digits)',
  ),
  v.transform((text) => text.replaceAll(':', '').toUpperCase()),
)

/** The url of an appliance's API: credentials travel with each request, so it is https only. */
export const applianceUrl = v.pipe(
  v.string(),
  v.regex(/^https:\/\/[^\s/?#@]+\/?$/, 'must be https://<address>[:<port>]'),
  v.check((text) => URL.canParse(text), 'must be https://<address>[:<port>]'),
  v.transform((text) => text.replace(/\/$/, '')),
)

/** A section with one map or a list of maps, each of another name; becomes a list. */
export function oneOrMore<S extends v.GenericSchema<unknown, { name: string }>>(entry: S) {
  return v.pipe(
    v.union([
      v.array(entry),
      v.pipe(
        entry,
        v.transform((one) => [one]),
      ),
    ]),
    v.check((list) => new Set(list.map((t) => t.name)).size === list.length, 'has a name twice'),
  )
}

/** The keys of every appliance that is asked over https with user and password. */
export const appliance = {
  name: targetName,
  url: applianceUrl,
  ca: v.optional(path),
  pin: v.optional(pin),
  deadline: v.optional(duration, '20s'),
  connect_timeout: v.optional(duration, '3s'),
}
