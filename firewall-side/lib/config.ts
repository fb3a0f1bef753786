import { existsSync, readFileSync } from 'node:fs'
import * as v from 'valibot'
import { type Address, parseAddress } from '../../scripts/lib/address.ts'
import { readYaml } from '../../scripts/lib/config.ts'
import { neverBan } from '../../scripts/lib/never.ts'
import { addressText, integer, minPrefix } from '../../scripts/lib/settings/common.ts'
import type { Paths } from './paths.ts'

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
  never_ban: v.optional(v.array(addressText), []),
  min_prefix: minPrefix,
  max_leases: v.optional(integer(1, 10_000_000), 100_000),
})

export type FirewallConfig = v.InferOutput<typeof schema>

/** Reads `firewall.yaml`; without the file the defaults hold. @throws Failure 78 */
export function loadFirewallConfig(paths: Paths): FirewallConfig {
  if (!existsSync(paths.config)) return v.parse(schema, {})
  return readYaml(paths.config, schema).value
}

/**
 * What nobody may ban here: `never_ban`, every `from=` in the keys file and where the owners were
 * last seen (so that no server can cut off another or itself), and what `neverBan` finds.
 */
export function neverHere(config: FirewallConfig, paths: Paths, peers: string[]): Address[] {
  return neverBan([...config.never_ban, ...fromAddresses(paths.keys), ...peers])
}

/** The plain addresses and ranges among the `from="..."` of a keys file. */
function fromAddresses(keys: string): Address[] {
  let text = ''
  try {
    text = readFileSync(keys, 'utf8')
  } catch {
    return []
  }
  const patterns = [...text.matchAll(/from="([^"]*)"/g)].flatMap(([, list = '']) => list.split(','))
  return patterns.flatMap((pattern) => {
    try {
      return [parseAddress(pattern.trim())]
    } catch {
      return [] // a host name or a wildcard, which sshd understands and a packet filter does not
    }
  })
}
