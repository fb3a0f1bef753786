import * as v from 'valibot'
import { integer, path } from './common.ts'

/** Shared secrets: anything that nobody guesses. `net2banctl gen_random` prints such words. */
const secret = v.pipe(
  v.string(),
  v.regex(/^[\x21-\x7e]{16,512}$/, 'must be one word of 16 characters or more'),
)

const word = (max: number, what: string) =>
  v.pipe(
    v.string(),
    v.regex(new RegExp(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,${max - 1}}$`), `must be ${what}`),
  )

const login = v.pipe(
  v.string(),
  v.regex(/^[\x21-\x7e]{1,128}$/, 'must be one word of printable characters'),
)

/** What the document's sample has for everybody, and what a client may have of its own. */
const own = {
  secret: v.optional(secret),
  secret_file: v.optional(path),
  authkey: v.optional(secret),
  authkey_file: v.optional(path),
  rounds: v.optional(integer(1, 10_000_000)),
  valid_wtime: v.optional(integer(10, 604_800)),
  key: v.optional(secret),
  key_file: v.optional(path),
  user: v.optional(login),
  pass: v.optional(login),
  pass_file: v.optional(path),
}

const global = v.pipe(
  v.strictObject({
    server: v.optional(word(253, 'a host name or an address'), '127.0.0.1'),
    port: v.optional(integer(1, 65535)),
    vhost: v.optional(word(64, 'a short word'), 'net2ban'),
    user: v.optional(login),
    pass: v.optional(login),
    pass_file: v.optional(path),
    tls: v.optional(v.boolean(), true),
    ca: v.optional(
      v.pipe(v.string(), v.includes('-----BEGIN CERTIFICATE-----', 'must be a certificate (PEM)')),
    ),
    ca_file: v.optional(path),
    mode: v.picklist(['server', 'client']),
    rounds: v.optional(integer(1, 10_000_000), 12_000),
    secret: v.optional(secret),
    secret_file: v.optional(path),
    authkey: v.optional(secret),
    authkey_file: v.optional(path),
    valid_wtime: v.optional(integer(10, 604_800), 3600),
    queue_prefix: v.optional(word(64, 'a short word'), 'net2ban_'),
    action_dir: v.optional(path, '/etc/fail2ban/action.d'),
    allow_update: v.optional(v.boolean(), false),
  }),
  v.transform((given) => ({ ...given, port: given.port ?? (given.tls ? 5671 : 5672) })),
)

/** Names that would be mistaken for something else of ours on the broker. */
const RESERVED = ['server', 'dead', 'in', 'out', 'ctl']

const clients = v.pipe(
  v.record(word(64, 'a short word'), v.strictObject(own)),
  v.check(
    (all) => Object.keys(all).every((name) => !RESERVED.includes(name) && !/^server_/.test(name)),
    `must not name a client ${RESERVED.join(', ')}`,
  ),
)

/** Section `net2ban`: the broker, the keys, and the nodes. */
export const net2ban = v.pipe(
  v.strictObject({
    global,
    server: v.optional(
      v.strictObject({ ...own, input: v.optional(word(128, 'a queue name'), 'input_net2ban') }),
    ),
    keygen: v.optional(v.strictObject({ keylen: v.optional(integer(16, 512), 40) }), {}),
    clients: v.optional(clients, {}),
    default_action: v.optional(
      v.pipe(
        v.string(),
        v.regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/, 'must be the name of an action file'),
      ),
      'iptables-multiport',
    ),
  }),
  v.check(
    ({ global, clients, server }) =>
      !Object.keys(clients).some((name) => global.queue_prefix + name === server?.input),
    "has a client whose queue is the server's input",
  ),
)

export type Net2ban = v.InferOutput<typeof net2ban>
