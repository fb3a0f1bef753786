import { readFileSync } from 'node:fs'
import { EXIT, Failure } from './failure.ts'
import { quote } from './lease.ts'

/** First and last port of a range. */
export type PortRange = readonly [number, number]

/** What a chain blocks of one protocol: those ports, or everything. */
export interface Service {
  protocol: Protocol
  ports: PortRange[] | 'all'
}

export const PROTOCOLS = [
  'tcp',
  'udp',
  'sctp',
  'dccp',
  'udplite',
  'icmp',
  'esp',
  'ah',
  'gre',
  'all',
] as const
export type Protocol = (typeof PROTOCOLS)[number]

/** Ports and protocols of a jail as they travel: `22,80,1000:2000`, `tcp,udp`, or `all`. */
export interface Naming {
  ports: string
  protocol: string
}

const PORTLESS = new Set<Protocol>(['icmp', 'esp', 'ah', 'gre', 'all'])
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$/

/** What iptables, nftables, firewalld and others call a protocol, and its number. */
const ALIASES: Record<string, Protocol> = {
  any: 'all',
  ip: 'all',
  0: 'all',
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  33: 'dccp',
  47: 'gre',
  50: 'esp',
  51: 'ah',
  58: 'icmp',
  132: 'sctp',
  136: 'udplite',
  icmp6: 'icmp',
  icmpv6: 'icmp',
  'ipv6-icmp': 'icmp',
}

/** Service names of Fail2Ban's own jail.conf, for a machine without /etc/services. */
const WELL_KNOWN: Record<string, number> = {
  ssh: 22,
  'ftp-data': 20,
  ftp: 21,
  'ftps-data': 989,
  ftps: 990,
  telnet: 23,
  smtp: 25,
  smtps: 465,
  submissions: 465,
  submission: 587,
  domain: 53,
  http: 80,
  https: 443,
  pop3: 110,
  pop3s: 995,
  imap: 143,
  imap2: 143,
  imap3: 220,
  imaps: 993,
  sieve: 4190,
  ntp: 123,
  mysql: 3306,
  sip: 5060,
  'sip-tls': 5061,
}

/**
 * Reads ports and protocols in whatever notation a jail has them. Names of services become numbers:
 * the machine where they are used may know other names.
 *
 * @throws Failure 65
 */
export function readNaming(ports: string, protocol: string): Naming {
  const ranges = parsePorts(ports)
  const protocols = parseProtocols(protocol)
  return {
    ports: ranges === 'all' ? 'all' : ranges.map(rangeText).join(','),
    protocol: protocols.includes('all') ? 'all' : protocols.join(','),
  }
}

/**
 * Reads what Fail2Ban passes as `<port>`, in the notations of iptables, nftables and firewalld:
 * `ssh`, `22, 80`, `1000:2000`, `1000-2000`, `{ 22, 80 }`. Nothing, `all`, `any`: all ports.
 *
 * @returns merged ranges in ascending order
 * @throws Failure 65
 */
export function parsePorts(text: string): PortRange[] | 'all' {
  const words = wordsOf(text)
  if (!words) throw unreadable(text)
  const ranges = words.map((word): PortRange => (isAll(word) ? [0, 65535] : parseRange(word)))
  return words.length === 0 ? 'all' : mergeRanges(ranges)
}

/**
 * Reads what Fail2Ban passes as `<protocol>`: names or numbers, one or a list. Nothing means all.
 * `ipv6-icmp` is `icmp`, which is of the family of the address.
 *
 * @throws Failure 65
 */
export function parseProtocols(text: string): Protocol[] {
  const words = wordsOf(text) ?? [text]
  const protocols = words.map((word): Protocol => {
    const name = word.toLowerCase()
    const protocol = Object.hasOwn(ALIASES, name) ? ALIASES[name] : name
    if (protocol !== undefined && isProtocol(protocol)) return protocol
    const known = PROTOCOLS.join(', ')
    throw new Failure(EXIT.input, `Cannot read protocol ${quote(word)}: one of ${known}`)
  })
  return words.length === 0 ? ['all'] : [...new Set(protocols)]
}

/**
 * What several pairs of ports and protocols block together, as few services as possible. `all` with
 * ports means those ports of TCP and of UDP; a port says nothing to ICMP.
 */
export function unionOfServices(pairs: Iterable<{ ports: string; protocol: string }>): Service[] {
  const union = new Map<Protocol, PortRange[] | 'all'>()
  for (const pair of pairs) {
    const ports = parsePorts(pair.ports)
    for (const word of parseProtocols(pair.protocol)) {
      const spread: Protocol[] = word === 'all' && ports !== 'all' ? ['tcp', 'udp'] : [word]
      for (const protocol of spread) {
        const known = union.get(protocol)
        const more = PORTLESS.has(protocol) ? 'all' : ports
        const both = known === 'all' || more === 'all' ? 'all' : [...(known ?? []), ...more]
        union.set(protocol, both === 'all' ? 'all' : mergeRanges(both))
      }
    }
  }
  if (union.has('all')) return [{ protocol: 'all', ports: 'all' }]
  return [...union].map(([protocol, ports]) => ({ protocol, ports }))
}

function isProtocol(word: string): word is Protocol {
  return (PROTOCOLS as readonly string[]).includes(word)
}

/**
 * The words of a list with blanks or commas, also between braces or quotes. The queue takes the same
 * characters (action.d/perimeter-queue.conf), and refuses others as this does.
 *
 * @returns undefined for what is not nothing, and has no word in it
 */
function wordsOf(text: string): string[] | undefined {
  const bare = text.replace(/^ *(["']?)(.*)\1 *$/, '$2').replace(/^ *\{(.*)\} *$/, '$1')
  const words = bare.split(/[ ,]+/).filter((word) => word !== '')
  return words.length === 0 && /[^ ]/.test(text) ? undefined : words
}

function isAll(word: string): boolean {
  return /^(all|any)$/i.test(word)
}

/** `22`, `ssh`, `1000:2000`, `1000:`, `:1000`, `1000-2000`; a name of a service may have dashes. */
function parseRange(word: string): PortRange {
  const single = portNumber(word)
  if (single !== undefined) return [single, single]
  const [first = '', last = '', ...more] = word.split(':')
  if (word.includes(':') && more.length === 0 && word !== ':') {
    return rangeOf(
      word,
      first === '' ? 0 : portNumber(first),
      last === '' ? 65535 : portNumber(last),
    )
  }
  for (const { index } of word.matchAll(/-/g)) {
    const from = portNumber(word.slice(0, index))
    const to = portNumber(word.slice(index + 1))
    if (from !== undefined && to !== undefined) return rangeOf(word, from, to)
  }
  throw unreadable(word)
}

function rangeOf(word: string, from: number | undefined, to: number | undefined): PortRange {
  if (from === undefined || to === undefined || from > to) throw unreadable(word)
  return [from, to]
}

function rangeText([from, to]: PortRange): string {
  return from === to ? String(from) : `${from}:${to}`
}

function portNumber(word: string): number | undefined {
  if (/^\d+$/.test(word))
    return word.length <= 5 && Number(word) <= 65535 ? Number(word) : undefined
  if (!NAME.test(word)) return undefined
  // Every object has a `constructor`, which is no port.
  return Object.hasOwn(WELL_KNOWN, word) ? WELL_KNOWN[word] : lookUp(word)
}

function lookUp(name: string): number | undefined {
  let services = ''
  try {
    services = readFileSync('/etc/services', 'utf8')
  } catch {
    return undefined
  }
  for (const line of services.split('\n')) {
    const [official, port, ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/)
    if (port && (official === name || aliases.includes(name))) return Number.parseInt(port, 10)
  }
  return undefined
}

function mergeRanges(ranges: readonly PortRange[]): PortRange[] | 'all' {
  const merged: [number, number][] = []
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = merged.at(-1)
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to)
    else merged.push([from, to])
  }
  const [first] = merged
  return first && first[0] <= 1 && first[1] === 65535 ? 'all' : merged
}

function unreadable(text: string): Failure {
  return new Failure(EXIT.input, `Cannot read port ${quote(text)}`)
}
