import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCommand, parseLine, parseSyncLine } from '../../../firewall-side/lib/request.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'

const address = parseAddress('192.0.2.1')

test('parseCommand() reads every word of the wire', () => {
  const naming = { ports: '22', protocol: 'tcp' }
  const ban = { verb: 'ban', jail: 'sshd', address, naming }
  assert.deepEqual(parseCommand('banip fail2ban-sshd 192.0.2.1 22 tcp'), { ...ban, expires: 0 })
  assert.deepEqual(parseCommand('banip fail2ban-sshd 192.0.2.1 22 tcp 5'), { ...ban, expires: 5 })
  assert.deepEqual(parseCommand('unbanip fail2ban-sshd 192.0.2.1'), {
    verb: 'unban',
    jail: 'sshd',
    address,
  })
  assert.deepEqual(parseCommand('listips'), { verb: 'list', jail: undefined })
  assert.deepEqual(parseCommand('fluships fail2ban-a:b'), { verb: 'flush', jail: 'a:b' })
  assert.deepEqual(parseCommand('blocked 192.0.2.1'), { verb: 'blocked', address })
  assert.deepEqual(parseCommand('checkfw'), { verb: 'check' })
})

test('parseCommand() refuses words it does not know, and too few or too many, with 64', () => {
  const lines = [
    '',
    'ban',
    'sync',
    'constructor',
    'banip',
    'banip fail2ban-sshd 192.0.2.1 22',
    'checkfw x',
    'blocked',
    'blocked 192.0.2.1 web2',
    'listips fail2ban-a x',
    'unbanip fail2ban-a 192.0.2.1 22',
    'banip fail2ban-a 192.0.2.1 22 tcp 0 x',
  ]
  for (const line of lines.filter((text) => text !== 'constructor')) {
    assert.throws(() => parseCommand(line), { code: 64 }, line)
  }
})

test('parseCommand() refuses bad values with 65', () => {
  const lines = [
    'banip INPUT 192.0.2.1 22 tcp',
    'banip fail2ban-a 192.0.2 22 tcp',
    'banip fail2ban-a 192.0.2.1 70000 tcp',
    'banip fail2ban-a 192.0.2.1 22 ipx',
    'banip fail2ban-a 192.0.2.1 22 tcp -1',
    'unbanip fail2ban-a\t192.0.2.1',
    'banip fail2ban-ä 192.0.2.1 22 tcp',
    'blocked fail2ban-a',
    `listips ${'x'.repeat(600)}`,
  ]
  for (const line of lines) assert.throws(() => parseCommand(line), { code: 65 }, line)
})

test('parseLine() announces a sync with its count', () => {
  const { count, ...request } = parseLine('sync fail2ban-sshd - - 2')
  assert.equal(count, 2)
  assert.deepEqual(request, {
    verb: 'sync',
    jail: 'sshd',
    naming: { ports: '-', protocol: '-' },
    leases: [],
  })
  for (const line of ['sync fail2ban-sshd - - x', 'sync fail2ban-sshd - - -1', 'sync sshd - - 1']) {
    assert.throws(() => parseLine(line), { code: 65 })
  }
  for (const line of ['sync', 'sync fail2ban-sshd 1', 'banip fail2ban-sshd 192.0.2.1 22 tcp']) {
    assert.throws(() => parseLine(line), { code: 64 })
  }
})

test('parseSyncLine() reads two words', () => {
  assert.deepEqual(parseSyncLine('192.0.2.1 7', 'a'), { address, jail: 'a', expires: 7 })
  assert.deepEqual(parseSyncLine(' 192.0.2.1  7 ', 'a').expires, 7)
  for (const line of [
    '',
    '192.0.2.1',
    '192.0.2.1 7 x',
    'x 7',
    '192.0.2.1 7\r',
    '192.0.2.1 \u00007',
    ' 7',
  ]) {
    assert.throws(() => parseSyncLine(line, 'a'), { code: 65 })
  }
})
