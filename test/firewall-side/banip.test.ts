import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DONE, useFirewall } from '../lib/firewall.ts'

const fw = useFirewall()

test('banip by hand is silent, for the owner "firewall", and may be repeated', async () => {
  for (const _ of [1, 2]) {
    const ended = await fw.root('banip', 'fail2ban-sshd', '203.0.113.5/32', 'ssh', 'tcp')
    assert.deepEqual(ended, DONE)
  }
  assert.match(await fw.ledger(), /\n203\.0\.113\.5 sshd 0 firewall\n$/)
  assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.5'])
  assert.deepEqual(await fw.jumps(), ['FORWARD fail2ban-sshd 22', 'INPUT fail2ban-sshd 22'])
})

test('banip --owner is a ban of that server, with an end', async () => {
  const words = ['fail2ban-sshd', '203.0.113.5', '22', 'tcp', '4000000000']
  assert.deepEqual(await fw.root('banip', '--owner', 'web1', ...words), DONE)
  assert.match(await fw.ledger(), /\n203\.0\.113\.5 sshd 4000000000 web1\n$/)
})

test('banip refuses wrong usage with 64, bad values with 65, and changes nothing', async () => {
  const before = await fw.ledger()
  const table: [number, string[]][] = [
    [64, ['fail2ban-sshd', '203.0.113.6', '22']],
    [64, ['fail2ban-sshd', '203.0.113.6', '22', 'tcp', '0', 'more']],
    [65, ['sshd', '203.0.113.6', '22', 'tcp']],
    [65, ['fail2ban-sshd', 'example.com', '22', 'tcp']],
    [65, ['fail2ban-sshd', '203.0.113.6', '22', 'tcp', 'tomorrow']],
    [65, ['fail2ban-sshd', '203.0.113.6', '22', 'tcp', '--owner', 'web1 web2']],
    [65, ['fail2ban-sshd', '127.0.0.1', '22', 'tcp']],
  ]
  for (const [code, words] of table) {
    const ended = await fw.root('banip', ...words)
    assert.deepEqual([words, ended.code, ended.stdout], [words, code, ''])
    assert.match(ended.stderr, /^banip: [^\n]+\n$/)
  }
  assert.equal(await fw.ledger(), before)
})

test('banip refuses who is not root with 77', async () => {
  const ended = await fw.nobody('banip', 'fail2ban-sshd', '203.0.113.6', '22', 'tcp')
  const stderr = 'banip: Cannot change the firewall as an ordinary user: run it as root\n'
  assert.deepEqual(ended, { code: 77, stdout: '', stderr })
})
