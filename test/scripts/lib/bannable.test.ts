import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseAddress, whyNever } from '../../../scripts/lib/address.ts'
import { bannable } from '../../../scripts/lib/bannable.ts'

const min = { ipv4: 24, ipv6: 48 }

test('bannable() refuses overlaps in both directions, wide ranges and both families', () => {
  const list = [
    '10.0.0.0/8',
    '10.1.0.0/16',
    '192.0.2.7',
    '255.255.255.255',
    '0.0.0.0/8',
    'fe80::/10',
  ]
  const may = bannable(list.map(parseAddress), min)
  const refused = ['10.0.0.0', '10.255.255.255', '192.0.2.7', '192.0.2.0/24', '0.0.0.0', 'fe80::1']
  const wide = ['198.51.0.0/16', '2001:db8::/32', '255.255.255.0/24', '255.255.255.255']
  for (const text of [...refused, ...wide]) assert.equal(may(parseAddress(text)), false, text)
  const fine = [
    '9.255.255.255',
    '11.0.0.0',
    '192.0.2.6',
    '192.0.2.8/29',
    '2001:db8::1',
    '1.0.0.0/24',
  ]
  for (const text of fine) assert.equal(may(parseAddress(text)), true, text)
  assert.equal(bannable([], min)(parseAddress('0.0.0.0')), true)
})

test('bannable() says what checkBannable says, for 20000 random pairs', () => {
  let state = 20_261_120
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  // Few different numbers, so that they meet often, at both ends of the number line.
  const some = () => {
    const host = [
      [0, 1, 127, 128, 254, 255],
      [0, 9, 255],
      [0, 128],
      [0, 1, 63, 64, 255],
    ]
    const text = host.map((numbers) => numbers[random(numbers.length)]).join('.')
    return parseAddress(random(2) ? text : `${text}/${20 + random(13)}`)
  }
  for (let round = 0; round < 1000; round++) {
    const never = Array.from({ length: random(8) }, some)
    const may = bannable(never, min)
    for (let i = 0; i < 20; i++) {
      const address = some()
      const names = never.map(({ text }) => text).join(' ')
      assert.equal(may(address), !whyNever(address, never, min), `${address.text} in ${names}`)
    }
  }
})
