import { createLab, type Lab, type LabOptions } from './lab.ts'
import type { Machine } from './machine.ts'

/**
 * The usual lab: attackers outside, firewalls, servers inside, and a management network between
 * servers and firewalls that no attack passes through.
 *
 * ```
 *  attacker1 --- outside --- edge1 --- inside --- web1
 *  attacker2 ---/       \--- edge2 ---/      \--- web2
 *                              \----- mgmt -------/
 * ```
 */
export interface Perimeter extends Lab {
  /** `attacker1`, `attacker2`, ... */
  attackers: Machine[]
  /** `edge1`, `edge2`, ...; packets go through the first until `routeVia` says otherwise. */
  firewalls: Machine[]
  /** `web1`, `web2`, ... */
  servers: Machine[]
  /** The first of each. */
  attacker: Machine
  firewall: Machine
  server: Machine
  /**
   * Sends the packets between attackers and servers through another firewall, both ways. A machine
   * that reboots goes back to the first.
   */
  routeVia(firewall: Machine): Promise<void>
}

export interface PerimeterOptions extends LabOptions {
  /** How many; one if left out. */
  attackers?: number
  firewalls?: number
  servers?: number
}

type Segment = 'outside' | 'inside' | 'mgmt'
type Role = 'attacker' | 'edge' | 'web'

const NETWORKS = {
  outside: { inet4: '203.0.113.', inet6: '2001:db8:a::' },
  inside: { inet4: '192.0.2.', inet6: '2001:db8:b::' },
  mgmt: { inet4: '198.51.100.', inet6: '2001:db8:c::' },
} as const

/** The last number of a machine's addresses, in both families: the first edge is `.1` and `::1`. */
const FIRST: Record<Role, number> = { edge: 1, web: 11, attacker: 101 }

/** Where the firewalls' default route leads: nobody is there, and surely not an attacker. */
const PROVIDER = 254

/**
 * The address of a machine of a perimeter: `addressOf('web1', 'inside')` is `192.0.2.11`,
 * `addressOf('edge2', 'mgmt', 'inet6')` is `2001:db8:c::2`.
 */
export function addressOf(
  machine: string,
  segment: Segment,
  family: 'inet4' | 'inet6' = 'inet4',
): string {
  const [, role, number] = /^([a-z]+)(\d+)$/.exec(machine) ?? []
  const first = FIRST[role as Role] ?? 0
  return `${NETWORKS[segment][family]}${first + Number(number) - 1}`
}

/** Builds the lab. Any attacker may take further addresses of 203.0.113.0/24 or 2001:db8:a::/64. */
export async function createPerimeter(options: PerimeterOptions = {}): Promise<Perimeter> {
  const names = {
    attackers: numbered('attacker', options.attackers),
    firewalls: numbered('edge', options.firewalls),
    servers: numbered('web', options.servers),
  }
  const lab = await createLab(options)
  try {
    const machines = (role: keyof typeof names) => Promise.all(names[role].map((name) => add(name)))
    const add = (name: string) => lab.machine(name, planOf(name))
    const [attackers, firewalls, servers] = await Promise.all([
      machines('attackers'),
      machines('firewalls'),
      machines('servers'),
    ])
    const everyone = [...attackers, ...firewalls, ...servers]
    await Promise.all(everyone.map((machine) => nameNeighbours(machine, names)))
    const [attacker, firewall, server] = [attackers[0], firewalls[0], servers[0]]
    if (!attacker || !firewall || !server) throw new Error('A perimeter needs one of each')
    const routeVia = (edge: Machine) => reroute([...attackers, ...servers], edge)
    return { ...lab, attackers, firewalls, servers, attacker, firewall, server, routeVia }
  } catch (error) {
    await lab.close()
    throw error
  }
}

function numbered(role: Role, count = 1): string[] {
  return Array.from({ length: count }, (_, index) => `${role}${index + 1}`)
}

function planOf(name: string) {
  const nic = (segment: Segment) => [
    `${addressOf(name, segment)}/24`,
    `${addressOf(name, segment, 'inet6')}/64`,
  ]
  if (name.startsWith('attacker')) {
    return { nics: { outside: nic('outside') }, routes: routesOf(name, 'edge1') }
  }
  if (name.startsWith('web')) {
    const nics = { inside: nic('inside'), mgmt: nic('mgmt') }
    return { nics, routes: routesOf(name, 'edge1') }
  }
  const nics = { outside: nic('outside'), inside: nic('inside'), mgmt: nic('mgmt') }
  const { inet4, inet6 } = NETWORKS.outside
  const routes = [`default via ${inet4}${PROVIDER}`, `default via ${inet6}${PROVIDER}`]
  return { nics, routes, forward: true }
}

/** How an attacker finds the servers, and a server everybody. */
function routesOf(name: string, edge: string): string[] {
  if (name.startsWith('attacker')) {
    return [
      `${NETWORKS.inside.inet4}0/24 via ${addressOf(edge, 'outside')}`,
      `${NETWORKS.inside.inet6}/64 via ${addressOf(edge, 'outside', 'inet6')}`,
    ]
  }
  return [
    `default via ${addressOf(edge, 'inside')}`,
    `default via ${addressOf(edge, 'inside', 'inet6')}`,
  ]
}

async function reroute(machines: readonly Machine[], edge: Machine): Promise<void> {
  await Promise.all(
    machines.map(async (machine) => {
      const lines = routesOf(machine.name, edge.name).map((route) => `route replace ${route}\n`)
      await machine.run(['ip', '-batch', '-'], { input: lines.join('') })
    }),
  )
}

/** Server and firewall know each other by name, on the management network. */
async function nameNeighbours(machine: Machine, names: Record<string, string[]>): Promise<void> {
  if (machine.name.startsWith('attacker')) return
  const known = [...(names.firewalls ?? []), ...(names.servers ?? [])]
  const lines = known.map((name) => `${addressOf(name, 'mgmt')} ${name}\n`)
  await machine.sh('cat >>/etc/hosts', { input: lines.join('') })
}
