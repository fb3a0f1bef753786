import assert from 'node:assert/strict'
import { networkInterfaces } from 'node:os'
import { test } from 'node:test'
import { overlaps, parseAddress } from '../../../scripts/lib/address.ts'
import { neverBan } from '../../../scripts/lib/never.ts'

const isIn = (address: string, configured: string[] = []): boolean =>
  neverBan(configured).some((entry) => overlaps(entry, parseAddress(address)))

test('neverBan() always holds loopback, link-local, multicast, broadcast and unspecified', () => {
  const always = [
    '127.0.0.1',
    '127.9.9.9',
    '169.254.1.1',
    '224.0.0.1',
    '255.255.255.255',
    '0.0.0.0',
  ]
  for (const address of [...always, '::', '::1', 'fe80::1', 'ff02::1', '::ffff:127.0.0.1']) {
    assert.ok(isIn(address), address)
  }
})

test('neverBan() leaves private ranges alone', () => {
  assert.ok(
    !neverBan([]).some((entry) =>
      ['10.0.0.0/8', '192.168.0.0/16', 'fc00::/7'].includes(entry.text),
    ),
  )
})

test('neverBan() holds every address of this machine', () => {
  for (const { address } of Object.values(networkInterfaces()).flatMap((list) => list ?? [])) {
    if (!address.includes('%')) assert.ok(isIn(address), address)
  }
})

test('neverBan() for one family leaves out what the system has of the other', () => {
  const texts = neverBan(['2001:db8::/32'], ['inet4']).map((entry) => entry.text)
  assert.ok(texts.includes('127.0.0.0/8') && !texts.includes('::1'))
  assert.ok(texts.includes('2001:db8::/32'), 'what was configured is always in it')
  assert.ok(neverBan([], ['inet6']).some((entry) => entry.text === '::1'))
  const both = neverBan([]).map((entry) => entry.text)
  const each = [...neverBan([], ['inet4']), ...neverBan([], ['inet6'])].map((entry) => entry.text)
  assert.deepEqual(new Set(each), new Set(both))
})

test('neverBan() holds what was configured, each once, and refuses what it cannot read', () => {
  assert.ok(!isIn('198.51.100.7'))
  assert.ok(isIn('198.51.100.7', ['198.51.100.0/24']))
  const twice = neverBan(['198.51.100.7', '198.51.100.7/32', parseAddress('198.51.100.7')])
  assert.equal(twice.filter((entry) => entry.text === '198.51.100.7').length, 1)
  assert.throws(() => neverBan(['edge1']), { code: 65 })
})
