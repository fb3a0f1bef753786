import * as v from 'valibot'
import { addressText, duration, integer, path } from './common.ts'

const secret = v.pipe(v.string(), v.minLength(8, 'must have 8 characters or more'))

const listen = v.pipe(
  v.string(),
  v.regex(/^(\[[0-9a-fA-F:.]+\]|[0-9.]+):\d{1,5}$/, 'must be ADDRESS:PORT'),
  v.transform((text) => {
    const colon = text.lastIndexOf(':')
    return { host: text.slice(0, colon).replace(/[[\]]/g, ''), port: Number(text.slice(colon + 1)) }
  }),
  v.check(({ port }) => port <= 65535, 'must be ADDRESS:PORT'),
)

/** The device's own REST API; its connector has `update-method push` (FortiOS 7.2.1 and later). */
const push = v.strictObject({
  url: v.pipe(v.string(), v.regex(/^https:\/\/[^/\s]+\/?$/, 'must be https://HOST or HOST:PORT')),
  name: v.pipe(v.string(), v.regex(/^.{1,35}$/s, 'must have 1 to 35 characters')),
  token: v.optional(secret),
  token_file: v.optional(path),
  ca: v.optional(path),
  vdom: v.optional(v.string()),
})

/** The list as devices fetch it. */
const feed = v.pipe(
  v.strictObject({
    listen: v.optional(listen, '127.0.0.1:5000'),
    // FortiOS takes at most 64 characters for the name (CLI reference 6.4).
    user: v.optional(
      v.pipe(v.string(), v.regex(/^[^:\s]{1,64}$/, 'must not contain ":" or blanks')),
    ),
    pass: v.optional(secret),
    pass_file: v.optional(path),
    cert_file: v.optional(path),
    key: v.optional(v.string()),
    key_file: v.optional(path),
    // Whose X-Forwarded-For is believed.
    proxies: v.optional(v.array(addressText), []),
    // What one external resource holds before FortiOS 7.4.4.
    max_entries: v.optional(integer(1, 10_000_000), 131_072),
    stale_after: v.optional(duration, '15m'),
  }),
  v.check((f) => !f.user === !(f.pass ?? f.pass_file), 'needs both "user" and "pass_file"'),
  v.check((f) => !f.cert_file === !(f.key ?? f.key_file), 'needs both "cert_file" and "key_file"'),
)

/** The failed logins as devices post them. */
const webhook = v.strictObject({
  header: v.optional(
    v.pipe(v.string(), v.regex(/^[A-Za-z0-9-]{1,64}$/, 'must be a header name')),
    'X-Webhook-Token',
  ),
  secret: v.optional(secret),
  secret_file: v.optional(path),
  allow_from: v.optional(v.array(addressText), []),
  log_file: v.optional(path, '/var/lib/fail2ban-perimeter/failed_logins.log'),
  events: v.optional(v.array(v.picklist(['sslvpn', 'ipsec', 'admin'])), [
    'sslvpn',
    'ipsec',
    'admin',
  ]),
  // An expired password is a legitimate user's, not an attack.
  ignore_reasons: v.optional(v.array(v.string()), ['password_expired']),
  decoy_users: v.optional(v.array(v.string()), []),
})

/** Section `fortigate`: the list file, push to the device, the feed and the receiver. */
export const fortigate = v.strictObject({
  list_file: v.optional(path, '/var/lib/fail2ban-perimeter/blocked_ips_list.txt'),
  list_mode: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^0?[0-7]{3}$/, 'must be an octal mode such as "0644"'),
      v.transform((text) => Number.parseInt(text, 8)),
    ),
    '0644',
  ),
  push: v.optional(push),
  feed: v.optional(feed, {}),
  webhook: v.optional(webhook, {}),
})

export type Fortigate = v.InferOutput<typeof fortigate>
export type Push = v.InferOutput<typeof push>
export type Feed = v.InferOutput<typeof feed>
export type Webhook = v.InferOutput<typeof webhook>
