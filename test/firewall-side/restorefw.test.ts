import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DONE, useFirewall } from '../lib/firewall.ts'

const fw = useFirewall()

test('restorefw --remove takes everything of ours out of the kernel, restorefw brings it back', async () => {
  await fw.session([
    'ban fail2ban-sshd 203.0.113.5 22 tcp',
    'ban fail2ban-sshd 2001:db8::/48 22 tcp',
    'ban fail2ban-web 203.0.113.5 80 tcp 4000000000',
  ])
  const [ledger, blocks, jumps] = [await fw.ledger(), await fw.blocks(), await fw.jumps()]
  assert.deepEqual(await fw.root('restorefw', '--remove'), DONE)
  assert.doesNotMatch(await fw.box.sh('nft list ruleset'), /fail2ban/)
  assert.equal(await fw.ledger(), ledger)
  for (const _ of [1, 2]) {
    const { stdout } = await fw.root('restorefw')
    assert.equal(stdout, 'restored 3 blocks in 2 chains\n')
    assert.deepEqual([await fw.blocks(), await fw.jumps()], [blocks, jumps])
  }
})

test('restorefw leaves out what is over, and fills a firewall of which nothing is left in /run', async () => {
  const lines =
    '# generation abcd0123 1\n203.0.113.5 sshd 1600000000 web1\n203.0.113.6 sshd 0 web1\n'
  await fw.reset('nftables', lines)
  assert.equal((await fw.root('restorefw')).stdout, 'restored 1 block in 1 chain\n')
  assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.6'])
})

test('restorefw refuses a word with 64, so that nobody means --remove, and who is not root with 77', async () => {
  assert.equal((await fw.root('restorefw', 'remove')).code, 64)
  assert.equal((await fw.nobody('restorefw')).code, 77)
  assert.equal((await fw.blocks()).length, 1)
})
