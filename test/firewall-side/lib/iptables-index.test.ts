import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { indexOf } from '../../../firewall-side/lib/iptables-index.ts'
import { type Address, overlaps, parseAddress } from '../../../scripts/lib/address.ts'

type Index = ReturnType<typeof indexOf>

const index = (texts: Iterable<string>): Index => indexOf(Array.from(texts, parseAddress), 'banned')

/** Where a packet ends, with how many rules it was compared, and how many chains it went through. */
function walk(of: Index, source: Address) {
  let [chain, rules, chains] = ['perimeter-look', 0, 1]
  for (;;) {
    const next = of.get(chain)?.find((rule) => {
      rules++
      const [, block] = /^-s (\S+) -g /.exec(rule) ?? []
      return block !== undefined && overlaps(parseAddress(block), source)
    })
    if (next === undefined) return { banned: false, rules, chains }
    chain = next.replace(/.* -g /, '')
    if (chain === 'banned') return { banned: true, rules, chains }
    chains++
  }
}

/** Ends with the rule that tells a chain of ours. */
const last = (chain: string) => `-m comment --comment "fail2ban-perimeter: ${chain}" -j RETURN`

test('a few addresses are one chain, or one block and its chain', () => {
  assert.deepEqual([...index([])], [['perimeter-look', [last('perimeter-look')]]])
  assert.deepEqual(
    [...index(['192.0.2.7', '203.0.113.0/24', '203.0.113.9'])],
    [
      ['perimeter-look', ['-s 192.0.0.0/4 -g perimeter-192.0.0.0/4', last('perimeter-look')]],
      [
        'perimeter-192.0.0.0/4',
        ['-s 192.0.2.7/32 -g banned', '-s 203.0.113.0/24 -g banned', last('perimeter-192.0.0.0/4')],
      ],
    ],
  )
})

const numbers = Array.from({ length: 2000 }, (_, i) => (i * 2_654_435_761) % 2 ** 32)
const four = (n: number) => [24, 16, 8, 0].map((shift) => (n >>> shift) & 255).join('.')
const six = (n: number) => `2001:db8:${(n >>> 16).toString(16)}:${(n & 65535).toString(16)}::1`

const VICTIM = parseAddress('2001:db8:1234:5678:9abc:def0:1234:5678')

/** Everything but one address of a /16, as a hostile server may ban it: a tree as deep as can be. */
const around = Array.from({ length: 112 }, (_, i) => {
  const shift = BigInt(i)
  const bits = ((BigInt(VICTIM.bits) >> shift) ^ 1n) << shift
  const groups = bits.toString(16).padStart(32, '0').match(/.{4}/g) ?? []
  return `${groups.join(':')}/${128 - i}`
})

const SETS: Record<string, string[]> = {
  'one address of each of 256 /8': Array.from({ length: 256 }, (_, i) => `${i}.1.2.3`),
  '255 neighbours': Array.from({ length: 255 }, (_, i) => `100.64.0.${i}`),
  'random IPv4': numbers.map(four),
  'random IPv6': numbers.map(six),
  'all but one address': around,
  'ranges and what is inside of them': numbers.flatMap((n) => [
    four(n),
    `${four(n)}/${20 + (n % 12)}`,
  ]),
}

describe('the index finds exactly what is banned, in a few chains, of', () => {
  for (const [what, texts] of Object.entries(SETS)) {
    test(what, () => {
      const of = index(texts)
      const banned = texts.map((text) => parseAddress(text))
      const all = [VICTIM, ...banned, ...numbers.map((n) => parseAddress(four(n ^ 0x5a5a5a5a)))]
      for (const source of all.filter((_, i) => i % 7 === 0)) {
        const found = walk(of, source)
        assert.equal(
          found.banned,
          banned.some((one) => one.prefix <= source.prefix && overlaps(one, source)),
          source.text,
        )
        assert.ok(found.rules <= 17 * found.chains && found.chains <= 9, JSON.stringify(found))
      }
      for (const chain of of.keys()) assert.ok(chain.length <= 28, chain)
    })
  }
})
