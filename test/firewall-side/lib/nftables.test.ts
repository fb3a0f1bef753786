import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Chain } from '../../../firewall-side/lib/backend.ts'
import { nftables } from '../../../firewall-side/lib/nftables.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { ENTRIES, overStandIns, SSHD } from '../../lib/backend.ts'

const { backend, tools, apply } = overStandIns(nftables)
const table = 'inet fail2ban-perimeter'
const chain = `${table} fail2ban-sshd`
const WEB: Chain = { jail: 'web', services: SSHD.services, widths: [] }
const entry = (text: string, jail: string) => ({ address: parseAddress(text), jail, expires: 0 })

test('a load empties all sets of a chain and fills them and the index in one transaction', async () => {
  assert.deepEqual(await apply({ load: [{ chain: SSHD, entries: ENTRIES }] }), [
    'nft -f -',
    `flush set ${chain}/inet4`,
    `flush set ${chain}/inet6`,
    `flush set ${chain}/inet4/24`,
    `add element ${chain}/inet4 { 203.0.113.5 }`,
    `add element ${chain}/inet4/24 { 203.0.113.0 }`,
    `add element ${chain}/inet6 { 2001:db8::5 }`,
    `add element ${table} banned/inet4/24 { 203.0.113.0 }`,
    `add element ${table} near/inet4 { 203.0.113.0 }`,
  ])
})

test('two jails are looked for by the index, which has by then what the only one had', async () => {
  const chains = { before: [SSHD], now: [SSHD, WEB] }
  const index = [entry('203.0.113.5', 'sshd'), entry('203.0.113.9', 'web')]
  const direct = undefined
  const said = await apply({ chains, direct, enter: index.slice(1), index })
  for (const line of [
    `flush chain ${table} input`,
    `add rule ${table} input ip saddr @banned/inet4 jump banned/inet4`,
    `add rule ${table} banned/inet4 ip saddr @fail2ban-sshd/inet4 jump fail2ban-sshd`,
    `add rule ${table} banned/inet4 ip saddr @fail2ban-web/inet4 jump fail2ban-web`,
    `add element ${table} banned/inet4 { 203.0.113.5, 203.0.113.9 }`,
  ]) {
    assert.ok(said.includes(line), line)
  }
  const jumps = said.filter((line) => line.endsWith('jump fail2ban-sshd'))
  assert.ok(!jumps.some((line) => line.includes('input')))
})

test('a third jail is added to what there is, and what other jails have is not written again', async () => {
  const chains = { before: [SSHD, WEB], now: [SSHD, WEB, { ...WEB, jail: 'ftp' }] }
  const said = await apply({ chains })
  assert.ok(!said.some((line) => line.startsWith('flush')))
  assert.deepEqual(
    said.filter((line) => line.includes('jump')),
    ['ip', 'ip6'].map(
      (ip, i) =>
        `add rule ${table} banned/inet${i ? 6 : 4} ${ip} saddr @fail2ban-ftp/inet${i ? 6 : 4} jump fail2ban-ftp`,
    ),
  )
})

test('who is free leaves the index; made anew, it has only what is needed', async () => {
  const free = [parseAddress('203.0.113.9')]
  assert.deepEqual((await apply({ free })).slice(1), [
    `add element ${table} banned/inet4 { 203.0.113.9 }`,
    `delete element ${table} banned/inet4 { 203.0.113.9 }`,
  ])
  assert.deepEqual((await apply({ index: ENTRIES })).slice(1), [
    `flush set ${table} banned/inet4/24`,
    `flush set ${table} near/inet4`,
    `add element ${table} banned/inet4/24 { 203.0.113.0 }`,
    `add element ${table} near/inet4 { 203.0.113.0 }`,
  ])
})

test('a chain goes after the jumps into it, and its sets after the chain; the last with the table', async () => {
  const said = await apply({ chains: { before: [WEB, SSHD], now: [WEB] } })
  const gone = said.slice(said.lastIndexOf(`flush chain ${table} banned/inet4/24`))
  assert.ok(gone.indexOf(`delete chain ${chain}`) < gone.indexOf(`delete set ${chain}/inet4/24`))
  assert.ok(said.indexOf(`flush chain ${table} input`) < said.indexOf(`delete chain ${chain}`))
  assert.deepEqual(await apply({ chains: { before: [SSHD], now: [] } }), [
    'nft -f -',
    `add table ${table}`,
    `delete table ${table}`,
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
  const match = 'meta l4proto tcp counter name "fail2ban-sshd" reject comment "sshd"'
  assert.ok(said.includes(`add rule ${chain} ${match}`))
  assert.equal(said.filter((line) => line.startsWith('nft')).length, 1)
})

test('held() counts what a packet finds: also in the index, also near', async () => {
  const held = async (sets: Record<string, unknown[]>) => {
    const listed = Object.entries(sets).map(([name, elem]) => ({ set: { name, elem } }))
    tools.show({ table: JSON.stringify({ nftables: listed }) })
    return await backend.held([SSHD, WEB])
  }
  const sets = {
    'fail2ban-sshd/inet4': ['203.0.113.5', { elem: { val: '203.0.113.6', timeout: 60 } }],
    'fail2ban-sshd/inet4/24': ['203.0.113.0'],
    'fail2ban-web/inet4': ['203.0.113.7', '203.0.113.8'],
    'banned/inet4': ['203.0.113.5', '203.0.113.6', '203.0.113.7'],
    'banned/inet4/24': ['203.0.113.0'],
  }
  const found = ['sshd 203.0.113.5', 'sshd 203.0.113.6', 'web 203.0.113.7']
  const blocks = found.map((block) => `fail2ban-${block}`)
  assert.deepEqual(await held(sets), { blocks: new Set(blocks), indexed: 4 })
  const range = 'fail2ban-sshd 203.0.113.0/24'
  const near = await held({ ...sets, 'near/inet4': ['203.0.113.0'] })
  assert.deepEqual(near, { blocks: new Set([...blocks, range]), indexed: 5 })
})
