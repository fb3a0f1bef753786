import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Change } from '../firewall-side/lib/backend.ts'
import type { FirewallConfig } from '../firewall-side/lib/config.ts'
import { ipset } from '../firewall-side/lib/ipset.ts'
import { iptables } from '../firewall-side/lib/iptables.ts'
import { nftables } from '../firewall-side/lib/nftables.ts'
import { parseAddress } from '../scripts/lib/address.ts'
import { NO_CHANGE } from './lib/backend.ts'
import { standInTools } from './lib/told.ts'

// What exactly each backend hands to which program for each kind of change, and what it must not
// say about the other family. The programs are stand-ins that write down what they are told.

const tools = standInTools()
const config = { backend: 'auto', hooks: ['INPUT'], blocktype: 'DROP' } as unknown as FirewallConfig
const backends = { nftables, ipset, iptables }

async function told(
  name: keyof typeof backends,
  change: Partial<Change>,
  rules = '',
): Promise<string[]> {
  tools.show({ rules: `-P INPUT ACCEPT\n${rules}` })
  return await tools.told(() => backends[name](config).apply({ ...NO_CHANGE, ...change }))
}

const entry = (text: string, expires = 0) => ({
  address: parseAddress(text),
  jail: 'sshd',
  expires,
})
const SETS = 'inet fail2ban-perimeter fail2ban-sshd'
const OURS =
  '-N fail2ban-sshd\n-A fail2ban-sshd -m comment --comment "fail2ban-perimeter: sshd" -j RETURN\n'

const FAMILIES = {
  inet4: {
    single: '203.0.113.5',
    range: '203.0.113.0/24',
    base: '203.0.113.0',
    digit: 4,
    tool: 'iptables',
    alien: /2001|ip6tables|inet6|-6\b/,
  },
  inet6: {
    single: '2001:db8::5',
    range: '2001:db8::/64',
    base: '2001:db8::',
    digit: 6,
    tool: 'ip6tables',
    alien: /203\.0|^iptables|inet4|-4\b/,
  },
} as const

for (const [family, f] of Object.entries(FAMILIES)) {
  const width = f.range.replace(/.*\//, '')
  const restore = (...lines: string[]): string[] => [
    `${f.tool}-restore -w 5 --noflush`,
    '*filter',
    ...lines,
    'COMMIT',
  ]

  describe(family, () => {
    const table: [string, keyof typeof backends, Partial<Change>, string[], string?][] = [
      [
        'ban',
        'nftables',
        { enter: [entry(f.single)] },
        ['nft -f -', `add element ${SETS}/${family} { ${f.single} }`],
      ],
      [
        'ban',
        'ipset',
        { enter: [entry(f.single)] },
        ['ipset -exist restore', `add fail2ban-sshd-${f.digit} ${f.single} timeout 0`],
      ],
      [
        'ban',
        'iptables',
        { enter: [entry(f.single)] },
        restore(`-I fail2ban-sshd 1 -s ${f.single} -j DROP`),
        OURS,
      ],
      [
        'ban of a range',
        'nftables',
        { enter: [entry(f.range)] },
        ['nft -f -', `add element ${SETS}/${family}/${width} { ${f.base} }`],
      ],
      [
        'ban of a range',
        'ipset',
        { enter: [entry(f.range)] },
        ['ipset -exist restore', `add fail2ban-sshd-${f.digit} ${f.range} timeout 0`],
      ],
      [
        'ban of a range',
        'iptables',
        { enter: [entry(f.range)] },
        restore(`-I fail2ban-sshd 1 -s ${f.range} -j DROP`),
        OURS,
      ],
      [
        'ban for ever longer than it can count',
        'nftables',
        { enter: [entry(f.single, 9e11)] },
        ['nft -f -', `add element ${SETS}/${family} { ${f.single} timeout 31536000s0ms }`],
      ],
      [
        'ban for ever longer than it can count',
        'ipset',
        { enter: [entry(f.single, 9e11)] },
        ['ipset -exist restore', `add fail2ban-sshd-${f.digit} ${f.single} timeout 2147483`],
      ],
      [
        'a longer ban',
        'nftables',
        { extend: [entry(f.single)] },
        [
          'nft -f -',
          `add element ${SETS}/${family} { ${f.single} }`,
          `delete element ${SETS}/${family} { ${f.single} }`,
          `add element ${SETS}/${family} { ${f.single} }`,
        ],
      ],
      [
        'a longer ban',
        'iptables',
        { extend: [entry(f.single)] },
        [],
        `${OURS}-A fail2ban-sshd -s ${f.single}/${f.digit === 4 ? 32 : 128} -j DROP\n`,
      ],
      [
        'unban',
        'nftables',
        { leave: [entry(f.single)] },
        [
          'nft -f -',
          `add element ${SETS}/${family} { ${f.single} timeout 60s0ms }`,
          `delete element ${SETS}/${family} { ${f.single} }`,
        ],
      ],
      [
        'unban',
        'ipset',
        { leave: [entry(f.single)] },
        ['ipset -exist restore', `del fail2ban-sshd-${f.digit} ${f.single}`],
      ],
    ]
    for (const [what, backend, change, lines, rules] of table) {
      test(`${backend} is told exactly this of ${what}`, async () => {
        const said = await told(backend, change, rules)
        assert.deepEqual(said, lines)
        for (const line of said) assert.doesNotMatch(line, f.alien)
      })
    }
  })
}

test('nftables makes chain, sets and jumps in one transaction, both families alike', async () => {
  const services = [
    {
      protocol: 'tcp' as const,
      ports: [
        [22, 22],
        [1000, 2000],
      ] as const,
    },
  ]
  const chains = [
    {
      jail: 'sshd',
      services: services.map((s) => ({ ...s, ports: [...s.ports] })),
      widths: ['inet6/64'],
    },
  ]
  const said = await told('nftables', {
    chains,
    fresh: ['sshd'],
    never: [parseAddress('192.0.2.1')],
  })
  const table = 'inet fail2ban-perimeter'
  assert.deepEqual(said, [
    'nft -f -',
    `add table ${table}`,
    `add set ${table} never-ban/4 { type ipv4_addr; flags interval; auto-merge; }`,
    `add set ${table} never-ban/6 { type ipv6_addr; flags interval; auto-merge; }`,
    `add chain ${table} input { type filter hook input priority filter - 5; policy accept; }`,
    `flush chain ${table} input`,
    `add set ${SETS}/inet4 { type ipv4_addr; flags timeout; }`,
    `add set ${SETS}/inet6 { type ipv6_addr; flags timeout; }`,
    `add set ${SETS}/inet6/64 { type ipv6_addr; flags timeout; }`,
    `add chain ${SETS}`,
    `flush chain ${SETS}`,
    `add rule ${SETS} ip saddr @fail2ban-sshd/inet4 drop`,
    `add rule ${SETS} ip6 saddr @fail2ban-sshd/inet6 drop`,
    `add rule ${SETS} ip6 saddr & ffff:ffff:ffff:ffff:0000:0000:0000:0000 @fail2ban-sshd/inet6/64 drop`,
    `add rule ${table} input ip saddr @never-ban/4 accept`,
    `add rule ${table} input ip6 saddr @never-ban/6 accept`,
    `add rule ${table} input meta l4proto tcp th dport { 22, 1000-2000 } jump fail2ban-sshd comment "sshd"`,
    `flush set ${table} never-ban/4`,
    `add element ${table} never-ban/4 { 192.0.2.1 }`,
    `flush set ${table} never-ban/6`,
  ])
})
