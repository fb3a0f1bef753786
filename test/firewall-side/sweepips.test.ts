import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DONE, useFirewall } from '../lib/firewall.ts'

const fw = useFirewall()
const SET = 'inet fail2ban-perimeter fail2ban-sshd/inet4'

test('sweepips has nothing to say and nothing to do on an empty firewall', async () => {
  const before = await fw.ledger()
  assert.deepEqual(await fw.root('sweepips'), DONE)
  assert.deepEqual([await fw.ledger(), await fw.blocks()], [before, []])
})

test('sweepips restores what a foreign flush took', async () => {
  await fw.session(['ban fail2ban-sshd 203.0.113.5 22 tcp'])
  await fw.box.sh('nft flush ruleset')
  assert.deepEqual(await fw.root('sweepips'), DONE)
  assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.5'])
  assert.equal((await fw.jumps()).length, 2)
})

test('sweepips renews once a day what lasts longer than the kernel can count', async () => {
  await fw.session(['ban fail2ban-sshd 203.0.113.6 22 tcp 40000000000'])
  const left = async (): Promise<string | undefined> =>
    /203\.0\.113\.6 timeout (\S+) expires/.exec(await fw.box.sh(`nft list set ${SET}`))?.[1]
  const renewed = '365d'
  assert.equal(await left(), renewed)
  await fw.box.sh(`nft delete element ${SET} { 203.0.113.6 }
    nft add element ${SET} { 203.0.113.6 timeout 1h }`)
  assert.deepEqual(await fw.root('sweepips'), DONE)
  assert.equal(await left(), '1h', 'today it was done before')
  await fw.box.sh('rm /run/fail2ban-perimeter/firewall.usage')
  assert.deepEqual(await fw.root('sweepips'), DONE)
  assert.equal(await left(), renewed)
})

test('sweepips refuses a word with 64 and who is not root with 77', async () => {
  assert.equal((await fw.root('sweepips', 'now')).code, 64)
  assert.equal((await fw.nobody('sweepips')).code, 77)
})
