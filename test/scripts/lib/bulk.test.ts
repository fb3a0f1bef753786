import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { joined, latestEach } from '../../../scripts/lib/bulk.ts'

const lease = (text: string, expires: number) => ({ address: parseAddress(text), expires })
const texts = (list: readonly { address: { text: string }; expires: number }[]) =>
  list.map(({ address, expires }) => `${address.text} ${expires}`)

test('joined() is map() and join(), however many there are', () => {
  for (const count of [0, 1, 499, 500, 501, 1500]) {
    const list = Array.from({ length: count }, (_, i) => i)
    const text = (i: number) => `<${i}>`
    assert.equal(joined(list, text, ', '), list.map(text).join(', '))
  }
})

test('latestEach() keeps the latest end of each address, in the order of the list', () => {
  const list = [
    lease('203.0.113.9', 5),
    lease('192.0.2.1', 7),
    lease('203.0.113.9', 9),
    lease('192.0.2.1', 6),
    lease('198.51.100.1', 8),
  ]
  assert.deepEqual(texts(latestEach(list)), ['203.0.113.9 9', '192.0.2.1 7', '198.51.100.1 8'])
  assert.equal(list[0]?.expires, 5, 'what was given is not changed')
  const forever = [lease('192.0.2.1', 7), lease('192.0.2.1', 0), lease('192.0.2.1', 9)]
  assert.deepEqual(texts(latestEach(forever)), ['192.0.2.1 0'])
})

test('latestEach() tells ranges and both families apart', () => {
  const all = [
    '192.0.2.0',
    '192.0.2.0/24',
    '192.0.2.0/25',
    '2001:db8::',
    '2001:db8::/64',
    '0.0.0.1',
  ]
  const list = all.map((text) => lease(text, 3))
  assert.deepEqual(texts(latestEach(list)), texts(list))
  const twice = [...list, ...all.map((text) => lease(text, 4))]
  assert.deepEqual(
    texts(latestEach(twice)),
    all.map((text) => `${text} 4`),
  )
})

test('latestEach() gives back the same list if no address comes twice', () => {
  const list = ['255.255.255.255', '0.0.0.0', '128.0.0.1'].map((text) => lease(text, 1))
  assert.equal(latestEach(list), list)
})
