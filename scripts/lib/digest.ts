import { alive, NO_JAIL } from './lease.ts'

/** A lease as both sides of a firewall have it. */
export interface Held {
  address: string
  jail: string
  expires: number
}

/**
 * Tells one set of leases and ports from any other, in a few bytes: with it an unchanged firewall
 * costs one exchange, however many leases it has. Leases of no jail are a person's own affair.
 *
 * @param namingOf ports and protocol of a jail
 */
export function digestOf(
  leases: Iterable<Held>,
  namingOf: (jail: string) => { ports: string; protocol: string } | undefined,
  at: number,
): string {
  const { createHash } = process.getBuiltinModule('node:crypto')
  const jails = new Set<string>()
  const lines: string[] = []
  for (const { address, jail, expires } of leases) {
    if (jail === NO_JAIL || !alive(expires, at)) continue
    lines.push(`${address} ${jail} ${expires}`)
    jails.add(jail)
  }
  for (const jail of jails) {
    const { ports = '', protocol = '' } = namingOf(jail) ?? {}
    lines.push(`${jail} ${ports} ${protocol}`)
  }
  const text = lines.sort().join('\n')
  return createHash('sha256').update(text).digest('hex')
}
