import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { loadConfig } from '../../../scripts/lib/config.ts'
import { printable } from '../../../scripts/lib/reporter/denylist.ts'
import { isPublic } from '../../../scripts/lib/reporter/public.ts'
import { retryAfter } from '../../../scripts/lib/reporter/service.ts'
import { abuseipdb } from '../../../scripts/lib/settings/abuseipdb.ts'
import { threatjammer } from '../../../scripts/lib/settings/threatjammer.ts'

test('isPublic() knows what belongs to somebody on the Internet', () => {
  const yes = [
    '1.1.1.1',
    '9.255.255.255',
    '11.0.0.0',
    '100.63.255.255',
    '100.128.0.0',
    '172.15.1.1',
  ]
  const yes6 = ['2001:4860:4860::8888', '2606:4700::1', '2a00::1', '2001:200::1', '::ffff:1.1.1.1']
  for (const text of [
    ...yes,
    ...yes6,
    '172.32.0.1',
    '192.167.1.1',
    '198.20.0.0',
    '223.255.255.1',
  ]) {
    assert.ok(isPublic(parseAddress(text)), text)
  }
  const no = ['0.0.0.1', '10.0.0.1', '100.64.0.1', '100.127.255.255', '127.0.0.1', '169.254.1.1']
  const no2 = [
    '172.16.0.1',
    '172.31.255.255',
    '192.0.0.1',
    '192.0.2.1',
    '192.168.1.1',
    '198.18.0.1',
  ]
  const no3 = ['198.19.255.255', '198.51.100.1', '203.0.113.1', '224.0.0.1', '240.0.0.1']
  const no6 = [
    '::1',
    'fe80::1',
    'fd00::1',
    'fc00::1',
    'ff02::1',
    '2001:db8::1',
    '2001::1',
    '2002::1',
  ]
  const ranges = ['255.255.255.255', '1.1.1.0/24', '2606:4700::/48', '::ffff:10.0.0.1', '3fff::1']
  for (const text of [...no, ...no2, ...no3, ...no6, ...ranges]) {
    assert.ok(!isPublic(parseAddress(text)), text)
  }
})

test('retryAfter() reads seconds, dates and nonsense', () => {
  const now = Date.parse('2026-11-20T12:00:00Z')
  const read = (text?: string) =>
    retryAfter(
      { status: 429, headers: text === undefined ? {} : { 'retry-after': text }, text: '' },
      now,
    )
  assert.equal(read('7'), 7)
  assert.equal(read('Fri, 20 Nov 2026 12:00:30 GMT'), 30)
  assert.equal(read('Fri, 20 Nov 2026 11:00:00 GMT'), 1)
  assert.equal(read('0'), 1)
  assert.equal(read('99999999'), 86400)
  assert.equal(read('soon'), 60)
  assert.equal(read(), 60)
})

test('printable() keeps lines and drops what a terminal obeys', () => {
  assert.equal(printable('a\r\nb\tc\u001b]0;x\u0007\u0085\n\n'), 'a\nb\tc]0;x')
})

test('config.yaml shows every key of both services, with its default', () => {
  const sample = fileURLToPath(new URL('../../../config.yaml', import.meta.url))
  const { config } = loadConfig(sample, 'owner')
  const key_file = '/etc/fail2ban-perimeter/'
  const jammer = v.parse(threatjammer, { key_file: `${key_file}threatjammer.key` })
  assert.deepEqual(config.threatjammer, jammer)
  assert.deepEqual(config.abuseipdb, v.parse(abuseipdb, { key_file: `${key_file}abuseipdb.key` }))
})
