import assert from 'node:assert/strict'
import { beforeEach, test } from 'node:test'
import type { Change } from '../../../firewall-side/lib/backend.ts'
import type { FirewallConfig } from '../../../firewall-side/lib/config.ts'
import { ipset } from '../../../firewall-side/lib/ipset.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { standInTools } from '../../lib/told.ts'

const tools = standInTools()
beforeEach(() => tools.show({}))

const config = { hooks: ['INPUT'], blocktype: 'REJECT' } as unknown as FirewallConfig
const backend = ipset(config)
const sshd = {
  jail: 'sshd',
  services: [{ protocol: 'tcp' as const, ports: 'all' as const }],
  widths: ['inet4/24'],
}
const entries = ['203.0.113.5', '203.0.113.0/24', '2001:db8::5'].map((text) => ({
  address: parseAddress(text),
  jail: 'sshd',
  expires: 0,
}))

function apply(change: Partial<Change>): Promise<string[]> {
  const none = { fresh: [], drop: [], enter: [], extend: [], leave: [], load: [] }
  return tools.told(() => backend.apply({ ...none, ...change }))
}

const LAST = '-A fail2ban-sshd -m comment --comment "fail2ban-perimeter: sshd" -j RETURN'
const JUMP = 'INPUT -p tcp -m comment --comment fail2ban-perimeter -j fail2ban-sshd'
const OURS = `-P INPUT ACCEPT\n-N fail2ban-sshd\n${LAST}\n-A ${JUMP}\n`
const GONE = [`-D ${JUMP}`, '-F fail2ban-sshd', '-X fail2ban-sshd']
const OPTIONS = 'timeout 0 maxelem 4194304'

/** Fills a set beside the one in use and swaps the two. */
function swapped(set: string, ...elements: string[]): string[] {
  const digit = set.slice(-1)
  return [
    `create f2b-swap-${digit} hash:net family inet${digit === '4' ? '' : '6'} ${OPTIONS}`,
    `flush f2b-swap-${digit}`,
    ...elements.map((element) => `add f2b-swap-${digit} ${element}`),
    `swap f2b-swap-${digit} ${set}`,
    `destroy f2b-swap-${digit}`,
  ]
}

test('a new chain comes after its sets, and never-ban goes first in it', async () => {
  const never = [parseAddress('192.0.2.1')]
  const said = await apply({ chains: [sshd], fresh: ['sshd'], never })
  const rules = (tool: string, digit: number): string[] => [
    `${tool}-restore -w 5 --noflush`,
    '*filter',
    ':fail2ban-sshd - [0:0]',
    `-A fail2ban-sshd -m set --match-set f2b-never-${digit} src -j RETURN`,
    `-A fail2ban-sshd -m set --match-set fail2ban-sshd-${digit} src -j REJECT`,
    LAST,
    `-I ${JUMP.replace('INPUT', 'INPUT 1')}`,
    'COMMIT',
  ]
  assert.deepEqual(said, [
    'ipset -exist restore',
    `create f2b-never-4 hash:net family inet ${OPTIONS}`,
    `create f2b-never-6 hash:net family inet6 ${OPTIONS}`,
    `create fail2ban-sshd-4 hash:net family inet ${OPTIONS}`,
    `create fail2ban-sshd-6 hash:net family inet6 ${OPTIONS}`,
    ...rules('iptables', 4),
    ...rules('ip6tables', 6),
    'ipset -exist restore',
    ...swapped('f2b-never-4', '192.0.2.1'),
    ...swapped('f2b-never-6'),
  ])
})

test('a load fills sets beside those in use and swaps them', async () => {
  assert.deepEqual(await apply({ load: [{ chain: sshd, entries }] }), [
    'ipset -exist restore',
    ...swapped('fail2ban-sshd-4', '203.0.113.5 timeout 0', '203.0.113.0/24 timeout 0'),
    ...swapped('fail2ban-sshd-6', '2001:db8::5 timeout 0'),
  ])
})

test('a chain goes after the jumps into it, and its sets after the chain', async () => {
  tools.show({ rules: OURS, sets: 'fail2ban-sshd-4\nfail2ban-sshd-6\nf2b-never-4\ntheirs\n' })
  const said = (await apply({ chains: [], drop: [sshd] })).slice(3)
  assert.deepEqual(said, [
    ...['iptables', 'ip6tables'].flatMap((tool) => [
      `${tool}-restore -w 5 --noflush`,
      '*filter',
      ...GONE,
      'COMMIT',
    ]),
    'ipset -exist restore',
    'destroy fail2ban-sshd-4',
    'destroy fail2ban-sshd-6',
  ])
  const all = (await tools.told(() => backend.remove())).filter((line) => /^destroy/.test(line))
  const gone = ['fail2ban-sshd-4', 'f2b-never-4', 'fail2ban-sshd-6']
  assert.deepEqual(
    all,
    gone.map((set) => `destroy ${set}`),
  )
})

test('count() adds both sets of a chain, and trusts none if one is missing', async () => {
  const size = (digit: number): string =>
    `Name: fail2ban-sshd-${digit}\nType: hash:net\nNumber of entries: ${digit}\n`
  tools.show({ rules: OURS, sizes: `${size(4)}\n${size(6)}` })
  assert.deepEqual(await backend.count([sshd]), new Map([['sshd', 10]]))
  tools.show({ rules: OURS, sizes: size(4) })
  assert.equal(await backend.count([sshd]), undefined)
})
