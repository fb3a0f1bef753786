import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePorts, parseProtocols, unionOfServices } from '../../../scripts/lib/ports.ts'

test('parsePorts() reads what Fail2Ban passes, merged and in order', () => {
  const table: [string, unknown][] = [
    ['ssh', [[22, 22]]],
    [
      '22,80',
      [
        [22, 22],
        [80, 80],
      ],
    ],
    [
      '80, ssh',
      [
        [22, 22],
        [80, 80],
      ],
    ],
    ['1000:2000', [[1000, 2000]]],
    ['1500:3000,1000:2000,3001', [[1000, 3001]]],
    [
      'smtp,465,submission',
      [
        [25, 25],
        [465, 465],
        [587, 587],
      ],
    ],
    [
      'imap3,sieve',
      [
        [220, 220],
        [4190, 4190],
      ],
    ],
    ['0:65535', 'all'],
    ['1:65535', 'all'],
    ['1:30000,30001:65535', 'all'],
    ['all', 'all'],
  ]
  for (const [text, ranges] of table) assert.deepEqual(parsePorts(text), ranges, text)
})

test('parsePorts() refuses what is no port', () => {
  const refused = [
    '',
    ',',
    '22,',
    '65536',
    '2000:1000',
    '1:2:3',
    '-1',
    ':',
    'no-such-service',
    '$(id)',
    '22;id',
  ]
  for (const text of refused) assert.throws(() => parsePorts(text), { code: 65 }, text)
})

test('parseProtocols() reads one or a list, each once', () => {
  assert.deepEqual(parseProtocols('tcp'), ['tcp'])
  assert.deepEqual(parseProtocols('TCP, udp,tcp'), ['tcp', 'udp'])
  for (const text of ['', 'tcp,', 'ipv6-icmp', '6']) {
    assert.throws(() => parseProtocols(text), { code: 65, message: /one of tcp, udp/ })
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
