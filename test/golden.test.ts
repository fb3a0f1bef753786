import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Change } from '../firewall-side/lib/backend.ts'
import type { FirewallConfig } from '../firewall-side/lib/config.ts'
import { ipset } from '../firewall-side/lib/ipset.ts'
import { iptables } from '../firewall-side/lib/iptables.ts'
import { nftables } from '../firewall-side/lib/nftables.ts'
import { parseAddress } from '../scripts/lib/address.ts'
import { NO_CHANGE, rulesOf } from './lib/backend.ts'
import { standInTools } from './lib/told.ts'

// What exactly each backend hands to which program for each kind of change, and what it must not
// say about the other family. The programs are stand-ins that write down what they are told.

const tools = standInTools()
const config = { backend: 'auto', hooks: ['INPUT'], blocktype: 'DROP' } as unknown as FirewallConfig
const backends = { nftables, ipset, iptables }

async function told(name: keyof typeof backends, change: Partial<Change>): Promise<string[]> {
  const apply = (what: Partial<Change>) =>
    tools.told(() => backends[name](config).apply({ ...NO_CHANGE, ...what }))
  tools.show({})
  if (name !== 'iptables') return await apply(change)
  const chains = { before: [], now: NO_CHANGE.chains.now }
  // Both families have the same rules here: nothing but the chain of the jail.
  tools.show({ rules: rulesOf(await apply({ chains })) })
  return await apply(change)
}

const entry = (text: string, expires = 0) => ({
  address: parseAddress(text),
  jail: 'sshd',
  expires,
})
const TABLE = 'inet fail2ban-perimeter'
const SETS = `${TABLE} fail2ban-sshd`
const FAMILIES = {
  inet4: {
    single: '203.0.113.5',
    range: '203.0.113.0/24',
    base: '203.0.113.0',
    near: '203.0.113.0/24',
    digit: 4,
    tool: 'iptables',
    alien: /2001|ip6tables|inet6|-6\b/,
  },
  inet6: {
    single: '2001:db8::5',
    range: '2001:db8::/64',
    base: '2001:db8::',
    near: '2001:db8::/48',
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
    const table: [string, keyof typeof backends, Partial<Change>, string[]][] = [
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
        restore(
          `-I perimeter-look 1 -s ${f.single}/${f.digit === 4 ? 32 : 128} -g perimeter-banned`,
          `-I fail2ban-sshd 1 -s ${f.single}/${f.digit === 4 ? 32 : 128} -j DROP`,
        ),
      ],
      [
        'ban of a range',
        'nftables',
        { enter: [entry(f.range)] },
        [
          'nft -f -',
          `add element ${SETS}/${family}/${width} { ${f.base} }`,
          `add element ${TABLE} banned/${family}/${width} { ${f.base} }`,
          `add element ${TABLE} near/${family} { ${f.near.replace(/\/.*/, '')} }`,
        ],
      ],
      [
        'ban of a range',
        'ipset',
        { enter: [entry(f.range)] },
        [
          'ipset -exist restore',
          `add perimeter-ranges-${f.digit} ${f.range}`,
          `add perimeter-banned-${f.digit} ${f.near}`,
          `add fail2ban-sshd-${f.digit}r ${f.range} timeout 0`,
        ],
      ],
      [
        'ban of a range',
        'iptables',
        { enter: [entry(f.range)] },
        restore(
          `-I perimeter-look 1 -s ${f.range} -g perimeter-banned`,
          `-I fail2ban-sshd 1 -s ${f.range} -j DROP`,
        ),
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
    for (const [what, backend, change, lines] of table) {
      test(`${backend} is told exactly this of ${what}`, async () => {
        const said = await told(backend, change)
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
    chains: { before: [], now: chains },
    never: [parseAddress('192.0.2.1')],
  })
  assert.deepEqual(said, [
    'nft -f -',
    `add table ${TABLE}`,
    `add counter ${SETS}`,
    `add set ${TABLE} never-ban/4 { type ipv4_addr; flags interval; auto-merge; }`,
    `add set ${TABLE} never-ban/6 { type ipv6_addr; flags interval; auto-merge; }`,
    `add set ${TABLE} near/inet6 { type ipv6_addr; }`,
    `add set ${TABLE} banned/inet6/64 { type ipv6_addr; }`,
    `add set ${SETS}/inet4 { type ipv4_addr; flags timeout; }`,
    `add set ${SETS}/inet6 { type ipv6_addr; flags timeout; }`,
    `add set ${SETS}/inet6/64 { type ipv6_addr; flags timeout; }`,
    `add chain ${TABLE} near/inet6`,
    `add chain ${SETS}`,
    `add chain ${TABLE} banned/inet6/64`,
    `add chain ${TABLE} input { type filter hook input priority filter - 5; policy accept; }`,
    `add rule ${TABLE} near/inet6 ip6 saddr & ffff:ffff:ffff:ffff:0000:0000:0000:0000 @banned/inet6/64 jump banned/inet6/64`,
    `add rule ${SETS} ip saddr @never-ban/4 accept`,
    `add rule ${SETS} ip6 saddr @never-ban/6 accept`,
    `add rule ${SETS} meta l4proto tcp th dport { 22, 1000-2000 } counter name "fail2ban-sshd" drop comment "sshd"`,
    `add rule ${TABLE} banned/inet6/64 ip6 saddr & ffff:ffff:ffff:ffff:0000:0000:0000:0000 @fail2ban-sshd/inet6/64 jump fail2ban-sshd`,
    `add rule ${TABLE} input ip saddr @fail2ban-sshd/inet4 jump fail2ban-sshd`,
    `add rule ${TABLE} input ip6 saddr @fail2ban-sshd/inet6 jump fail2ban-sshd`,
    `add rule ${TABLE} input ip6 saddr & ffff:ffff:ffff:0000:0000:0000:0000:0000 @near/inet6 jump near/inet6`,
    `flush set ${TABLE} never-ban/4`,
    `add element ${TABLE} never-ban/4 { 192.0.2.1 }`,
    `flush set ${TABLE} never-ban/6`,
  ])
})
