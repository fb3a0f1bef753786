import assert from 'node:assert/strict'
import { beforeEach, test } from 'node:test'
import type { Change } from '../../../firewall-side/lib/backend.ts'
import type { FirewallConfig } from '../../../firewall-side/lib/config.ts'
import { nftables } from '../../../firewall-side/lib/nftables.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { standInTools } from '../../lib/told.ts'

const tools = standInTools()
beforeEach(() => tools.show({}))

const config = { hooks: ['INPUT'], blocktype: 'REJECT' } as unknown as FirewallConfig
const backend = nftables(config)
const table = 'inet fail2ban-perimeter'
const chain = `${table} fail2ban-sshd`
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

test('a load empties all sets of a chain and fills them in one transaction', async () => {
  assert.deepEqual(await apply({ load: [{ chain: sshd, entries }] }), [
    'nft -f -',
    `flush set ${chain}/inet4`,
    `flush set ${chain}/inet6`,
    `flush set ${chain}/inet4/24`,
    `add element ${chain}/inet4 { 203.0.113.5 }`,
    `add element ${chain}/inet4/24 { 203.0.113.0 }`,
    `add element ${chain}/inet6 { 2001:db8::5 }`,
  ])
})

test('a chain goes after the jumps into it, and its sets after the chain', async () => {
  const said = await apply({ chains: [], drop: [sshd] })
  assert.deepEqual(said.slice(5), [
    `flush chain ${table} input`,
    `add rule ${table} input ip saddr @never-ban/4 accept`,
    `add rule ${table} input ip6 saddr @never-ban/6 accept`,
    `flush chain ${chain}`,
    `delete chain ${chain}`,
    `delete set ${chain}/inet4`,
    `delete set ${chain}/inet6`,
    `delete set ${chain}/inet4/24`,
  ])
})

test('rebuild() begins with no table, in the same transaction, and rejects if it should', async () => {
  const said = await tools.told(() => backend.rebuild({ chains: [sshd], entries, never: [] }))
  assert.deepEqual(said.slice(0, 4), [
    'nft -f -',
    `add table ${table}`,
    `delete table ${table}`,
    `add table ${table}`,
  ])
  const rule = `add rule ${chain} ip saddr & 255.255.255.0 @fail2ban-sshd/inet4/24 reject`
  assert.ok(said.includes(rule))
  assert.equal(said.filter((line) => line.startsWith('nft')).length, 1)
})

test('count() trusts only a table with every chain, rule and jump', async () => {
  const rule = (name: string) => ({ rule: { chain: name } })
  const sets = ['inet4', 'inet4/24'].map((width) => ({
    set: { name: `fail2ban-sshd/${width}`, elem: ['203.0.113.5'] },
  }))
  const jumps = Array.from({ length: 3 }, () => rule('input'))
  const drops = Array.from({ length: 3 }, () => rule('fail2ban-sshd'))
  const count = (nftables: unknown[]) => {
    tools.show({ table: JSON.stringify({ nftables }) })
    return backend.count([sshd])
  }
  assert.deepEqual(await count([...sets, ...jumps, ...drops]), new Map([['sshd', 2]]))
  assert.equal(await count([...sets, ...jumps.slice(1), ...drops]), undefined)
  assert.equal(await count([...sets, ...jumps, ...drops.slice(1)]), undefined)
})
