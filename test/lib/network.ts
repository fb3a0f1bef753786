import { $ } from 'zx'
import type { Machine } from './machine.ts'

/** What a machine is plugged into, and what it does with packets. */
export interface NetworkPlan {
  /** Segment to addresses with prefix length: `{ inside: ['192.0.2.11/24', '2001:db8:b::11/64'] }` */
  nics: Record<string, string[]>
  /** As `ip route add` takes them: `default via 192.0.2.1`. */
  routes?: string[]
  /** Passes packets on between its segments. */
  forward?: boolean
}

/** A switch with one segment per name; every machine has at most one cable into each. */
export interface Network {
  /** Puts the machine's cables in and configures its side. */
  connect(machine: Machine, plan: NetworkPlan): Promise<void>
  disconnect(machine: Machine): Promise<void>
  /**
   * Loses every packet between a machine and a segment, silently, as when something on the way is
   * dead: the machine still sees its link up. Lasts over a reboot, until `heal`.
   */
  cut(machine: Machine, segment: string): Promise<void>
  heal(machine: Machine, segment: string): Promise<void>
}

interface Cable {
  machine: Machine
  segment: string
  /** Name of the switch's end; new with each boot. */
  port: string
}

/** @param pid a process in the switch's network namespace */
export function createNetwork(pid: number): Network {
  const segments: string[] = []
  const cuts = new Set<string>()
  let cables: Cable[] = []
  let ports = 0
  let last: Promise<unknown> = Promise.resolve()

  /** One after another: machines start at once, and the first makes the bridge that all need. */
  function ip(commands: readonly string[]): Promise<void> {
    const next = last.then(() => batch(pid, commands))
    last = next.catch(() => {})
    return next
  }

  /** The segment's bridge, with the commands that make it when it is new. */
  function bridgeOf(segment: string): { bridge: string; commands: string[] } {
    const bridge = `segment${segments.indexOf(segment)}`
    if (segments.includes(segment)) return { bridge, commands: [] }
    const name = `segment${segments.push(segment) - 1}`
    // Snooping delays multicast, which IPv6 needs to find neighbours.
    const add = `link add ${name} type bridge mcast_snooping 0`
    return { bridge: name, commands: [add, `link set ${name} up`] }
  }

  function plugIn(machine: Machine, segment: string): string[] {
    const port = `port${++ports}`
    cables.push({ machine, segment, port })
    const { bridge, commands } = bridgeOf(segment)
    const mac = macOf(machine.name, segment)
    const peer = `peer name ${segment} address ${mac} netns ${machine.pid}`
    const master = cuts.has(keyOf(machine, segment)) ? '' : `master ${bridge}`
    return [...commands, `link add ${port} type veth ${peer}`, `link set ${port} ${master} up`]
  }

  async function patch(machine: Machine, segment: string, master: string): Promise<void> {
    const cable = cables.find((one) => one.machine === machine && one.segment === segment)
    if (cable) await ip([`link set ${cable.port} ${master}`])
  }

  return {
    async connect(machine, plan) {
      await ip(Object.keys(plan.nics).flatMap((segment) => plugIn(machine, segment)))
      await configure(machine, plan)
    },
    async disconnect(machine) {
      const own = cables.filter((cable) => cable.machine === machine)
      cables = cables.filter((cable) => cable.machine !== machine)
      await ip(own.map(({ port }) => `link delete ${port}`))
    },
    async cut(machine, segment) {
      cuts.add(keyOf(machine, segment))
      await patch(machine, segment, 'nomaster')
    },
    async heal(machine, segment) {
      cuts.delete(keyOf(machine, segment))
      await patch(machine, segment, `master ${bridgeOf(segment).bridge}`)
    },
  }
}

/** Gives a running machine more addresses on a segment: an attacker has many. */
export async function addAddresses(
  machine: Machine,
  segment: string,
  addresses: readonly string[],
): Promise<void> {
  const lines = addresses.map((address) => addAddress(address, segment))
  await machine.run(['ip', '-batch', '-'], { input: `${lines.join('\n')}\n` })
}

async function configure(machine: Machine, plan: NetworkPlan): Promise<void> {
  const lines = Object.entries(plan.nics).flatMap(([segment, addresses]) => [
    `link set ${segment} up`,
    ...addresses.map((address) => addAddress(address, segment)),
  ])
  const routes = (plan.routes ?? []).map((route) => `route add ${route}`)
  const forward = plan.forward ? FORWARD : ''
  await machine.sh(`${forward}ip -batch -`, { input: `${[...lines, ...routes].join('\n')}\n` })
}

const FORWARD = `echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
`

function addAddress(address: string, device: string): string {
  return `addr add ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`
}

async function batch(pid: number, commands: readonly string[]): Promise<void> {
  if (commands.length === 0) return
  const input = `${commands.join('\n')}\n`
  await $({ input, quiet: true, cwd: '/' })`nsenter -t ${pid} -n ip -batch -`
}

function keyOf(machine: Machine, segment: string): string {
  return `${machine.name} ${segment}`
}

/** The same card has the same number after a reboot, so neighbours need not learn it anew. */
function macOf(...words: string[]): string {
  let sum = 7
  for (const char of words.join(' ')) sum = (sum * 31 + char.charCodeAt(0)) >>> 0
  const bytes = sum.toString(16).padStart(8, '0').match(/../g) ?? []
  return ['02', '00', ...bytes].join(':')
}
