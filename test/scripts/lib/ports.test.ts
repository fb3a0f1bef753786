import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePorts, readNaming, unionOfServices } from '../../../scripts/lib/ports.ts'

test('parsePorts() reads every notation of iptables, nftables, firewalld and Fail2Ban', () => {
  const table: [string, string][] = [
    ['ssh', '22'],
    ['22,80', '22,80'],
    ['80, ssh', '22,80'],
    ['1000:2000', '1000:2000'],
    ['5060-5061,10000-20000', '5060:5061,10000:20000'],
    ['1500:3000,1000:2000,3001', '1000:3001'],
    ['{ 22, 80-90 }', '22,80:90'],
    ['{22 80}', '22,80'],
    ["'smtp, smtps'", '25,465'],
    ['"smtp"', '25'],
    ['"{ 22 }"', '22'],
    ['smtp,465,submission,', '25,465,587'],
    [',22', '22'],
    ['22 80', '22,80'],
    ['imap3,sieve', '220,4190'],
    ['ftp-data', '20'],
    ['ftp-data:ftp', '20:21'],
    ['ftp-data-ftp', '20:21'],
    ['ssh-smtp', '22:25'],
    ['1024:', '1024:65535'],
    [':1023', '0:1023'],
    ['0', '0'],
    ['0:65535', 'all'],
    ['0-65535', 'all'],
    ['1:65535', 'all'],
    [':', 'refused'],
    ['1:30000,30001:65535', 'all'],
    ['all', 'all'],
    ['ALL', 'all'],
    ['any', 'all'],
    ['ssh,any', 'all'],
    ['', 'all'],
    [' ', 'all'],
    [',', 'refused'],
    ['{}', 'refused'],
    ['65536', 'refused'],
    ['2000:1000', 'refused'],
    ['1:2:3', 'refused'],
    ['1-2-3', 'refused'],
    ['-1', 'refused'],
    ['1-', 'refused'],
    ['-', 'refused'],
    ['!22', 'refused'],
    ['22/tcp', 'refused'],
    ['22,no-such-service', 'refused'],
    ['{22', 'refused'],
    ['22\n80', 'refused'],
    ['22\t80', 'refused'],
    ['$(id)', 'refused'],
    ['22;id', 'refused'],
    ['constructor', 'refused'],
  ]
  for (const [text, expected] of table) {
    const read = () => readNaming(text, 'tcp').ports
    if (expected === 'refused')
      assert.throws(read, { code: 65, message: /^Cannot read port/ }, text)
    else assert.equal(read(), expected, text)
  }
  assert.deepEqual(parsePorts('22,80:81'), [
    [22, 22],
    [80, 81],
  ])
})

test('parseProtocols() reads names and numbers, one or a list, each once', () => {
  const table: [string, string][] = [
    ['tcp', 'tcp'],
    ['TCP, udp,tcp', 'tcp,udp'],
    ['tcp udp', 'tcp,udp'],
    ['{tcp,udp}', 'tcp,udp'],
    ['{ tcp, udp }', 'tcp,udp'],
    ["'tcp'", 'tcp'],
    ['tcp,', 'tcp'],
    ['6', 'tcp'],
    ['17,6', 'udp,tcp'],
    ['ipv6-icmp', 'icmp'],
    ['icmp,icmpv6,58', 'icmp'],
    ['esp,ah,47', 'esp,ah,gre'],
    ['ip', 'all'],
    ['any', 'all'],
    ['all', 'all'],
    ['0', 'all'],
    ['tcp,all', 'all'],
    ['', 'all'],
  ]
  for (const [text, expected] of table)
    assert.equal(readNaming('22', text).protocol, expected, text)
  for (const text of [',', '{}', '-p', 'bogus', '253', '!tcp', 'tcp/udp', 'tcp\nudp', 'toString']) {
    assert.throws(
      () => readNaming('22', text),
      { code: 65, message: /^Cannot read protocol .*: one of tcp, udp/ },
      text,
    )
  }
})

test('what readNaming() answers, it reads as the same', () => {
  for (const naming of [
    { ports: '22,80:90', protocol: 'tcp,udp' },
    { ports: 'all', protocol: 'all' },
  ]) {
    assert.deepEqual(readNaming(naming.ports, naming.protocol), naming)
  }
})
test('unionOfServices() covers what any owner named, once', () => {
  const union = (...pairs: string[]): unknown =>
    unionOfServices(
      pairs.map((pair) => {
        const [ports = '', protocol = ''] = pair.split('/')
        return { ports, protocol }
      }),
    )
  assert.deepEqual(union('22/tcp', '80,22/tcp'), [
    {
      protocol: 'tcp',
      ports: [
        [22, 22],
        [80, 80],
      ],
    },
  ])
  assert.deepEqual(union('53/all'), [
    { protocol: 'tcp', ports: [[53, 53]] },
    { protocol: 'udp', ports: [[53, 53]] },
  ])
  assert.deepEqual(union('22/icmp'), [{ protocol: 'icmp', ports: 'all' }])
  assert.deepEqual(union('22/tcp', 'all/tcp'), [{ protocol: 'tcp', ports: 'all' }])
  assert.deepEqual(union('22/tcp', 'all/all'), [{ protocol: 'all', ports: 'all' }])
  assert.deepEqual(union(), [])
})
