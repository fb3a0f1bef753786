import { adminFailed, adminFailed5, ipsecFailed, SSLVPN_FAILED, tunnelUp } from './fortigate.ts'

/** Where the attacker really comes from, and whom he wants banned. */
export const TRUE = '203.0.113.7'
export const VICTIM = '198.51.100.7'

/** A body that must not plant VICTIM in the log. */
export interface Hostile {
  name: string
  body: string | Buffer
  type?: string
  headers?: Record<string, string>
  /** What the receiver must answer. */
  status: number
}

const FORM = 'application/x-www-form-urlencoded'
const JSON_TYPE = 'application/json'
const { v5, v6, v7 } = SSLVPN_FAILED
const as = (user: string, remip = TRUE) => v7({ remip, user })
const raw = (name: string, body: string | Buffer, status = 422): Hostile => ({ name, body, status })
const form = (name: string, body: string, status = 422): Hostile => ({
  name,
  body,
  type: FORM,
  status,
})
const json = (name: string, body: string, status = 422): Hostile => ({
  name,
  body,
  type: JSON_TYPE,
  status,
})
const fields = (extra: string) =>
  `{"logid":"0101039426","action":"ssl-login-fail","remip":"${TRUE}",${extra}}`
const plant = `logid=0101039426 action=ssl-login-fail remip=${VICTIM}`

/** Names that a user can type and that a lazy reader takes for a field. */
const NAMES = [
  `remip=${VICTIM}`,
  ` remip=${VICTIM} `,
  `x&remip=${VICTIM}`,
  `x%22%20remip=${VICTIM}`,
  `x%0aremip=${VICTIM}`,
  `x+remip=${VICTIM}+`,
  `x remip='${VICTIM}'`,
  `\u201d remip=${VICTIM}`,
  `<HOST> remip=${VICTIM}`,
  `$(id) \`id\` ;remip=${VICTIM}`,
]

/** Characters that end a line, or a value, for somebody. */
const BREAKS: [string, string][] = [
  ['line feed', '\n'],
  ['carriage return', '\r'],
  ['CR LF', '\r\n'],
  ['NUL', '\0'],
  ['tab', '\t'],
  ['vertical tab', '\v'],
  ['form feed', '\f'],
  ['escape', '\u001b[2K'],
  ['delete', '\u007f'],
  ['next line', '\u0085'],
  ['line separator', '\u2028'],
  ['paragraph separator', '\u2029'],
]

const fromNames = NAMES.flatMap((name) => [
  raw(`name ${name}`, as(name), 204),
  json(`JSON name ${name}`, fields(`"user":${JSON.stringify(name)}`), 204),
])

const fromBreaks = BREAKS.flatMap(([what, mark]) => [
  raw(`${what} in the name`, as(`x${mark}${plant}`), 204),
  json(`${what} in a JSON name`, fields(`"user":${JSON.stringify(`x${mark}${plant}`)}`), 204),
])

const QUOTES = [
  raw('a quote that opens a second remip', as(`x" remip=${VICTIM} z="`), 204),
  raw('an escaped quote', as(`x\\" remip=${VICTIM} z=\\"`), 204),
  raw('a backslash at the end of the name', as('x\\'), 204),
  raw('a quote that swallows what follows', as(`x" remip=${VICTIM} z=`), 204),
  raw(
    'an admin name before srcip',
    adminFailed({ remip: TRUE, user: `x" srcip=${VICTIM} z="` }),
    204,
  ),
  raw(
    'an admin name that swallows',
    adminFailed({ remip: TRUE, user: `x" srcip=${VICTIM} z=` }),
    204,
  ),
  raw(
    'an admin name with remip',
    adminFailed({ remip: TRUE, user: `x" remip=${VICTIM} z="y` }),
    204,
  ),
  ...[`x" srcip=${VICTIM} z="`, `x" srcip=${VICTIM} z=`, `x" ui=ssh(${VICTIM}) y="`].map((user) =>
    raw(`without srcip, ${user}`, adminFailed5({ remip: TRUE, user }), 204),
  ),
  raw(
    'a message that seems to end',
    adminFailed5({ remip: TRUE, user: `x login failed from ssh(${VICTIM}) because of a"` }),
    204,
  ),
  raw('an open quote', `${v6({ remip: TRUE })} x="`, 204),
  raw('a reason with a quote', v5({ remip: TRUE, reason: `x" remip=${VICTIM} y="` }), 204),
]

const DOUBLES = [
  raw('remip twice', `${v6({ remip: TRUE })} remip=${VICTIM}`, 204),
  raw(
    'remip twice, the other first',
    v6({ remip: TRUE }).replace('remip=', `remip=${VICTIM} remip=`),
  ),
  raw(
    'logid twice',
    `${tunnelUp({ remip: VICTIM })} logid="0101039426" action="ssl-login-fail"`,
    204,
  ),
  raw('two logs', `${v6({ remip: TRUE })}\n${v6({ remip: VICTIM })}`, 204),
  raw('two logs on a line', `${v6({ remip: TRUE })} ${v6({ remip: VICTIM })}`, 204),
  json('remip twice in JSON', fields(`"remip":"${VICTIM}"`)),
  json('remip twice, spelled with an escape', fields(`"re\\u006dip":"${VICTIM}"`)),
  json('an array of logs', JSON.stringify([{ log: v6({ remip: VICTIM }) }])),
  form(
    'remip twice in a form',
    `logid=0101039426&action=ssl-login-fail&remip=${TRUE}&remip=${VICTIM}`,
  ),
  form('an encoded second field', `date=1+${plant.replaceAll(' ', '+')}+remip%3D${TRUE}`),
]

const SHAPES = [
  json('a quote in an unescaped log', `{"log":"${as(`x" remip=${VICTIM} z="`)}"}`, 204),
  json('a second log in a name', `{"user":"a","log":"${plant} u="q" v=1"}`),
  json('a log behind the true fields', fields(`"user":"a","log":"${plant} u="q" v=1"`), 204),
  json('a log as an escaped name', `{"user":${JSON.stringify(plant)},"remip":"${TRUE}"}`),
  json('a nested object', `{"a":{"log":{"x":"${plant}"}},"b":"c"}`),
  json('__proto__', `{"__proto__":{"logid":"0101039426","remip":"${VICTIM}"},"a":"b"}`),
  json('JSON that ends early', fields('"user":"a').slice(0, -1), 204),
  json('deep JSON', '{"a":'.repeat(5000) + '}'.repeat(5000)),
  raw('nothing', ''),
  raw('blanks', '   '),
  raw('HTML', `<script>remip=${VICTIM}</script>`),
  raw(
    'a line of our own',
    `2026-11-20T14:20:05+00:00 fortigate: sslvpn failed-login remip=${VICTIM} user=a reason=- device=- devtime=-`,
  ),
  raw('UTF-16', Buffer.from(`\ufeff${v6({ remip: VICTIM })}`, 'utf16le')),
  raw('bytes that are no text', Buffer.from([0xff, 0xfe, 0, 1, 2, 0x80, 0x81])),
  form('a broken escape', `date=1%ZZ&remip=${VICTIM}`),
  form('an overlong escape', `log=%C0%8A${plant.replaceAll(' ', '%20')}`),
  raw('300 fields', `${Array.from({ length: 300 }, (_, i) => `k${i}=v`).join(' ')} ${plant}`),
]

const ADDRESSES = [
  '0.0.0.0',
  '::',
  '999.999.999.999',
  '198.51.100.07',
  '198.51.100.0/24',
  '0/0',
  'fe80::1%eth0',
  '198.51.100.7:443',
  'victim.example',
  'N/A',
  '3325256711',
  '--help',
].map((remip) => raw(`remip ${remip}`, v6({ remip })))

const NO_FAILURE = [
  raw('a tunnel that came up', tunnelUp({ remip: VICTIM }), 204),
  raw('a tunnel-up with a failure in its name', tunnelUp({ remip: VICTIM, user: plant }), 204),
  raw(
    'a login failure that is none',
    v7({ remip: VICTIM }).replace('ssl-login-fail', 'tunnel-up'),
    204,
  ),
  raw('IPsec progress', ipsecFailed({ remip: VICTIM }, '0101037127'), 204),
  raw(
    'IPsec that went well',
    ipsecFailed({ remip: VICTIM }).replace('negotiate_error', 'success'),
    204,
  ),
  raw('an admin who got in', adminFailed({ remip: VICTIM }).replace('"failed"', '"success"'), 204),
  raw('an expired password', v7({ remip: VICTIM, reason: 'sslvpn_login_password_expired' }), 204),
  raw('loopback', v7({ remip: '127.0.0.1' }), 204),
  raw('a protected address', v7({ remip: '192.0.2.99' }), 204),
  raw('loopback as mapped IPv6', v7({ remip: '::ffff:127.0.0.1' }), 204),
  raw('a foreign logid', v7({ remip: VICTIM }).replace('0101039426', '010103942600'), 422),
  raw('no logid', v7({ remip: VICTIM }).replace('logid=', 'xlogid='), 422),
]

const victim = v7({ remip: VICTIM })
const SENDERS: Hostile[] = [
  { ...raw('no token', victim, 401), headers: { 'x-webhook-token': '' } },
  {
    ...raw('a wrong token', victim, 401),
    headers: { 'x-webhook-token': 'Zx81-token-of-the-webhool' },
  },
  {
    ...raw('a longer token', victim, 401),
    headers: { 'x-webhook-token': 'Zx81-token-of-the-webhook1' },
  },
  {
    ...raw('the document header', victim, 401),
    headers: { 'x-webhook-token': '', header: 'Fortigate Webhook' },
  },
  { ...raw('gzip', victim, 422), headers: { 'content-encoding': 'gzip' } },
  raw('64 KiB and a byte', victim.padEnd(65_537), 413),
  raw('10 MB', `${victim} x=${'a'.repeat(10_000_000)}`, 413),
]

export const CORPUS: Hostile[] = [
  ...fromNames,
  ...fromBreaks,
  ...QUOTES,
  ...DOUBLES,
  ...SHAPES,
  ...ADDRESSES,
  ...NO_FAILURE,
  ...SENDERS,
]
