import { readFileSync } from 'node:fs'
import { type Address, parseAddress } from '../../scripts/lib/address.ts'
import { neverBan } from '../../scripts/lib/never.ts'
import type { FirewallConfig } from './config.ts'
import type { Paths } from './paths.ts'

/** What nobody may ban here: `never_ban`, every `from=` in the keys file, and what `neverBan` finds. */
export function neverHere(config: FirewallConfig, paths: Paths): Address[] {
  return neverBan([...config.never_ban, ...fromAddresses(paths.keys)])
}

/** The same with where the owners were last seen, so that no server can cut off another or itself. */
export function withPeers(never: readonly Address[], peers: readonly string[]): Address[] {
  const list = new Map(never.map((address) => [address.text, address]))
  for (const peer of peers) if (!list.has(peer)) list.set(peer, parseAddress(peer))
  return [...list.values()]
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
