import * as v from 'valibot'
import { parseAddress } from '../address.ts'
import { type Options, textOption, usageFailure, type Values } from '../command.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'

// What Threat Jammer's User API takes and gives at /v1/denylist/reported/ip:
// https://dublin.api.threatjammer.com/docs, "Denylist data query and management".

/** The documented filters, each with what its value must look like. */
const FILTERS: Record<string, RegExp> = {
  dataset: /^[A-Z0-9_]{1,64}$/,
  'reported-before': /^\d{1,14}$/,
  'reported-after': /^\d{1,14}$/,
  'expires-before': /^\d{1,14}$/,
  'expires-after': /^\d{1,14}$/,
  'greater-than': /^[1-9]\d{0,8}$/,
  'less-than': /^([2-9]|[1-9]\d{1,8})$/,
  'ip-protocol-version': /^(ALL|IPV4|IPV6)$/,
}

const FORMATS: Record<string, string> = { json: 'JSON', csv: 'CSV', 'aws-waf': 'AWS-WAF' }

export const LIST_OPTIONS: Options = Object.fromEntries(
  [...Object.keys(FILTERS), 'format'].map((name) => [name, { type: 'string' as const }]),
)

export const LIST_HELP = `  --format FORMAT   list: json | csv | aws-waf, as the service writes it, the
                    whole account
  --dataset NAME    list: only this dataset, such as ABUSE
  --reported-before, --reported-after, --expires-before, --expires-after MOMENT
                    list: as the service takes it; its schema says epoch seconds
  --greater-than N, --less-than N
                    list: reported more, or less, often than this
  --ip-protocol-version ALL|IPV4|IPV6
                    list: one family; aws-waf wants one`

/** The query for the filters that were given. @throws Failure 64, 65 */
export function listQuery(values: Values): { query: string; format: string | undefined } {
  const query = new URLSearchParams()
  for (const [name, pattern] of Object.entries(FILTERS)) {
    const value = textOption(values, name)
    if (value === undefined) continue
    if (!pattern.test(value)) throw new Failure(EXIT.input, `Cannot read --${name} ${quote(value)}`)
    query.set(name.replaceAll('-', '_'), value)
  }
  const format = textOption(values, 'format')
  if (format !== undefined) query.set('output_format', formatOf(format))
  if (format === 'aws-waf' && !/^IPV/.test(query.get('ip_protocol_version') ?? '')) {
    throw usageFailure('aws-waf needs --ip-protocol-version IPV4 or IPV6')
  }
  return { query: query.size > 0 ? `?${query}` : '', format }
}

function formatOf(name: string): string {
  const format = FORMATS[name]
  if (format) return format
  throw new Failure(EXIT.input, `Cannot read --format ${quote(name)}: json, csv or aws-waf`)
}

const shape = v.object({ addresses: v.array(v.object({ self: v.string() })) })

/** The addresses in a JSON answer: the last word of each entry's own link. @throws Failure 76 */
export function listedAddresses(text: string): Set<string> {
  try {
    const { addresses } = v.parse(shape, JSON.parse(text))
    const words = addresses.map(({ self }) => decodeURIComponent(self.split('/').at(-1) ?? ''))
    return new Set(words.map((word) => parseAddress(word).text))
  } catch (error) {
    throw new Failure(EXIT.unexpected, 'the list could not be read', { cause: messageOf(error) })
  }
}

/** A foreign text as it may be printed: no character that a terminal obeys. */
export function printable(text: string): string {
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, '').trimEnd()
}
