import { createHash } from 'node:crypto'
import { type Address, type Family, isSingle, parseAddress } from '../address.ts'
import { formatLease, type Lease, NO_JAIL, parseLease } from '../lease.ts'
import { RELEASED } from '../ledger.ts'
import type { SophosXg } from '../settings/sophosxg.ts'
import type { Found } from './answer.ts'
import type { Entity } from './request.ts'

/** The longest name that the box takes (vendor page "Add IP Host"). */
const LONGEST_NAME = 60

/** What a Description of ours begins with; the rest is the line that `list` prints. */
const MARK = 'fail2ban-perimeter: '

export const FAMILY = { inet4: 'IPv4', inet6: 'IPv6' } as const

/** A host of ours as the box has it. */
export interface Host {
  name: string
  lease: Lease
  groups: string[]
  /** False if somebody changed the address by hand. */
  intact: boolean
}

/** The groups of a target, by family. */
export function groupsOf(settings: SophosXg): Record<Family, string> {
  return { inet4: settings.iphostgroup_name, inet6: settings.iphostgroup_name_v6 }
}

/**
 * The name of a lease's object: `<prefix><jail>_<address>@<owner>`. The owner is in it so that two
 * servers with the same prefix never write each other's object, without having to look first.
 * A longer name than the box takes ends in a hash instead.
 */
export function nameOf(prefix: string, lease: Pick<Lease, 'address' | 'jail' | 'owner'>): string {
  const { address, jail, owner } = lease
  const name = `${prefix}${jail}_${address.text}@${owner}`
  if (name.length <= LONGEST_NAME) return name
  const hash = createHash('sha256').update(`${jail} ${address.text} ${owner}`).digest('hex')
  const room = LONGEST_NAME - prefix.length - 17
  return `${prefix}${jail.slice(0, room)}~${hash.slice(0, 16)}`
}

/** The object of a lease, member of the given groups. */
export function hostEntity(name: string, lease: Lease, groups: string[]): Entity {
  const { address } = lease
  return {
    Name: name,
    IPFamily: FAMILY[address.family],
    Description: MARK + formatLease(lease),
    HostType: isSingle(address) ? 'IP' : 'Network',
    // An empty list releases the host from every group; a missing one would do the same.
    HostGroupList: groups.length > 0 ? { HostGroup: groups } : '',
    IPAddress: address.text.split('/')[0],
    ...(!isSingle(address) && { Subnet: subnetOf(address) }),
  }
}

/** A group as we make it. One group holds one family. */
export function groupEntity(name: string, family: Family): Entity {
  return {
    Name: name,
    Description: 'Banned by Fail2Ban. Use it in rules; its members come and go.',
    IPFamily: FAMILY[family],
  }
}

/**
 * The lease of a host, if it is ours: our prefix, our owner, and the very name that we give to what
 * its Description says. So a longer prefix (`f2b_` and `f2b_web2_`) never matches another's.
 */
export function readHost(settings: SophosXg, owner: string, found: Found): Host | undefined {
  const lease = leaseOf(settings, owner, found)
  if (!lease) return undefined
  return { name: found.name, lease, groups: found.groups, intact: isIntact(lease, found) }
}

/** The lease as an object that was let go has it: over. */
export function released(lease: Lease): Lease {
  return { ...lease, expires: RELEASED }
}

/** IPv4 as a dotted mask. For IPv6 no source proves a form; a prefix length is what clients send. */
function subnetOf(address: Address): string {
  if (address.family === 'inet6') return String(address.prefix)
  const bits = (-1 << (32 - address.prefix)) >>> 0
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join('.')
}

function leaseOf(settings: SophosXg, owner: string, found: Found): Lease | undefined {
  const prefix = settings.iphost_prefix
  if (!found.name.startsWith(prefix) || found.type === 'IPList') return undefined
  if (found.description.startsWith(MARK)) {
    const lease = attempt(() => parseLease(found.description.slice(MARK.length), owner))
    const mine = found.description.endsWith(` ${owner}`)
    return mine && lease && nameOf(prefix, lease) === found.name ? lease : undefined
  }
  const inGroup = Object.values(groupsOf(settings)).some((group) => found.groups.includes(group))
  return inGroup && found.description === '' ? undescribed(prefix, owner, found.name) : undefined
}

/**
 * A member of our group without Description: one that the original tool made (`<prefix><address>`)
 * or, where a firmware drops descriptions, one of ours.
 */
function undescribed(prefix: string, owner: string, name: string): Lease | undefined {
  const rest = name.slice(prefix.length)
  const plain = attempt(() => parseAddress(rest))
  if (plain) return { address: plain, jail: NO_JAIL, expires: 0, owner }
  const [, jail = '', text = '', named] = /^(.+)_([^_@]+)@(.+)$/.exec(rest) ?? []
  if (named !== owner) return undefined
  return attempt(() => parseLease(`${text} ${jail} 0 ${owner}`, owner))
}

function isIntact(lease: Lease, found: Found): boolean {
  const { address } = lease
  const wanted = hostEntity('', lease, [])
  const same = attempt(() => parseAddress(found.address))?.text === wanted.IPAddress
  if (isSingle(address)) return same && found.type === 'IP'
  const subnets = [wanted.Subnet, String(address.prefix)]
  return same && found.type === 'Network' && subnets.includes(found.subnet)
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
