import * as v from 'valibot'
import { integer, path, serviceKey, serviceUrl } from './common.ts'

const word = v.regex(/^[A-Z0-9_]{1,64}$/, 'must be capitals, digits and underscores')
const tag = v.regex(/^[A-Z0-9_-]{1,64}$/, 'must be capitals, digits, underscores and hyphens')

/** Ten years: what a permanent ban is at a service that wants an end. */
const LONGEST = 315360000

/** Section `threatjammer`: the account that bans are reported to. */
export const threatjammer = v.pipe(
  v.strictObject({
    report_url: v.optional(serviceUrl, 'https://dublin.report.threatjammer.com'),
    api_url: v.optional(serviceUrl, 'https://dublin.api.threatjammer.com'),
    key: v.optional(serviceKey),
    key_file: v.optional(path),
    type: v.optional(v.pipe(v.string(), word), 'ABUSE'),
    tags: v.optional(v.array(v.pipe(v.string(), tag)), ['FAIL2BAN']),
    ttl: v.optional(integer(1, LONGEST), 86400),
    max_ttl: v.optional(integer(1, LONGEST), LONGEST),
  }),
  v.check((given) => Boolean(given.key ?? given.key_file), 'needs "key" or "key_file"'),
)

export type ThreatJammer = v.InferOutput<typeof threatjammer>
