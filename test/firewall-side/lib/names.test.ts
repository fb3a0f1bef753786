import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chainName } from '../../../firewall-side/lib/names.ts'
import { jailOf } from '../../../scripts/lib/lease.ts'

test('jailOf() takes fail2ban-<jail> and nothing else', () => {
  assert.equal(jailOf('fail2ban-a:b@c'), 'a:b@c')
  for (const chain of [
    'INPUT',
    'fail2ban-',
    'f2b-sshd',
    'Fail2ban-sshd',
    'fail2ban-a b',
    `fail2ban-${'x'.repeat(65)}`,
  ]) {
    assert.throws(() => jailOf(chain), { code: 65 })
  }
})

test('chainName() keeps what fits, and shortens the rest to 28 characters with a hash', () => {
  assert.equal(chainName('sshd'), 'fail2ban-sshd')
  assert.equal(chainName('x'.repeat(19)), `fail2ban-${'x'.repeat(19)}`)
  for (const jail of ['x'.repeat(20), 'x'.repeat(64), 'a:b', 'a@b']) {
    assert.match(chainName(jail), /^f2b-[A-Za-z0-9_-]{1,11}-[A-Za-z0-9_-]{12}$/)
    assert.ok(chainName(jail).length <= 28)
  }
})

test('chainName() never gives two jails one name', () => {
  const jails = ['a:b', 'a@b', 'a_b', `${'x'.repeat(63)}a`, `${'x'.repeat(63)}b`, 'ssh', 'ssh-ddos']
  assert.equal(new Set(jails.map(chainName)).size, jails.length)
})
