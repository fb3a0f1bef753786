import { beforeEach } from 'node:test'
import type { Backend, Chain, Change, Entry } from '../../firewall-side/lib/backend.ts'
import type { FirewallConfig } from '../../firewall-side/lib/config.ts'
import { parseAddress } from '../../scripts/lib/address.ts'
import { standInTools, type Tools } from './told.ts'

/** A change of nothing: a test names what is to be different from it. */
export const NO_CHANGE: Change = {
  fresh: [],
  drop: [],
  enter: [],
  extend: [],
  leave: [],
  load: [],
}

/** The chain of a jail that protects all of TCP, with one width of ranges in it. */
export const SSHD: Chain = {
  jail: 'sshd',
  services: [{ protocol: 'tcp', ports: 'all' }],
  widths: ['inet4/24'],
}

/** What that chain blocks for good: an address, a range, an address of the other family. */
export const ENTRIES: Entry[] = ['203.0.113.5', '203.0.113.0/24', '2001:db8::5'].map((text) => ({
  address: parseAddress(text),
  jail: 'sshd',
  expires: 0,
}))

const LAST = '-A fail2ban-sshd -m comment --comment "fail2ban-perimeter: sshd" -j RETURN'
const JUMP = 'INPUT -p tcp -m comment --comment fail2ban-perimeter -j fail2ban-sshd'
/** What iptables knows of that chain, and what it is told when the chain goes. */
export const RULES = {
  /** The rule that each of our chains ends with. */
  last: LAST,
  /** The jump into it, behind `-A`, `-I` or `-D`. */
  jump: JUMP,
  /** The whole filter table with the chain, empty, as `-S` prints it. */
  all: `-P INPUT ACCEPT\n-N fail2ban-sshd\n${LAST}\n-A ${JUMP}\n`,
  gone: [`-D ${JUMP}`, '-F fail2ban-sshd', '-X fail2ban-sshd'],
}

/** A backend that rejects at INPUT, and the stand-ins that it talks to. */
export interface ToldBackend {
  backend: Backend
  tools: Tools
  /** What the tools are told when so much is to be different. */
  apply(change: Partial<Change>): Promise<string[]>
}

/** For the tests of this file; before each of them the packet filter is empty. */
export function overStandIns(make: (config: FirewallConfig) => Backend): ToldBackend {
  const tools = standInTools()
  beforeEach(() => tools.show({}))
  const backend = make({ hooks: ['INPUT'], blocktype: 'REJECT' } as unknown as FirewallConfig)
  const apply = (change: Partial<Change>): Promise<string[]> =>
    tools.told(() => backend.apply({ ...NO_CHANGE, ...change }))
  return { backend, tools, apply }
}
