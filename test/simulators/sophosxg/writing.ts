import { isIPv4, isIPv6 } from 'node:net'
import type { Faults } from './faults.ts'
import { type Box, type GroupObject, groupsWith, type HostObject } from './state.ts'

export type Tree = Record<string, unknown>

interface Outcome {
  code: number
  /** The field that is wrong, with 501. */
  params?: string
}

/** Text of an element, decoded, without the blanks that the box cuts off at the end (23). */
export function textOf(value: unknown): string {
  const text = typeof value === 'object' && value !== null ? (value as Tree)['#text'] : value
  return text === undefined ? '' : String(text).trimEnd()
}

/** Set IPHost: add, update, or (without operation) add, else update (17 to 24). */
export function writeHost(box: Box, body: Tree, operation: string, faults: Faults): Outcome {
  const name = textOf(body.Name)
  const known = box.hosts.get(name)
  if (known?.HostType === 'System Host') return { code: 528 }
  if (operation === 'add' && known) return { code: 502 }
  if (operation === 'update' && !known) return { code: Number(faults.updateMissing) }
  const host = readHost(body)
  const wrong = wrongField(host)
  if (wrong) return { code: 501, params: `/IPHost/${wrong}` }
  const groups = names(body, 'HostGroupList', 'HostGroup')
  if (groups.some((group) => box.groups.get(group) === undefined)) {
    return { code: Number(faults.unknownGroup), params: '/IPHost/HostGroupList/HostGroup' }
  }
  if (groups.some((group) => box.groups.get(group)?.IPFamily !== host.IPFamily)) {
    return { code: 501, params: '/IPHost/HostGroupList/HostGroup' }
  }
  if (faults.sameAddress === '503' && twinOf(box, host)) return { code: 503 }
  box.hosts.set(name, host)
  // Full replace (18): the groups that are not named lose the host, also foreign ones.
  for (const group of box.groups.values()) {
    if (groups.includes(group.Name)) group.members.add(name)
    else group.members.delete(name)
  }
  return { code: 200 }
}

/** Set IPHostGroup: replaces the whole entity (18); a broken one answers 500 (28). */
export function writeGroup(box: Box, body: Tree, operation: string): Outcome {
  const name = textOf(body.Name)
  const known = box.groups.get(name)
  if (operation === 'add' && known) return { code: 502 }
  if (operation === 'update' && !known) return { code: 526 }
  if (known?.broken) return { code: 500 }
  if (!isName(name)) return { code: 501, params: '/IPHostGroup/Name' }
  const IPFamily = textOf(body.IPFamily) || 'IPv4'
  const hosts = names(body, 'HostList', 'Host')
  if (hosts.some((host) => box.hosts.get(host)?.IPFamily !== IPFamily)) {
    return { code: 501, params: '/IPHostGroup/HostList/Host' }
  }
  const group: GroupObject = {
    Name: name,
    Description: textOf(body.Description),
    IPFamily,
    broken: false,
    members: new Set(hosts),
  }
  box.groups.set(name, group)
  return { code: 200 }
}

/** Remove by name (25 to 29). */
export function removeObject(
  box: Box,
  kind: string,
  name: string,
  body: Tree,
  faults: Faults,
): { code: number | string; wrote: boolean } {
  const group = kind === 'IPHostGroup' ? box.groups.get(name) : undefined
  const object = kind === 'IPHost' ? box.hosts.get(name) : group
  if (!object) return { code: faults.removeMissing, wrote: false }
  if (kind === 'IPHost' && box.hosts.get(name)?.HostType === 'System Host')
    return { code: 528, wrote: false }
  if (group && body.HostList !== undefined) {
    group.members.clear()
    group.broken = true
    return { code: 200, wrote: true }
  }
  const used = box.rules.has(name) || (kind === 'IPHost' && groupsWith(box, name).length > 0)
  if (used) return { code: Number(faults.removeReferenced), wrote: false }
  if (group) box.groups.delete(name)
  else box.hosts.delete(name)
  return { code: 200, wrote: true }
}

function readHost(body: Tree): HostObject {
  const host: HostObject = {
    Name: textOf(body.Name),
    Description: textOf(body.Description),
    IPFamily: textOf(body.IPFamily) || 'IPv4',
    HostType: textOf(body.HostType),
  }
  for (const field of [
    'IPAddress',
    'Subnet',
    'StartIPAddress',
    'EndIPAddress',
    'ListOfIPAddresses',
  ] as const) {
    if (body[field] !== undefined) host[field] = textOf(body[field])
  }
  return host
}

/** Validation (20). @returns the first field that is wrong */
function wrongField(host: HostObject): string | undefined {
  const isAddress = host.IPFamily === 'IPv6' ? isIPv6 : isIPv4
  const field = (text?: string): boolean => text !== undefined && isAddress(text)
  if (!isName(host.Name)) return 'Name'
  if (host.IPFamily !== 'IPv4' && host.IPFamily !== 'IPv6') return 'IPFamily'
  if (host.Description.length > 255) return 'Description'
  if (host.HostType === 'IP') return field(host.IPAddress) ? undefined : 'IPAddress'
  if (host.HostType === 'Network') {
    if (!field(host.IPAddress)) return 'IPAddress'
    return isSubnet(host) ? undefined : 'Subnet'
  }
  if (host.HostType === 'IPRange') {
    return field(host.StartIPAddress) && field(host.EndIPAddress) ? undefined : 'StartIPAddress'
  }
  if (host.HostType !== 'IPList') return 'HostType'
  const items = (host.ListOfIPAddresses ?? '').split(',')
  return items.length <= 1000 && items.every((item) => isAddress(item))
    ? undefined
    : 'ListOfIPAddresses'
}

function isSubnet(host: HostObject): boolean {
  const subnet = host.Subnet ?? ''
  return host.IPFamily === 'IPv4'
    ? isIPv4(subnet) && subnet.includes('.')
    : /^\d{1,3}$/.test(subnet)
}

function isName(name: string): boolean {
  return name.length > 0 && [...name].length <= 60 && /^[^#,][^,]*$/.test(name)
}

function twinOf(box: Box, host: HostObject): boolean {
  if (host.HostType !== 'IP') return false
  return [...box.hosts.values()].some((h) => h.Name !== host.Name && h.IPAddress === host.IPAddress)
}

/** Names in a list element; an empty or missing list has none. */
function names(body: Tree, list: string, item: string): string[] {
  const inside = body[list]
  if (typeof inside !== 'object' || inside === null) return []
  const value = (inside as Tree)[item]
  if (value === undefined) return []
  return (Array.isArray(value) ? value : [value]).map(textOf)
}
