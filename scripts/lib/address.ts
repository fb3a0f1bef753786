import { SocketAddress } from 'node:net'
import { EXIT, Failure } from './failure.ts'

/** Fail2Ban's words for the two families. */
export type Family = 'inet4' | 'inet6'

/**
 * An address or range that has been parsed and made canonical: host bits cleared, IPv6 compressed
 * and in lower case, IPv4-mapped IPv6 turned into IPv4. Two equal addresses have equal `text`.
 */
export interface Address {
  /** `192.0.2.1`, `198.51.100.0/24`, `2001:db8::1`; a single address has no prefix length. */
  readonly text: string
  readonly family: Family
  /** Prefix length: 32 or 128 for a single address. */
  readonly prefix: number
  /** The bits as a number (IPv4) or a bigint (IPv6), for comparing. */
  readonly bits: number | bigint
}

/** The shortest prefix that may be banned, per family. */
export interface MinPrefix {
  ipv4: number
  ipv6: number
}

const SINGLE = { inet4: 32, inet6: 128 } as const

/**
 * Reads one IPv4 or IPv6 address or CIDR range.
 *
 * @throws Failure 65 for anything else: a zone (`fe80::1%eth0`), a port, a name, a leading zero
 */
export function parseAddress(input: string): Address {
  const slash = input.indexOf('/')
  const host = slash < 0 ? input : input.slice(0, slash)
  const length = slash < 0 ? '' : input.slice(slash + 1)
  if (slash >= 0 && !/^(0|[1-9]\d{0,2})$/.test(length)) throw unreadable(input)
  const bits = ipv4Bits(host)
  // A dotted quad without leading zeros is canonical as it stands.
  if (bits !== undefined && slash < 0) return { text: host, family: 'inet4', prefix: 32, bits }
  if (bits !== undefined) return ipv4(bits, Number(length), input)
  const canonical = ipv6Text(host)
  if (canonical === undefined) throw unreadable(input)
  return ipv6(ipv6Bits(canonical), slash < 0 ? 128 : Number(length), input)
}

/**
 * Reads an address with the width that an action line adds to it, `<ip>/<prefix>`: `192.0.2.1/24` and
 * `192.0.2.1//24` (of `mask=/24`) are that network, `192.0.2.1/` (of `mask=`) is the address, and a
 * range that was banned by hand stays what it is, `192.0.2.0/26/24`.
 *
 * @throws Failure 65
 */
export function parseBanned(input: string): Address {
  const [host = '', length] = input.split('/').filter((part) => part !== '')
  const extra = /^[^/]*(\/\d*){0,3}$/.test(input)
  if (!extra) throw unreadable(input)
  return parseAddress(length === undefined ? host : `${host}/${length}`)
}

/** The address of a line that we wrote; undefined for what somebody mistyped there. */
export function canonicalAddress(text: string): Address | undefined {
  try {
    const address = parseAddress(text)
    return address.text === text ? address : undefined
  } catch {
    return undefined
  }
}

/** True if the two have at least one address in common. */
export function overlaps(a: Address, b: Address): boolean {
  if (a.family !== b.family) return false
  const shared = Math.min(a.prefix, b.prefix)
  if (shared === 0) return true
  if (typeof a.bits === 'number' && typeof b.bits === 'number') {
    return (a.bits ^ b.bits) >>> (32 - shared) === 0
  }
  return (BigInt(a.bits) ^ BigInt(b.bits)) >> BigInt(128 - shared) === 0n
}

/** True for one address, false for a range. */
export function isSingle(address: Address): boolean {
  return address.prefix === SINGLE[address.family]
}

/** What tells an address from all others, as the key of a map: most are numbers, which are quicker. */
export function keyOf(address: Address): string | number {
  return address.prefix === 32 && typeof address.bits === 'number' ? address.bits : address.text
}

/** Sorts IPv4 before IPv6, each in numeric order, a wider range before what it contains. */
export function compareAddresses(a: Address, b: Address): number {
  if (a.family !== b.family) return a.family === 'inet4' ? -1 : 1
  if (a.bits !== b.bits) return a.bits < b.bits ? -1 : 1
  return a.prefix - b.prefix
}

/**
 * Refuses what must never be banned. An unban needs no such check.
 *
 * @throws Failure 65 for a range wider than allowed and for any overlap with the never-ban list
 */
export function checkBannable(address: Address, never: readonly Address[], min: MinPrefix): void {
  const why = whyNever(address, never, min)
  if (why) throw new Failure(EXIT.input, why)
}

/** Why an address must never be banned, undefined if it may: for a sync, which counts those. */
export function whyNever(
  address: Address,
  never: readonly Address[],
  min: MinPrefix,
): string | undefined {
  const floor = address.family === 'inet4' ? min.ipv4 : min.ipv6
  if (address.prefix < floor) return `range is wider than min_prefix /${floor}`
  for (const entry of never) {
    if (overlaps(entry, address)) return `overlaps "${entry.text}", which is in never_ban`
  }
  return undefined
}

function unreadable(input: string): Failure {
  return new Failure(EXIT.input, `Cannot read address ${JSON.stringify(input.slice(0, 80))}`)
}

/**
 * The bits of a dotted quad without leading zeros, or undefined. A loop over the characters: a sync
 * of 100,000 leases reads each address several times, and this is three times as fast as node:net.
 */
function ipv4Bits(host: string): number | undefined {
  let bits = 0
  let part = -1
  let dots = 0
  for (let i = 0; i < host.length; i++) {
    const code = host.charCodeAt(i)
    if (code === 46) {
      if (part < 0 || ++dots > 3) return undefined
      bits = bits * 256 + part
      part = -1
    } else {
      if (code < 48 || code > 57 || part === 0) return undefined
      part = (part < 0 ? 0 : part * 10) + code - 48
      if (part > 255) return undefined
    }
  }
  return dots === 3 && part >= 0 ? bits * 256 + part : undefined
}

function ipv4(bits: number, prefix: number, input: string): Address {
  if (prefix > 32) throw unreadable(input)
  const net = prefix === 0 ? 0 : (bits & (-1 << (32 - prefix))) >>> 0
  const host = `${net >>> 24}.${(net >>> 16) & 255}.${(net >>> 8) & 255}.${net & 255}`
  return { text: prefix === 32 ? host : `${host}/${prefix}`, family: 'inet4', prefix, bits: net }
}

/**
 * The canonical form of an IPv6 address, or undefined if it is none. node:net accepts a zone index,
 * which names an interface of one machine and means nothing elsewhere. Its `isIPv6` would do as
 * well, but compiles a regular expression for 5 ms first (Node 20).
 */
function ipv6Text(host: string): string | undefined {
  if (!/^[0-9a-f:.]{2,45}$/i.test(host)) return undefined
  try {
    return new SocketAddress({ address: host, family: 'ipv6' }).address
  } catch {
    return undefined
  }
}

/** Bits of a valid IPv6 text; the last 32 may be written as an IPv4 address. */
function ipv6Bits(host: string): bigint {
  const text = host.replace(/[\d.]+\.\d+$/, (tail) => {
    const bits = ipv4Bits(tail) ?? 0
    return `${(bits >>> 16).toString(16)}:${(bits & 0xffff).toString(16)}`
  })
  const [head = '', tail] = text.split('::')
  const left = head ? head.split(':') : []
  const right = tail ? tail.split(':') : []
  const zeros = Array<string>(8 - left.length - right.length).fill('0')
  return [...left, ...zeros, ...right].reduce(
    (sum, group) => (sum << 16n) | BigInt(`0x${group}`),
    0n,
  )
}

function ipv6(bits: bigint, prefix: number, input: string): Address {
  if (prefix > 128) throw unreadable(input)
  if (bits >> 32n === 0xffffn) {
    if (prefix < 96) throw unreadable(input)
    return ipv4(Number(bits & 0xffffffffn), prefix - 96, input)
  }
  const shift = BigInt(128 - prefix)
  const net = (bits >> shift) << shift
  const groups = net.toString(16).padStart(32, '0').match(/.{4}/g) ?? []
  const host = ipv6Text(groups.join(':')) ?? ''
  return {
    text: prefix === 128 ? host : `${host}/${prefix}`,
    family: 'inet6',
    prefix,
    bits: net,
  }
}
