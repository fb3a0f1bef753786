import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ActionFiles } from '../../../scripts/lib/net2ban/actions.ts'
import { checkCall } from '../../../scripts/lib/net2ban/call.ts'
import { checkPublic } from '../../../scripts/lib/net2ban/limits.ts'

type Params = Record<string, string>

const IP = { name: 'sshd', ip: '192.0.2.7' }

function accepts(params: Params, action = 'actionban', file = 'iptables'): Params {
  return { ...checkCall(file, action, params).params }
}

function refuses(params: Params, action = 'actionban', file = 'iptables'): void {
  const what = JSON.stringify({ file, action, params })
  assert.throws(
    () => checkCall(file, action, params),
    (error: Error & { code?: number }) => {
      assert.equal(error.code, 65, what)
      assert.doesNotMatch(error.message, /[\n\r\0]/, what)
      assert.ok(error.message.length < 300, what)
      return true
    },
    what,
  )
}

test('checkCall() takes what Fail2Ban passes', () => {
  const start = { name: 'sshd', chain: 'INPUT', protocol: 'tcp,udp', port: 'ssh,8000-8010' }
  assert.deepEqual(accepts(start, 'actionstart', 'iptables-multiport'), {
    ...start,
    port: '22,8000:8010',
  })
  assert.deepEqual(accepts(IP), IP)
  const times = {
    time: '1700000000.259',
    bantime: '-1',
    failures: '5',
    bancount: '2',
    restored: '1',
  }
  assert.deepEqual(accepts({ ...IP, ...times }), { ...IP, ...times })
  const words = { blocktype: 'DROP', type: 'allports', table: 'f2b-table', maxelem: '65536' }
  assert.deepEqual(accepts({ ...words, name: 'a.b@c:d' }, 'actionstart'), {
    ...words,
    name: 'a.b@c:d',
  })
  assert.deepEqual(accepts({ port: 'all', protocol: 'all' }, 'actionstart'), {
    port: '0:65535',
    protocol: 'all',
  })
})

test('checkCall() makes addresses canonical', () => {
  assert.equal(accepts({ ip: '::FFFF:192.0.2.7' }).ip, '192.0.2.7')
  assert.equal(accepts({ ip: '2001:DB8:0::7' }).ip, '2001:db8::7')
  assert.equal(accepts({ ip: '192.0.2.77/24' }).ip, '192.0.2.0/24')
})

test('checkCall() refuses files that are no plain name', () => {
  const files = [
    '',
    '.',
    '..',
    '../iptables',
    '/etc/passwd',
    'a/b',
    'a.conf',
    '-w',
    'a b',
    'a;b',
    'ä',
  ]
  for (const file of [...files, 'a\nb', 'x'.repeat(65)]) refuses(IP, 'actionban', file)
})

test('checkCall() refuses actions that are none', () => {
  const actions = ['', 'ban', 'actionreload', 'actionBan', 'constructor', 'timeout', 'actionban x']
  for (const action of actions) refuses(IP, action)
})

test('checkCall() refuses hostile values of every kind', () => {
  const ips = [
    '',
    '1.2.3',
    '999.1.1.1',
    '$(id)',
    '1.2.3.4;id',
    'fe80::1%eth0',
    '-j ACCEPT',
    '1.2.3.4 -j',
  ]
  for (const ip of [...ips, 'example.com', '1.2.3.4\n', '01.2.3.4', '1.2.3.4/33']) refuses({ ip })
  const names = [
    '',
    '-w',
    '--help',
    'a b',
    'a;id',
    'a`id`',
    '$HOME',
    '../x',
    'a/b',
    'a\nb',
    'x'.repeat(65),
  ]
  for (const name of [...names, 'a*', 'a|b', '<ip>', '%(x)s', "a'b", 'a"b', 'ä'])
    refuses({ ...IP, name })
  const ports = ['22;id', '-1', '0:99999', '70000', 'no-such-service', ',', '22,-j']
  for (const port of [...ports, '$(id)', '80:22', '22\n', 'constructor']) {
    refuses({ port }, 'actionstart')
  }
  for (const protocol of ['tcp;id', '-p', 'tcp\n', 'bogus', 'toString']) {
    refuses({ protocol }, 'actionstart')
  }
  for (const chain of ['', '-A', 'INPUT;id', 'IN PUT', 'INPUT,-w', '1x', 'a/b', 'x'.repeat(30)]) {
    refuses({ chain }, 'actionstart')
  }
  for (const bantime of ['', '1h', '-2', '1e9', '0x10', '600;id', ' 600', '99999999999']) {
    refuses({ ...IP, bantime })
  }
  for (const time of ['', 'now', '-1', '1.', '.5', '1,5', 'NaN', '1700000000.0;id']) {
    refuses({ ...IP, time })
  }
  for (const restored of ['2', 'true', '']) refuses({ ...IP, restored })
  for (const blocktype of [
    '',
    '-j',
    'DROP;id',
    'REJECT --reject-with x',
    '/bin/sh',
    '../x',
    '`id`',
  ]) {
    refuses({ blocktype }, 'actionstart')
  }
})

test('checkCall() lets a call block, not open the node, cut it off, or free what is another’s', () => {
  for (const blocktype of ['DROP', 'reject', 'unreachable', 'blackhole']) {
    accepts({ blocktype }, 'actionstart')
  }
  for (const blocktype of ['ACCEPT', 'accept', 'RETURN', 'pass', 'allow', 'LOG', 'ufw-allow']) {
    refuses({ blocktype }, 'actionstart')
  }
  accepts({ returntype: 'RETURN' }, 'actionstart')
  for (const returntype of ['DROP', 'REJECT', 'ACCEPT', 'INPUT']) {
    refuses({ returntype }, 'actionstart')
  }
  refuses({ ...IP, owner: 'web2' }, 'actionunban', 'perimeter')
})

test('checkPublic() keeps what blocks and what is named as Fail2Ban’s own', async () => {
  const files = new ActionFiles('/etc/fail2ban/action.d')
  const check = (file: string, params: Params) => checkPublic(file, params, files)
  await check('nftables', { table: 'f2b-other', table_family: 'inet' })
  // Its actionstop deletes the table when no set is left in it.
  await assert.rejects(check('nftables', { table: 'filter' }), /must begin with f2b/)
  await assert.rejects(check('pf', { tablename: 'trusted' }), /must begin with f2b/)
  await check('cloudflare-token', { cfmode: 'block' })
  await assert.rejects(check('cloudflare-token', { cfmode: 'whitelist' }), /it does not block/)
})

test('checkCall() refuses tags that are programs, actions, private, or nobody else’s business', () => {
  const tags = [
    'iptables',
    'ip6tables',
    'nftables',
    'nft',
    'ipset',
    'lockingopt',
    'timeout',
    'actname',
  ]
  const actions = ['actionban', 'actionstart', 'actionstart_on_demand', 'action', 'norestored']
  const odd = [
    '_ipt_add_rules',
    '_x',
    'family',
    'families',
    'known',
    '',
    'a b',
    'A',
    'x?family=inet6',
  ]
  const paths = ['known/blocktype', 'a/b', 'a.b', '-x', '--x', '__proto__', 'x=y', 'x\n', 'F-USER']
  for (const tag of [...tags, ...actions, ...odd, ...paths]) {
    refuses(JSON.parse(`{${JSON.stringify(tag)}: "x1"}`) as Params, 'actionstart')
  }
})

test('checkCall() wants an address exactly where an action is about one', () => {
  for (const action of ['actionban', 'actionunban', 'actionprolong'])
    refuses({ name: 'sshd' }, action)
  for (const action of [
    'actionstart',
    'actionstop',
    'actionflush',
    'actioncheck',
    'actionrepair',
  ]) {
    refuses(IP, action)
  }
})

test('checkCall() refuses a jail that no lease could name', () => {
  refuses({ ip: '192.0.2.7', name: 'x'.repeat(60) })
  accepts({ ip: '192.0.2.7', name: 'x'.repeat(55) })
})
