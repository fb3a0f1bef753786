import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DONE, useFirewall } from '../lib/firewall.ts'

const fw = useFirewall()

test('unbanip by hand releases what the firewall holds, and only that', async () => {
  for (const owner of ['firewall', 'web1']) {
    await fw.root('banip', 'fail2ban-sshd', '203.0.113.5', '22', 'tcp', '--owner', owner)
  }
  assert.deepEqual(await fw.root('unbanip', 'fail2ban-sshd', '203.0.113.5'), DONE)
  assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.5'])
  const ended = await fw.root('unbanip', '--owner', 'web1', 'fail2ban-sshd', '203.0.113.5')
  assert.deepEqual(ended, DONE)
  assert.deepEqual(await fw.blocks(), [])
})

test('unbanip takes what was never banned, or may not be, for done', async () => {
  const before = await fw.ledger()
  assert.deepEqual(await fw.root('unbanip', 'fail2ban-sshd', '203.0.113.200'), DONE)
  assert.deepEqual(await fw.root('unbanip', 'fail2ban-none', '127.0.0.0/8'), DONE)
  assert.equal(await fw.ledger(), before)
})

test('unbanip refuses wrong usage with 64, bad values with 65, who is not root with 77', async () => {
  const codes = [
    await fw.root('unbanip', 'fail2ban-sshd'),
    await fw.root('unbanip', 'fail2ban-sshd', '203.0.113.5', '22'),
    await fw.root('unbanip', 'sshd', '203.0.113.5'),
    await fw.root('unbanip', 'fail2ban-sshd', '203.0.113'),
    await fw.nobody('unbanip', 'fail2ban-sshd', '203.0.113.5'),
  ].map(({ code }) => code)
  assert.deepEqual(codes, [64, 64, 65, 65, 77])
})
