import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  alive,
  checkJail,
  checkOwner,
  expiry,
  formatLease,
  later,
  parseExpires,
  parseLease,
  quote,
} from '../../../scripts/lib/lease.ts'

test('checkJail() takes 1 to 64 of the characters that Fail2Ban allows', () => {
  for (const name of ['sshd', '-', 'a:b@c.d_e-f', 'x'.repeat(64)])
    assert.equal(checkJail(name), name)
  for (const name of ['', 'x'.repeat(65), 'a b', 'a\n', 'ä', 'a/b', 'a;b', '"']) {
    assert.throws(() => checkJail(name), { code: 65 })
  }
})

test('checkOwner() refuses what could be an option or two words', () => {
  assert.equal(checkOwner('web1.example-net_2'), 'web1.example-net_2')
  for (const name of ['', '-web1', '.web1', 'web 1', 'web1\n', 'web1:x']) {
    assert.throws(() => checkOwner(name), { code: 65 })
  }
})

test('parseExpires() takes whole epoch seconds only', () => {
  assert.equal(parseExpires('0'), 0)
  assert.equal(parseExpires('1790000000'), 1_790_000_000)
  for (const text of ['', '-1', '1.5', '00', '01', '1e9', ' 1', '1234567890123', 'never']) {
    assert.throws(() => parseExpires(text), { code: 65 })
  }
})

test('expiry() rounds as Fail2Ban does and is 0 for a ban without end', () => {
  assert.equal(expiry(1000.75, 600), 1601)
  assert.equal(expiry(1000, 600), 1600)
  assert.equal(expiry(1000, 0), 1000)
  assert.equal(expiry(1000, -1), 0)
})

test('alive() ends at the moment itself, and 0 never ends', () => {
  assert.deepEqual(
    [alive(100, 99), alive(100, 100), alive(100, 101), alive(0, 1e12)],
    [true, false, false, true],
  )
})

test('later() takes 0 for later than any', () => {
  assert.deepEqual([later(5, 9), later(9, 5), later(0, 9), later(9, 0)], [9, 9, 0, 0])
})

test('parseLease() reads what formatLease() writes, for the owner that it is told', () => {
  const line = '2001:db8::/64 a:b@c 1790000000 web1'
  assert.equal(formatLease(parseLease(line, 'web1')), line)
  assert.equal(parseLease(line, 'web2').owner, 'web2')
  assert.equal(formatLease(parseLease(' 192.0.2.1/32\tsshd  0 ', 'web1')), '192.0.2.1 sshd 0 web1')
})

test('parseLease() refuses a line of too few or too many words', () => {
  const lines = [
    '',
    '192.0.2.1',
    '192.0.2.1 sshd',
    '192.0.2.1 sshd 0 web1 x',
    '192.0.2.1 sshd 0 -x',
  ]
  for (const line of lines) assert.throws(() => parseLease(line, 'web1'), { code: 65 }, line)
})

test('quote() keeps a message on one line and short', () => {
  assert.equal(quote('a\n"b"'), '"a\\n\\"b\\""')
  assert.equal(quote('x'.repeat(500)).length, 82)
})
