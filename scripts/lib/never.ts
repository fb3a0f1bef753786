import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { type Address, type Family, parseAddress } from './address.ts'
import type { Config } from './settings/schema.ts'

/** What nobody may ever ban: unspecified, loopback, link-local, multicast, broadcast. */
const ALWAYS = {
  inet4: ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '255.255.255.255'],
  inet6: ['::', '::1', 'fe80::/10', 'ff00::/8'],
}

/**
 * The never-ban list in force on this machine: what nobody may ban, this machine's own addresses,
 * its default gateways and resolvers, the targets' addresses, and what was configured. Private ranges
 * are not in it by themselves, since people protect internal networks too. No name is looked up here.
 *
 * @param configured addresses and ranges from `never_ban` and of the configured targets
 * @param families of what is to be banned: what the system has of others need not be looked at
 */
export function neverBan(
  configured: Iterable<string | Address>,
  families: readonly Family[] = ['inet4', 'inet6'],
): Address[] {
  const list = new Map<string, Address>()
  const add = (entry: string | Address): void => {
    const address = typeof entry === 'string' ? parseAddress(entry) : entry
    list.set(address.text, address)
  }
  for (const family of families) for (const entry of ALWAYS[family]) add(entry)
  for (const entry of configured) add(entry)
  const gateways = families.flatMap((family) => GATEWAYS[family]())
  const targets = Object.values(readResolved()).flatMap(({ addresses }) => addresses)
  for (const entry of [...ownAddresses(families), ...gateways, ...resolvers(), ...targets]) {
    try {
      add(entry)
    } catch {
      // What the system calls an address and we cannot read (a zone, say) cannot be banned either.
    }
  }
  return [...list.values()]
}

/** Where the addresses of named targets are kept, by name: see never-resolve.ts. */
export const RESOLVED = '/run/fail2ban-perimeter/targets.resolved'

/** Addresses of a name, and when they were found, epoch milliseconds. */
export type Resolved = Record<string, { at: number; addresses: string[] }>

/** The addresses of the configured targets, as far as the configuration names addresses. */
export function targetAddresses(config: Targets): string[] {
  return targetHosts(config).addresses
}

/** What the configured targets are reached at: addresses, and names, some of which only ssh knows. */
export function targetHosts(config: Targets): {
  addresses: string[]
  names: { name: string; ssh: boolean }[]
} {
  const urls = [
    ...[...config.sophosxg, ...config.mikrotik, ...config.opnsense].map(({ url }) => url),
    config.fortigate?.push?.url,
    config.threatjammer?.report_url,
    config.threatjammer?.api_url,
    config.abuseipdb?.url,
  ].flatMap((url) => url ?? [])
  const hosts = [
    ...urls.map((url) => new URL(url).hostname.replace(/^\[|\]$/g, '')),
    ...(config.net2ban ? [config.net2ban.global.server] : []),
  ]
  const firewalls = config.firewalls.map(({ host }) => host).filter((host) => host !== 'local')
  return {
    addresses: [...firewalls, ...hosts].filter((host) => isIP(host) !== 0),
    names: [
      ...firewalls.map((name) => ({ name, ssh: true })),
      ...hosts.map((name) => ({ name, ssh: false })),
    ].filter(({ name }, i, all) => isIP(name) === 0 && all.findIndex((o) => o.name === name) === i),
  }
}

type Targets = Pick<Config, 'firewalls' | 'sophosxg' | 'mikrotik' | 'opnsense' | 'fortigate'> &
  Partial<Pick<Config, 'threatjammer' | 'abuseipdb' | 'net2ban'>>

/** What the last sync has found of names. */
export function readResolved(): Resolved {
  try {
    return JSON.parse(readFileSync(RESOLVED, 'utf8'))
  } catch {
    return {}
  }
}

function ownAddresses(families: readonly Family[]): string[] {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
  return all.flatMap(({ family, address }) =>
    families.includes(family === 'IPv4' ? 'inet4' : 'inet6') ? address : [],
  )
}

/** Default routes as the kernel shows them: IPv4 as little-endian hex, IPv6 as 32 hex digits. */
const GATEWAYS: Record<Family, () => string[]> = {
  inet4: () =>
    readLines('/proc/net/route').flatMap((line) => {
      const [, destination, gateway] = line.split('\t')
      if (destination !== '00000000' || !gateway || gateway === '00000000') return []
      const bytes = gateway.match(/../g) ?? []
      return bytes
        .reverse()
        .map((hex) => Number.parseInt(hex, 16))
        .join('.')
    }),
  inet6: () =>
    readLines('/proc/net/ipv6_route').flatMap((line) => {
      const [destination, length, , , gateway = ''] = line.split(/\s+/)
      if (!/^0{32}$/.test(destination ?? '') || length !== '00' || /^0*$/.test(gateway)) return []
      return (gateway.match(/.{4}/g) ?? []).join(':')
    }),
}

function resolvers(): string[] {
  return readLines('/etc/resolv.conf').flatMap(
    (line) => /^nameserver\s+(\S+)/.exec(line)?.[1] ?? [],
  )
}

function readLines(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n')
  } catch {
    return []
  }
}
