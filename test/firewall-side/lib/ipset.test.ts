import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ipset } from '../../../firewall-side/lib/ipset.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { ENTRIES, overStandIns, RULES, SSHD } from '../../lib/backend.ts'

const { backend, tools, apply } = overStandIns(ipset)

const OPTIONS = 'timeout 0 maxelem 4194304'

/** Fills a set beside the one in use and swaps the two. */
function swapped(set: string, ...elements: string[]): string[] {
  const digit = set.slice(-1)
  return [
    `create f2b-swap-${digit} hash:net family inet${digit === '4' ? '' : '6'} ${OPTIONS}`,
    `flush f2b-swap-${digit}`,
    ...elements.map((element) => `add f2b-swap-${digit} ${element}`),
    `swap f2b-swap-${digit} ${set}`,
    `destroy f2b-swap-${digit}`,
  ]
}

test('a new chain comes after its sets, and never-ban goes first in it', async () => {
  const never = [parseAddress('192.0.2.1')]
  const said = await apply({ chains: [SSHD], fresh: ['sshd'], never })
  const rules = (tool: string, digit: number): string[] => [
    `${tool}-restore -w 5 --noflush`,
    '*filter',
    ':fail2ban-sshd - [0:0]',
    `-A fail2ban-sshd -m set --match-set f2b-never-${digit} src -j RETURN`,
    `-A fail2ban-sshd -m set --match-set fail2ban-sshd-${digit} src -j REJECT`,
    RULES.last,
    `-I ${RULES.jump.replace('INPUT', 'INPUT 1')}`,
    'COMMIT',
  ]
  assert.deepEqual(said, [
    'ipset -exist restore',
    `create f2b-never-4 hash:net family inet ${OPTIONS}`,
    `create f2b-never-6 hash:net family inet6 ${OPTIONS}`,
    `create fail2ban-sshd-4 hash:net family inet ${OPTIONS}`,
    `create fail2ban-sshd-6 hash:net family inet6 ${OPTIONS}`,
    ...rules('iptables', 4),
    ...rules('ip6tables', 6),
    'ipset -exist restore',
    ...swapped('f2b-never-4', '192.0.2.1'),
    ...swapped('f2b-never-6'),
  ])
})

test('a load fills sets beside those in use and swaps them', async () => {
  assert.deepEqual(await apply({ load: [{ chain: SSHD, entries: ENTRIES }] }), [
    'ipset -exist restore',
    ...swapped('fail2ban-sshd-4', '203.0.113.5 timeout 0', '203.0.113.0/24 timeout 0'),
    ...swapped('fail2ban-sshd-6', '2001:db8::5 timeout 0'),
  ])
})

test('a chain goes after the jumps into it, and its sets after the chain', async () => {
  tools.show({ rules: RULES.all, sets: 'fail2ban-sshd-4\nfail2ban-sshd-6\nf2b-never-4\ntheirs\n' })
  const said = (await apply({ chains: [], drop: [SSHD] })).slice(3)
  assert.deepEqual(said, [
    ...['iptables', 'ip6tables'].flatMap((tool) => [
      `${tool}-restore -w 5 --noflush`,
      '*filter',
      ...RULES.gone,
      'COMMIT',
    ]),
    'ipset -exist restore',
    'destroy fail2ban-sshd-4',
    'destroy fail2ban-sshd-6',
  ])
  const all = (await tools.told(() => backend.remove())).filter((line) => /^destroy/.test(line))
  const gone = ['fail2ban-sshd-4', 'f2b-never-4', 'fail2ban-sshd-6']
  assert.deepEqual(
    all,
    gone.map((set) => `destroy ${set}`),
  )
})

test('count() adds both sets of a chain, and trusts none if one is missing', async () => {
  const size = (digit: number): string =>
    `Name: fail2ban-sshd-${digit}\nType: hash:net\nNumber of entries: ${digit}\n`
  tools.show({ rules: RULES.all, sizes: `${size(4)}\n${size(6)}` })
  assert.deepEqual(await backend.count([SSHD]), new Map([['sshd', 10]]))
  tools.show({ rules: RULES.all, sizes: size(4) })
  assert.equal(await backend.count([SSHD]), undefined)
})
