import { beforeEach } from 'node:test'
import type { Backend, Chain, Change, Entry } from '../../firewall-side/lib/backend.ts'
import type { FirewallConfig } from '../../firewall-side/lib/config.ts'
import { parseAddress } from '../../scripts/lib/address.ts'
import { standInTools, type Tools } from './told.ts'

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

const STANDING = [SSHD]

/** A change of nothing, with that chain there: a test names what is to be different from it. */
export const NO_CHANGE: Change = {
  chains: { before: STANDING, now: STANDING },
  direct: 'sshd',
  enter: [],
  extend: [],
  leave: [],
  free: [],
  load: [],
}

/** What `iptables -S` prints once a family was told lines, on a machine with an empty INPUT. */
export function rulesOf(told: string[], tool = 'iptables'): string {
  const from = told.findIndex((line) => line.startsWith(`${tool}-restore`))
  const to = told.indexOf('COMMIT', from)
  const lines = told.slice(from + 2, to).map((line) =>
    line
      .replace(/^:(\S+) .*/, '-N $1')
      .replace(/^-I INPUT 1 /, '-A INPUT ')
      .replace(/ -s (\d[\d.]+) /, ' -s $1/32 '),
  )
  return ['-P INPUT ACCEPT', ...lines, ''].join('\n')
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
