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
 * its default gateways and resolvers, and what was configured. Private ranges are not in it by
 * themselves, since people protect internal networks too.
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
  for (const entry of [...ownAddresses(families), ...gateways, ...resolvers()]) {
    try {
      add(entry)
    } catch {
      // What the system calls an address and we cannot read (a zone, say) cannot be banned either.
    }
  }
  return [...list.values()]
}

/**
 * The addresses of the configured targets, as far as the configuration names addresses: a host name
 * is not looked up, since that would make every ban wait for the name service.
 */
export function targetAddresses(
  config: Pick<Config, 'firewalls' | 'sophosxg' | 'fortigate'>,
): string[] {
  const urls = [
    ...config.sophosxg.map((target) => target.url),
    config.fortigate?.push?.url,
  ].flatMap((url) => url ?? [])
  const hosts = [
    ...config.firewalls.map((firewall) => firewall.host),
    ...urls.map((url) => new URL(url).hostname.replace(/^\[|\]$/g, '')),
  ]
  return hosts.filter((host) => isIP(host) !== 0)
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
