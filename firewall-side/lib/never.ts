import { readFileSync } from 'node:fs'
import { type Address, parseAddress } from '../../scripts/lib/address.ts'
import { neverBan } from '../../scripts/lib/never.ts'
import type { FirewallConfig } from './config.ts'
import type { Paths } from './paths.ts'

/** What nobody may ban here: `never_ban`, every `from=` in the keys file, and what `neverBan` finds. */
export function neverHere(config: FirewallConfig, paths: Paths): Address[] {
  return neverBan([...config.never_ban, ...fromAddresses(paths.keys)])
}

/**
 * The same with where an owner was last seen, so that it cannot cut itself off. Whoever has stolen its
 * key is seen somewhere, too: others may ban him there.
 */
export function withPeer(never: readonly Address[], peer: string): readonly Address[] {
  return peer === '' ? never : [...never, parseAddress(peer)]
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
