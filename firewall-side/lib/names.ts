const PREFIX = 'fail2ban-'

/** iptables takes 28 characters for a chain; a set of 31 is that and two for the family. */
const LONGEST = 28

/**
 * The chain's name in the kernel: `fail2ban-<jail>` where that fits and holds only characters that
 * every tool takes, else a readable beginning and a hash of 72 bits, too many for an owner to find a
 * jail that shares another's chain. Hashed names begin with `f2b-`, so the two kinds cannot meet.
 */
export function chainName(jail: string): string {
  const name = PREFIX + jail
  if (name.length <= LONGEST && /^[A-Za-z0-9_.-]+$/.test(jail)) return name
  return `f2b-${jail.replace(/[^A-Za-z0-9_-]/g, '_').slice(0, 11)}-${hashOf(jail)}`
}

/** The chain of the index for a block of addresses, `perimeter-192.0.2.0/24`; see iptables-index.ts. */
export function blockChain(block: string): string {
  const name = `perimeter-${block.replaceAll(':', '_')}`
  return name.length <= LONGEST ? name : `perimeter-${hashOf(block)}`
}

function hashOf(text: string): string {
  // Loaded when a name needs it: most do not, and it costs 3 ms.
  const { createHash } = process.getBuiltinModule('node:crypto')
  return createHash('sha256').update(text).digest('base64url').slice(0, 12)
}
