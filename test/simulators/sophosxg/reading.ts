import { type Box, type GroupObject, groupsWith, type HostObject } from './state.ts'
import { type Tree, textOf } from './writing.ts'

const KEYS = ['Name', 'IPAddress']

/** The first key of the first filter; any other key is silently ignored (14). */
export function matches(key: Tree | undefined, object: HostObject | GroupObject): boolean {
  const field = String(key?.['@name'] ?? '')
  if (!key || !KEYS.includes(field) || (field === 'IPAddress' && 'members' in object)) return true
  const value = String((object as unknown as Tree)[field] ?? '')
  const wanted = textOf(key)
  const criteria = key['@criteria']
  if (criteria === 'like') return value.includes(wanted)
  return criteria === '!=' ? value !== wanted : value === wanted
}

/** Fields in the order of a real box; no HostGroupList for a host that is in no group (16). */
export function getHost(box: Box, host: HostObject): string {
  const groups = groupsWith(box, host.Name)
  const list = groups.map((name) => tag('HostGroup', name)).join('')
  return [
    tag('Name', host.Name),
    host.Description === '' ? '' : tag('Description', host.Description),
    tag('IPFamily', host.IPFamily),
    tag('HostType', host.HostType),
    groups.length > 0 ? `<HostGroupList>${list}</HostGroupList>` : '',
    tag('IPAddress', host.IPAddress),
    tag('Subnet', host.Subnet),
    tag('StartIPAddress', host.StartIPAddress),
    tag('EndIPAddress', host.EndIPAddress),
    tag('ListOfIPAddresses', host.ListOfIPAddresses),
  ].join('')
}

/** A group without members has no HostList and an empty Description (16). */
export function getGroup(group: GroupObject): string {
  const hosts = [...group.members].map((name) => tag('Host', name)).join('')
  const list = group.members.size > 0 ? `<HostList>${hosts}</HostList>` : ''
  const description =
    group.Description === '' ? '<Description/>' : tag('Description', group.Description)
  return `${tag('Name', group.Name)}${description}${list}${tag('IPFamily', group.IPFamily)}`
}

function tag(name: string, value: string | undefined): string {
  if (value === undefined) return ''
  const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;' }
  return `<${name}>${value.replace(/[&<>]/g, (c) => escapes[c] ?? c)}</${name}>`
}
