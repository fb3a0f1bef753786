import * as v from 'valibot'
import { appliance, hostOf, oneOrMore, path } from './common.ts'

/** As the web console hands it out: a file of two lines, `key=...` and `secret=...`. */
const key = v.pipe(
  v.string('must be text'),
  v.regex(
    /^key=[\x21-\x39\x3b-\x7e]+\r?\nsecret=[\x21-\x7e]+\s*$/,
    'must be the two lines key=... and secret=... that OPNsense hands out',
  ),
)

const firewall = v.pipe(
  v.strictObject({
    ...appliance,
    key: v.optional(key),
    key_file: v.optional(path),
    alias: v.optional(
      v.pipe(
        v.string('must be text'),
        v.regex(/^[A-Za-z_]\w{0,31}$/, 'must be the name of an alias: 1 to 32 of A-Z a-z 0-9 _'),
      ),
    ),
  }),
  v.check((given) => given.key !== undefined || given.key_file !== undefined, 'needs key_file'),
  v.transform(({ key: text = '', ...given }) => {
    const [, user = '', pass = ''] = /^key=(\S+)\s+secret=(\S+)/.exec(text) ?? []
    return { ...given, user, pass, name: given.name ?? hostOf(given.url) }
  }),
)

/** Section `opnsense`: OPNsense firewalls; one map or a list of maps. */
export const opnsense = oneOrMore(firewall)

export type Opnsense = v.InferOutput<typeof firewall>
