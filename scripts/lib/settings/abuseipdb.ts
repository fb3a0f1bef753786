import * as v from 'valibot'
import { checkJail } from '../lease.ts'
import { checkedText, integer, path, serviceKey, serviceUrl } from './common.ts'

/** Category numbers: https://www.abuseipdb.com/categories; at most 30 in a report. */
const categories = v.pipe(
  v.array(integer(1, 99)),
  v.minLength(1, 'must name at least one category'),
  v.maxLength(30, 'must name at most 30 categories'),
)

/** Section `abuseipdb`: the account that bans are reported to, and what its plan allows. */
export const abuseipdb = v.pipe(
  v.strictObject({
    url: v.optional(serviceUrl, 'https://api.abuseipdb.com/api/v2'),
    key: v.optional(serviceKey),
    key_file: v.optional(path),
    categories: v.optional(categories, [18]),
    jail_categories: v.optional(v.record(checkedText(checkJail), categories), {}),
    // Public for ever, so it is fixed words: no log text, no jail, no host name.
    comment: v.optional(
      v.pipe(v.string(), v.regex(/^[\x20-\x7e]{0,1000}$/, 'must be one line of ASCII text')),
      'Banned by Fail2Ban',
    ),
    reports_per_day: v.optional(integer(0, 1000000), 1000),
    bulk_reports_per_day: v.optional(integer(0, 1000000), 5),
  }),
  v.check((given) => Boolean(given.key ?? given.key_file), 'needs "key" or "key_file"'),
)

export type AbuseIpDb = v.InferOutput<typeof abuseipdb>
