import { hostname } from 'node:os'
import * as v from 'valibot'
import { abuseipdb } from './abuseipdb.ts'
import { addressText, minPrefix, ownerName, path } from './common.ts'
import { fail2ban } from './fail2ban.ts'
import { firewalls } from './firewalls.ts'
import { fortigate } from './fortigate.ts'
import { mikrotik } from './mikrotik.ts'
import { net2ban } from './net2ban.ts'
import { opnsense } from './opnsense.ts'
import { sophosxg } from './sophosxg.ts'
import { threatjammer } from './threatjammer.ts'

/**
 * The whole of `config.yaml`: one section per sibling, unknown keys refused.
 * `npm run build` writes it to `dist/config.schema.json` for editors.
 */
export const schema = v.strictObject({
  owner: v.optional(ownerName, () => hostname().split('.')[0] ?? 'localhost'),
  never_ban: v.optional(v.array(addressText), []),
  min_prefix: minPrefix,
  state_dir: v.optional(path, '/var/lib/fail2ban-perimeter'),
  fail2ban: v.optional(fail2ban, {}),
  firewalls: v.optional(firewalls, []),
  threatjammer: v.optional(threatjammer),
  abuseipdb: v.optional(abuseipdb),
  sophosxg: v.optional(sophosxg, []),
  mikrotik: v.optional(mikrotik, []),
  opnsense: v.optional(opnsense, []),
  fortigate: v.optional(fortigate),
  net2ban: v.optional(net2ban),
})

export type Config = v.InferOutput<typeof schema>
