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

export const PROTOCOLS = ['tcp', 'udp', 'sctp', 'dccp', 'udplite', 'icmp', 'all'] as const
export type Protocol = (typeof PROTOCOLS)[number]

const PORTLESS = new Set<Protocol>(['icmp', 'all'])
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}$/

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
 * Reads what Fail2Ban passes as `<port>`: `ssh`, `22,80`, `1000:2000`, `0:65535`, `all`.
 *
 * @returns merged ranges in ascending order
 * @throws Failure 65
 */
export function parsePorts(text: string): PortRange[] | 'all' {
  if (text === 'all') return 'all'
  const ranges = text.split(',').map((part) => parseRange(part.trim()))
  return mergeRanges(ranges)
}

/** Reads what Fail2Ban passes as `<protocol>`: one word or a list. @throws Failure 65 */
export function parseProtocols(text: string): Protocol[] {
  const words = text.split(',').map((word) => word.trim().toLowerCase())
  for (const word of words) {
    if (!isProtocol(word)) {
      throw new Failure(
        EXIT.input,
        `Cannot read protocol ${quote(word)}: one of ${PROTOCOLS.join(', ')}`,
      )
    }
  }
  return [...new Set(words as Protocol[])]
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

function parseRange(part: string): PortRange {
  const [first = '', last = first, ...rest] = part.split(':')
  const from = portNumber(first)
  const to = portNumber(last)
  if (rest.length > 0 || from > to) throw unreadable(part)
  return [from, to]
}

function portNumber(word: string): number {
  if (/^\d{1,5}$/.test(word)) {
    const port = Number(word)
    if (port <= 65535) return port
  } else if (NAME.test(word)) {
    // Every object has a `constructor`, which is no port.
    const port = Object.hasOwn(WELL_KNOWN, word) ? WELL_KNOWN[word] : lookUp(word)
    if (port !== undefined) return port
  }
  throw unreadable(word)
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
