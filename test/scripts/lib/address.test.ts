import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  checkBannable,
  compareAddresses,
  isSingle,
  overlaps,
  parseAddress,
} from '../../../scripts/lib/address.ts'

const text = (input: string): string => parseAddress(input).text

test('parseAddress() makes every spelling of an address the same', () => {
  const table = {
    '192.0.2.1': '192.0.2.1',
    '192.0.2.1/32': '192.0.2.1',
    '192.0.2.255/24': '192.0.2.0/24',
    '255.255.255.255/1': '128.0.0.0/1',
    '1.2.3.4/0': '0.0.0.0/0',
    '2001:DB8:0:0::0001': '2001:db8::1',
    '2001:db8::1/128': '2001:db8::1',
    '2001:db8:ffff:ffff::/33': '2001:db8:8000::/33',
    '::ffff:192.0.2.1': '192.0.2.1',
    '::FFFF:c000:201': '192.0.2.1',
    '::ffff:192.0.2.255/120': '192.0.2.0/24',
    '64:ff9b::192.0.2.1': '64:ff9b::c000:201',
    '::': '::',
    '::/0': '::/0',
  }
  for (const [input, canonical] of Object.entries(table)) assert.equal(text(input), canonical)
  for (const canonical of Object.values(table)) assert.equal(text(canonical), canonical)
})

test('parseAddress() refuses a zone', () => {
  assert.throws(() => parseAddress('fe80::1%eth0'), { code: 65, message: /"fe80::1%eth0"/ })
})

test('parseAddress() refuses ports, names, leading zeros, short forms and odd prefixes', () => {
  const refused = `|example.com|192.0.2.1:22|[::1]|01.2.3.4|127.1|0x7f.1|2130706433|1.2.3.4 | 1.2.3.4
    |1.2.3.4\n|1.2.3.4/|1.2.3.4/33|1.2.3.4/08|1.2.3.4/-1|1.2.3.4/24/24|1.2.3.4/24.0|::1/129|:::|1::2::3
    |12345::|2001:db8|::ffff:1.2.3.4/95|--help|$(id)|/24`
  for (const input of refused.split(/\|/)) {
    assert.throws(() => parseAddress(input), { code: 65 }, JSON.stringify(input))
  }
})

test('parseAddress() quotes no more than 80 characters of what it refuses', () => {
  assert.throws(
    () => parseAddress('9'.repeat(5000)),
    (error: Error) => error.message.length < 110,
  )
})

test('overlaps() is true for containment either way, and never across families', () => {
  const meet = (a: string, b: string): boolean => {
    const both = overlaps(parseAddress(a), parseAddress(b))
    assert.equal(overlaps(parseAddress(b), parseAddress(a)), both)
    return both
  }
  assert.ok(meet('192.0.2.0/24', '192.0.2.255'))
  assert.ok(meet('128.0.0.0/1', '255.255.255.255'))
  assert.ok(meet('0.0.0.0/0', '203.0.113.1'))
  assert.ok(meet('2001:db8::/32', '2001:db8:ffff::1'))
  assert.ok(!meet('192.0.2.0/25', '192.0.2.128'))
  assert.ok(!meet('1.2.3.4', '182.3.4.9'))
  assert.ok(!meet('2001:db8::/33', '2001:db8:8000::'))
  assert.ok(!meet('0.0.0.0/0', '::/0'))
})

test('isSingle() tells one address from a range', () => {
  const single = ['192.0.2.1', '192.0.2.1/32', '::1', '192.0.2.0/31', '::/127']
  assert.deepEqual(
    single.map((input) => isSingle(parseAddress(input))),
    [true, true, true, false, false],
  )
})

test('compareAddresses() sorts by family, number and width', () => {
  const sorted = [
    '9.0.0.0',
    '10.0.0.0/8',
    '10.0.0.0',
    '200.0.0.1',
    '::2',
    '2001:db8::/32',
    '2001:db8::',
  ]
  const shuffled = [...sorted].reverse().map(parseAddress).sort(compareAddresses)
  assert.deepEqual(
    shuffled.map((address) => address.text),
    sorted,
  )
})

test('checkBannable() refuses what is too wide or overlaps never_ban', () => {
  const check = (input: string): void =>
    checkBannable(
      parseAddress(input),
      [parseAddress('192.0.2.77'), parseAddress('2001:db8::/64')],
      {
        ipv4: 24,
        ipv6: 48,
      },
    )
  for (const fine of ['192.0.2.76', '198.51.100.0/24', '2001:db8:1::/48']) check(fine)
  assert.throws(() => check('198.51.0.0/23'), { code: 65, message: /wider than min_prefix \/24/ })
  assert.throws(() => check('2001:db8::/47'), { code: 65, message: /min_prefix \/48/ })
  assert.throws(() => check('192.0.2.0/24'), { code: 65, message: /"192.0.2.77".*never_ban/ })
  assert.throws(() => check('2001:db8::1'), { code: 65, message: /"2001:db8::\/64"/ })
})
