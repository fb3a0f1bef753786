import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nftables } from '../../../firewall-side/lib/nftables.ts'
import { ENTRIES, overStandIns, SSHD } from '../../lib/backend.ts'

const { backend, tools, apply } = overStandIns(nftables)
const table = 'inet fail2ban-perimeter'
const chain = `${table} fail2ban-sshd`

test('a load empties all sets of a chain and fills them in one transaction', async () => {
  assert.deepEqual(await apply({ load: [{ chain: SSHD, entries: ENTRIES }] }), [
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
  const said = await apply({ chains: [], drop: [SSHD] })
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
  const said = await tools.told(() =>
    backend.rebuild({ chains: [SSHD], entries: ENTRIES, never: [] }),
  )
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
    return backend.count([SSHD])
  }
  assert.deepEqual(await count([...sets, ...jumps, ...drops]), new Map([['sshd', 2]]))
  assert.equal(await count([...sets, ...jumps.slice(1), ...drops]), undefined)
  assert.equal(await count([...sets, ...jumps, ...drops.slice(1)]), undefined)
})
