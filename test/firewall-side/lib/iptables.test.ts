import assert from 'node:assert/strict'
import { test } from 'node:test'
import { iptables } from '../../../firewall-side/lib/iptables.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { ENTRIES, overStandIns, rulesOf, SSHD } from '../../lib/backend.ts'

const { backend, tools, apply } = overStandIns(iptables)

const REJECT = '-j REJECT --reject-with icmp-port-unreachable'
const rule = (chain: string, text: string): string => `-A ${chain} ${text}`
const never = ['192.0.2.1', '2001:db8::1'].map((text) => parseAddress(text))
const made = () => apply({ chains: { before: [], now: [SSHD] }, never, enter: ENTRIES })

/** What a family is told. */
function linesFor(said: string[], tool = 'iptables'): string[] {
  const from = said.indexOf(`${tool}-restore -w 5 --noflush`)
  return from < 0 ? [] : said.slice(from + 2, said.indexOf('COMMIT', from))
}

test('a new chain lets pass who is never blocked, and each family hears of its own', async () => {
  const said = await made()
  assert.deepEqual(
    linesFor(said).filter((line) => line.startsWith('-A fail2ban-sshd')),
    [
      rule('fail2ban-sshd', '-s 192.0.2.1/32 -j RETURN'),
      rule('fail2ban-sshd', `-s 203.0.113.5/32 ${REJECT}`),
      rule('fail2ban-sshd', `-s 203.0.113.0/24 ${REJECT}`),
      rule('fail2ban-sshd', '-m comment --comment "fail2ban-perimeter: sshd" -j RETURN'),
    ],
  )
  assert.doesNotMatch(linesFor(said).join(), /2001/)
  assert.doesNotMatch(linesFor(said, 'ip6tables').join(), /203\./)
  assert.match(linesFor(said, 'ip6tables').join(), /-s 2001:db8::5\/128 -j REJECT .*icmp6-port/)
})

test('what is right already is not told again, and only what differs is', async () => {
  tools.show({ rules: rulesOf(await made()) })
  assert.deepEqual(linesFor(await apply({ extend: ENTRIES })), [])
  const enter = [{ address: parseAddress('203.0.113.9'), jail: 'sshd', expires: 0 }]
  assert.deepEqual(linesFor(await apply({ enter, leave: ENTRIES.slice(0, 1) })), [
    `-D fail2ban-sshd -s 203.0.113.5/32 ${REJECT}`,
    `-I fail2ban-sshd 3 -s 203.0.113.9/32 ${REJECT}`,
  ])
  assert.deepEqual(linesFor(await apply({ never: [] })), [
    '-D fail2ban-sshd -s 192.0.2.1/32 -j RETURN',
  ])
})

test('a chain goes after the jumps into it; so does everything', async () => {
  tools.show({ rules: rulesOf(await made()) })
  const gone = linesFor(await apply({ chains: { before: [SSHD], now: [] } }))
  assert.equal(gone[0], '-D INPUT -m comment --comment fail2ban-perimeter -j perimeter-look')
  assert.equal(gone.filter((line) => line.startsWith('-X ')).length, gone.length / 2 - 0.5)
  assert.deepEqual(linesFor(await tools.told(() => backend.remove())), gone)
})

test('a chain of that name that another program made is left alone, with 76', async () => {
  tools.show({ rules: '-P INPUT ACCEPT\n-N fail2ban-sshd\n-A fail2ban-sshd -j RETURN\n' })
  await assert.rejects(apply({ chains: { before: [], now: [SSHD] } }), {
    code: 76,
    message: /^Cannot use chain "fail2ban-sshd": it was not made by fail2ban-perimeter/,
  })
  const left = await backend.rebuild({ chains: [SSHD], entries: ENTRIES, never })
  assert.deepEqual(left, ['fail2ban-sshd'])
})

test('what `iptables -F` left of a chain is ours', async () => {
  tools.show({ rules: '-P INPUT ACCEPT\n-N fail2ban-sshd\n-N perimeter-look\n' })
  const contents = { chains: [SSHD], entries: ENTRIES, never }
  const said = linesFor(await tools.told(() => backend.rebuild(contents)))
  assert.ok(said.some((line) => line.endsWith(`-s 203.0.113.5/32 ${REJECT}`)))
})

test('held() is what the chains block, and shape() all the rest', async () => {
  const rules = rulesOf(await made())
  const looks = async (text: string) => {
    tools.show({ rules: text })
    return [(await backend.held([SSHD])).blocks.size, await backend.shape([SSHD])]
  }
  const [blocks, shape] = await looks(rules)
  assert.equal(blocks, 2)
  assert.deepEqual(await looks(rules.replace(/^.*203.0.113.5\/.*\n/m, '')), [1, shape])
  for (const line of [/^-A INPUT.*\n/m, /^.*192.0.2.1.*\n/m, /^-A perimeter-banned.*\n/m]) {
    assert.notEqual((await looks(rules.replace(line, '')))[1], shape)
  }
  const lost = await looks(rules.replace(/^-A perimeter-look.*\n/m, ''))
  assert.deepEqual(lost, [0, shape], 'no packet finds what the index does not lead to')
})
