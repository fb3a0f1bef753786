import { existsSync } from 'node:fs'
import * as v from 'valibot'
import { parseAddress } from '../../scripts/lib/address.ts'
import { readYaml } from '../../scripts/lib/config.ts'
import { addressText, integer, minPrefix } from '../../scripts/lib/settings/common.ts'

/** The widest that may be free for ever: `0.0.0.0/0` by mistake would open the perimeter. */
const WIDEST = { inet4: 4, inet6: 7 } as const

const freeText = v.pipe(
  addressText,
  v.check((text) => {
    const { family, prefix } = parseAddress(text)
    return prefix >= WIDEST[family]
  }, 'is too wide: at most /4 for IPv4 and /7 for IPv6'),
)

/** `firewall.yaml`; every key has a default, so an empty file is a complete one. */
export const schema = v.strictObject({
  backend: v.optional(v.picklist(['auto', 'nftables', 'ipset', 'iptables']), 'auto'),
  hooks: v.optional(
    v.pipe(
      v.array(v.pipe(v.string(), v.regex(/^[A-Z][A-Za-z0-9_-]{0,27}$/, 'must be a chain name'))),
      v.minLength(1, 'must name at least one chain'),
    ),
    ['INPUT', 'FORWARD'],
  ),
  blocktype: v.optional(v.picklist(['DROP', 'REJECT']), 'DROP'),
  never_ban: v.optional(v.array(freeText), []),
  min_prefix: minPrefix,
  max_leases: v.optional(integer(1, 10_000_000), 100_000),
})

export type FirewallConfig = v.InferOutput<typeof schema>

/** Reads `firewall.yaml`; without the file the defaults hold. @throws Failure 78 */
export function readFirewallConfig(path: string): FirewallConfig {
  return existsSync(path) ? readYaml(path, schema).value : v.parse(schema, {})
}
