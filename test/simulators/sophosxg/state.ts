/** A host object; fields as on the wire. Its groups are those that have it as a member. */
export interface HostObject {
  Name: string
  Description: string
  IPFamily: string
  HostType: string
  IPAddress?: string
  Subnet?: string
  StartIPAddress?: string
  EndIPAddress?: string
  ListOfIPAddresses?: string
}

export interface GroupObject {
  Name: string
  Description: string
  IPFamily: string
  members: Set<string>
  /** After a Remove that named members (28): the next update answers 500. */
  broken: boolean
}

export interface Box {
  user: string
  pass: string
  hosts: Map<string, HostObject>
  groups: Map<string, GroupObject>
  /** Names of hosts and groups that a firewall rule uses. */
  rules: Set<string>
}

/** A box as it leaves the factory, with an admin's own objects: a full Get is never empty (13). */
export function seedBox(account: { user: string; pass: string }): Box {
  const { user, pass } = account
  const box: Box = { user, pass, hosts: new Map(), groups: new Map(), rules: new Set() }
  const system = { Description: '', HostType: 'System Host' }
  addHost(box, { ...system, Name: '##ALL_RW', IPFamily: 'IPv4' })
  addHost(box, { ...system, Name: '##ALL_SSLVPN_RW6', IPFamily: 'IPv6' })
  addHost(box, { ...system, Name: '#Port1', IPFamily: 'IPv4' })
  const lan = { Name: 'Office LAN', IPAddress: '198.51.100.0', Subnet: '255.255.255.0' }
  addHost(box, { ...lan, Description: 'head office', IPFamily: 'IPv4', HostType: 'Network' })
  const mail = { Name: 'mail & web', IPAddress: '198.51.100.25', HostType: 'IP' }
  addHost(box, { ...mail, Description: '', IPFamily: 'IPv4' })
  addGroup(box, 'Servers', 'IPv4', ['mail & web'])
  return box
}

export function addHost(box: Box, host: HostObject, groups: string[] = []): void {
  box.hosts.set(host.Name, host)
  for (const name of groups) box.groups.get(name)?.members.add(host.Name)
}

export function addGroup(box: Box, name: string, family: string, members: string[] = []): void {
  const group = { Name: name, Description: '', IPFamily: family, broken: false }
  box.groups.set(name, { ...group, members: new Set(members) })
}

export function groupsWith(box: Box, host: string): string[] {
  return [...box.groups.values()].filter((g) => g.members.has(host)).map((g) => g.Name)
}

/** Everything on the box as text, to see whether anything at all changed. */
export function dump(box: Box): string {
  const hosts = [...box.hosts.values()].map((host) => JSON.stringify(host))
  const groups = [...box.groups.values()].map((group) =>
    JSON.stringify({ ...group, members: [...group.members].sort() }),
  )
  return [...hosts.sort(), ...groups.sort()].join('\n')
}
