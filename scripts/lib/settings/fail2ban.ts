import * as v from 'valibot'
import { path } from './common.ts'

/** Section `fail2ban`: where it is, for set-ups that are not the default. */
export const fail2ban = v.strictObject({
  client: v.optional(v.string(), 'fail2ban-client'),
  socket: v.optional(path),
  config_dir: v.optional(path),
  database: v.optional(path),
})

export type Fail2Ban = v.InferOutput<typeof fail2ban>
