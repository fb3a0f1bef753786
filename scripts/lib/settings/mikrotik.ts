import * as v from 'valibot'
import { appliance, hostOf, oneOrMore, path } from './common.ts'

/** A list as a rule names it; it travels in scripts, so nothing that would need quoting there. */
const listName = v.pipe(
  v.string('must be text'),
  v.regex(/^[A-Za-z0-9_.-]{1,64}$/, 'must be 1 to 64 of A-Z a-z 0-9 _ . -'),
)

// Basic authentication separates the two by a colon.
const user = v.pipe(
  v.string('must be text: put it in quotes'),
  v.regex(/^[^:\p{Cc}]+$/u, 'must be one line without a colon'),
)

const pass = v.pipe(
  v.string('must be text: put it in quotes'),
  v.regex(/^[^\p{Cc}]+$/u, 'must be one line'),
)

const router = v.pipe(
  v.strictObject({
    ...appliance,
    user,
    pass: v.optional(pass),
    pass_file: v.optional(path),
    list: v.optional(listName, 'f2b'),
    list_v6: v.optional(listName),
  }),
  v.check(
    (given) => given.pass !== undefined || given.pass_file !== undefined,
    'needs pass or pass_file',
  ),
  v.transform((given) => ({
    ...given,
    pass: given.pass ?? '',
    name: given.name ?? hostOf(given.url),
    list_v6: given.list_v6 ?? given.list,
  })),
)

/** Section `mikrotik`: routers with RouterOS 7.1 or later; one map or a list of maps. */
export const mikrotik = oneOrMore(router)

export type Mikrotik = v.InferOutput<typeof router>
