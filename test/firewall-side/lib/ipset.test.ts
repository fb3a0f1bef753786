import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Chain } from '../../../firewall-side/lib/backend.ts'
import { ipset } from '../../../firewall-side/lib/ipset.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { ENTRIES, overStandIns, rulesOf, SSHD } from '../../lib/backend.ts'

const { backend, tools, apply } = overStandIns(ipset)

const OPTIONS = 'timeout 0 maxelem 4194304'
const PLAIN: Chain = { ...SSHD, widths: [] }
const WEB: Chain = { ...PLAIN, jail: 'web' }
const made = (chains: Chain[]) => apply({ chains: { before: [], now: chains } })

/** Fills a set beside the one in use and swaps the two. */
function swapped(set: string, ...elements: string[]): string[] {
  const digit = /-4r?$/.test(set) ? 4 : 6
  return [
    `create f2b-swap-${digit} hash:net family inet${digit === 4 ? '' : '6'} ${OPTIONS}`,
    `flush f2b-swap-${digit}`,
    ...elements.map((element) => `add f2b-swap-${digit} ${element}`),
    `swap f2b-swap-${digit} ${set}`,
    `destroy f2b-swap-${digit}`,
  ]
}

const MARKED = '-m comment --comment fail2ban-perimeter'

test('a new chain comes after its sets, which are full by then, and never-ban goes first in it', async () => {
  const never = [parseAddress('192.0.2.1')]
  const said = await apply({ chains: { before: [], now: [PLAIN] }, never })
  const last = (name: string): string =>
    `-A ${name} -m comment --comment "fail2ban-perimeter: ${name.replace('fail2ban-', '')}" -j RETURN`
  const rules = (tool: string, digit: number): string[] => [
    `${tool}-restore -w 5 --noflush`,
    '*filter',
    ':fail2ban-sshd - [0:0]',
    `-A fail2ban-sshd -m set --match-set perimeter-never-${digit} src -j RETURN`,
    `-A fail2ban-sshd -p tcp -j REJECT --reject-with icmp${digit === 4 ? '' : '6'}-port-unreachable`,
    last('fail2ban-sshd'),
    `-I INPUT 1 -m set --match-set fail2ban-sshd-${digit} src ${MARKED} -j fail2ban-sshd`,
    'COMMIT',
  ]
  assert.deepEqual(said, [
    'ipset -exist restore',
    `create perimeter-never-4 hash:net family inet ${OPTIONS}`,
    `create fail2ban-sshd-4 hash:net family inet ${OPTIONS}`,
    `create perimeter-never-6 hash:net family inet6 ${OPTIONS}`,
    `create fail2ban-sshd-6 hash:net family inet6 ${OPTIONS}`,
    ...swapped('perimeter-never-4', '192.0.2.1'),
    ...swapped('perimeter-never-6'),
    ...rules('iptables', 4),
    ...rules('ip6tables', 6),
  ])
})

test('two jails are looked for by the index', async () => {
  const said = await made([PLAIN, WEB])
  const look = (set: string, to: string) => `-m set --match-set ${set}-4 src -j ${to}`
  for (const line of [
    `-I INPUT 1 -m set --match-set perimeter-banned-4 src ${MARKED} -j perimeter-banned`,
    `-A perimeter-banned ${look('fail2ban-sshd', 'fail2ban-sshd')}`,
    `-A perimeter-banned ${look('fail2ban-web', 'fail2ban-web')}`,
  ]) {
    assert.ok(said.includes(line), line)
  }
  const enter = [{ address: parseAddress('203.0.113.9'), jail: 'web', expires: 0 }]
  assert.deepEqual((await apply({ enter })).slice(1), [
    'add perimeter-banned-4 203.0.113.9',
    'add fail2ban-web-4 203.0.113.9 timeout 0',
  ])
})

test('a load fills sets beside those in use and swaps them', async () => {
  assert.deepEqual(await apply({ load: [{ chain: SSHD, entries: ENTRIES }] }), [
    'ipset -exist restore',
    'add perimeter-ranges-4 203.0.113.0/24',
    'add perimeter-banned-4 203.0.113.0/24',
    ...swapped('fail2ban-sshd-4', '203.0.113.5 timeout 0'),
    ...swapped('fail2ban-sshd-4r', '203.0.113.0/24 timeout 0'),
    ...swapped('fail2ban-sshd-6', '2001:db8::5 timeout 0'),
  ])
})

test('a chain goes after the jumps into it, and its sets after the chain', async () => {
  const sets = ['fail2ban-sshd-4', 'fail2ban-sshd-6', 'perimeter-never-4', 'theirs', 'f2b-swap-4']
  tools.show({ rules: rulesOf(await made([PLAIN])), sets: `${sets.join('\n')}\n` })
  const said = await apply({ chains: { before: [PLAIN], now: [] } })
  const gone = ['fail2ban-sshd']
  const rules = [
    `-D INPUT -m set --match-set fail2ban-sshd-4 src ${MARKED} -j fail2ban-sshd`,
    ...gone.map((chain) => `-F ${chain}`),
    ...gone.map((chain) => `-X ${chain}`),
  ]
  assert.deepEqual(said.slice(0, 6), [
    'iptables-restore -w 5 --noflush',
    '*filter',
    ...rules,
    'COMMIT',
  ])
  const destroyed = (lines: string[]) => lines.filter((line) => /^destroy/.test(line)).sort()
  const ours = ['fail2ban-sshd-4', 'fail2ban-sshd-6', 'perimeter-never-4']
  assert.deepEqual(
    destroyed(said),
    ours.map((set) => `destroy ${set}`),
  )
  assert.deepEqual(
    destroyed(await tools.told(() => backend.remove())),
    ['f2b-swap-4', ...ours].map((set) => `destroy ${set}`).sort(),
  )
})

test('held() counts what a packet finds: also in the index, also the block around', async () => {
  const saved = (...elements: string[]): string => {
    const sets = new Set(elements.map((element) => element.split(' ')[0]))
    const lines = [...sets].map((set) => `create ${set} hash:net`)
    return [...lines, ...elements.map((element) => `add ${element} timeout 0`)].join('\n')
  }
  const some = [
    'fail2ban-sshd-4 203.0.113.5',
    'fail2ban-sshd-4r 203.0.113.0/24',
    'fail2ban-web-6 2001:db8::5',
    'perimeter-ranges-4 203.0.113.0/24',
    'perimeter-banned-4 203.0.113.5',
  ]
  tools.show({ saved: saved(...some) })
  const single = 'fail2ban-sshd 203.0.113.5'
  assert.deepEqual(await backend.held([SSHD, WEB]), { blocks: new Set([single]), indexed: 2 })
  const index = ['perimeter-banned-4 203.0.113.0/24', 'perimeter-banned-6 2001:db8::5']
  tools.show({ saved: saved(...some, ...index) })
  const blocks = [single, 'fail2ban-sshd 203.0.113.0/24', 'fail2ban-web 2001:db8::5']
  assert.deepEqual(await backend.held([SSHD, WEB]), { blocks: new Set(blocks), indexed: 4 })
})
