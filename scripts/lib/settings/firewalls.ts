import * as v from 'valibot'
import { integer, path } from './common.ts'

// ssh takes a host that begins with a dash for an option; `-oProxyCommand=...` would run a program.
const host = v.pipe(
  v.string(),
  v.regex(
    /^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}$/,
    'must be a host name, an address or an ssh_config Host',
  ),
)

/** Section `firewalls`: Linux firewalls reached over SSH; `local` is this machine. */
export const firewalls = v.pipe(
  v.array(
    v.strictObject({
      host,
      user: v.optional(
        v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/, 'must be a user name')),
      ),
      port: v.optional(integer(1, 65535)),
      identity_file: v.optional(path),
      known_hosts: v.optional(path),
    }),
  ),
  v.check((list) => new Set(list.map((f) => f.host)).size === list.length, 'has a host twice'),
)

export type Firewall = v.InferOutput<typeof firewalls>[number]
