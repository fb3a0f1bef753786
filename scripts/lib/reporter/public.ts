import { type Address, isSingle, overlaps, parseAddress } from '../address.ts'

/**
 * What the IANA special-purpose registries call not globally reachable, and what is nobody's own
 * address: private, shared (CGNAT), documentation, benchmarking, multicast, reserved.
 * https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry
 */
const SPECIAL = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/3',
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
].map(parseAddress)

/** All that is handed out of IPv6 so far; ULA, link-local and the rest lie outside. */
const GLOBAL_IPV6 = parseAddress('2000::/3')

/** True for one address that belongs to somebody on the Internet, so that a report means something. */
export function isPublic(address: Address): boolean {
  if (!isSingle(address)) return false
  if (address.family === 'inet6' && !overlaps(address, GLOBAL_IPV6)) return false
  return !SPECIAL.some((range) => overlaps(address, range))
}
