import assert from 'node:assert/strict'
import { test } from 'node:test'
import { iptables } from '../../../firewall-side/lib/iptables.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { ENTRIES, overStandIns, RULES, SSHD } from '../../lib/backend.ts'

const { backend, tools, apply } = overStandIns(iptables)

/** What both families are told in their transactions. */
function both(four: string[], six: string[]): string[] {
  const told = (tool: string, lines: string[]) => [
    `${tool}-restore -w 5 --noflush`,
    '*filter',
    ...lines,
    'COMMIT',
  ]
  return [...told('iptables', four), ...told('ip6tables', six)]
}

test('a new chain lets pass who is never blocked, and each family hears of its own', async () => {
  const never = ['192.0.2.1', '2001:db8::1'].map((text) => parseAddress(text))
  const lines = (free: string): string[] => [
    ':fail2ban-sshd - [0:0]',
    `-A fail2ban-sshd -s ${free} -j RETURN`,
    RULES.last,
    `-I ${RULES.jump.replace('INPUT', 'INPUT 1')}`,
  ]
  const said = await apply({ chains: [SSHD], fresh: ['sshd'], never })
  assert.deepEqual(said, both(lines('192.0.2.1'), lines('2001:db8::1')))
})

test('a load tells only what is different, behind who is never blocked', async () => {
  const free = '-A fail2ban-sshd -s 192.0.2.1/32 -j RETURN\n'
  const old =
    '-A fail2ban-sshd -s 203.0.113.0/24 -j REJECT\n-A fail2ban-sshd -s 1.2.3.4/32 -j REJECT\n'
  tools.show({ rules: `-P INPUT ACCEPT\n${free}${old}` })
  const said = await apply({ load: [{ chain: SSHD, entries: ENTRIES.slice(0, 2) }] })
  assert.deepEqual(said.slice(2, 4), [
    '-D fail2ban-sshd -s 1.2.3.4 -j REJECT',
    '-I fail2ban-sshd 2 -s 203.0.113.5 -j REJECT',
  ])
})

test('a chain goes after the jumps into it; so does everything', async () => {
  tools.show({ rules: RULES.all })
  assert.deepEqual(await apply({ chains: [], drop: [SSHD] }), both(RULES.gone, RULES.gone))
  assert.deepEqual(await tools.told(() => backend.remove()), both(RULES.gone, RULES.gone))
})

test('a chain of that name that somebody else made is left alone, with 76', async () => {
  tools.show({ rules: '-P INPUT ACCEPT\n-N fail2ban-sshd\n-A fail2ban-sshd -j RETURN\n' })
  await assert.rejects(apply({ chains: [SSHD], fresh: ['sshd'] }), {
    code: 76,
    message: /^Cannot use chain "fail2ban-sshd": it was not made by fail2ban-perimeter/,
  })
})

test('count() trusts only chains that end as ours, with as many jumps as there should be', async () => {
  const rules = `${RULES.all}-A fail2ban-sshd -s 203.0.113.5/32 -j REJECT\n`
  tools.show({ rules })
  assert.deepEqual(await backend.count([SSHD]), new Map([['sshd', 2]]), 'one in each family')
  for (const missing of [`-A ${RULES.jump}\n`, `${RULES.last}\n`]) {
    tools.show({ rules: rules.replace(missing, '') })
    assert.equal(await backend.count([SSHD]), undefined)
  }
})
