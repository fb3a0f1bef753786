import * as v from 'valibot'
import { duration, hostOf, oneOrMore, path, pin, targetName } from './common.ts'

/** The path of the XML API on every box; the original accepts no other either. */
const API = /^https:\/\/[^\s/?#@]+(:\d{1,5})?\/webconsole\/APIController$/

const url = v.pipe(
  v.string(),
  v.regex(API, 'must be https://<address>:<port>/webconsole/APIController'),
  v.check(
    (text) => URL.canParse(text),
    'must be https://<address>:<port>/webconsole/APIController',
  ),
)

/** Text as Sophos takes it for names: no comma, no `#` in front, blanks at the end are cut off. */
function objectName(max: number) {
  return v.pipe(
    v.string(),
    v.minLength(1, 'must not be empty'),
    v.maxLength(max, `must be ${max} characters at most`),
    v.regex(/^[^#,][^,]*$/, 'must not hold a comma nor begin with "#"'),
    v.regex(/^[^\p{Cc}]*(?<!\s)$/u, 'must not end with a blank nor hold control characters'),
  )
}

const login = v.pipe(
  v.string(),
  v.minLength(1, 'must not be empty'),
  v.regex(/^[\t\P{Cc}]*$/u, 'must hold no control character but a tab, XML cannot carry others'),
)

const target = v.pipe(
  v.strictObject({
    name: targetName,
    url,
    verifySslCertificate: v.optional(v.boolean(), true),
    ca: v.optional(path),
    pin: v.optional(pin),
    user: login,
    // One of the two; a file is read by the script that needs it only, so "pass" may be missing here.
    pass: v.optional(login),
    pass_file: v.optional(path),
    // The rest of an object's name needs room: jail, address and owner within 60 characters.
    iphost_prefix: v.optional(objectName(30), 'f2b_'),
    iphostgroup_name: v.optional(objectName(60), 'f2b_blockings'),
    iphostgroup_name_v6: v.optional(objectName(60)),
    mode: v.optional(v.picklist(['hosts', 'iplist'], 'must be hosts or iplist'), 'hosts'),
    deadline: v.optional(duration, '20s'),
    connect_timeout: v.optional(duration, '3s'),
  }),
  v.check(
    (given) => given.pass !== undefined || given.pass_file !== undefined,
    'needs pass or pass_file',
  ),
  v.transform((given) => ({
    ...given,
    pass: given.pass ?? '',
    name: given.name ?? hostOf(given.url),
    iphostgroup_name_v6: given.iphostgroup_name_v6 ?? `${given.iphostgroup_name}_v6`,
  })),
  v.check(
    (given) => given.iphostgroup_name !== given.iphostgroup_name_v6,
    'needs two groups: one group holds one address family',
  ),
  v.check(
    (given) => given.iphostgroup_name_v6.length <= 60,
    'needs iphostgroup_name_v6: <iphostgroup_name>_v6 is longer than 60 characters',
  ),
)

/** Section `sophosxg`: Sophos firewalls and their XML API; one map or a list of maps. */
export const sophosxg = oneOrMore(target)

export type SophosXg = v.InferOutput<typeof target>
