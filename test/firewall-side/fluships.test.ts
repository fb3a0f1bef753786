import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DONE, useFirewall } from '../lib/firewall.ts'

const fw = useFirewall()

test('fluships releases one chain or all of an owner, and says nothing', async () => {
  const bans = ['sshd', 'web'].map((jail) => `ban fail2ban-${jail} 203.0.113.5 22 tcp`)
  await fw.session(bans)
  await fw.session(bans, 'firewall')
  assert.deepEqual(await fw.root('fluships', 'fail2ban-sshd'), DONE)
  assert.equal((await fw.blocks()).length, 2)
  assert.deepEqual(await fw.root('fluships', 'fail2ban-sshd', '--owner', 'web1'), DONE)
  assert.deepEqual(await fw.blocks(), ['fail2ban-web 203.0.113.5'])
  assert.deepEqual(await fw.root('fluships', '--owner=web1'), DONE)
  assert.equal((await fw.root('listips')).stdout, '203.0.113.5 web 0 firewall\n')
  for (const _ of [1, 2]) assert.deepEqual(await fw.root('fluships'), DONE)
  assert.deepEqual([await fw.blocks(), await fw.jumps()], [[], []])
})

test('fluships refuses wrong usage with 64, bad values with 65, who is not root with 77', async () => {
  const codes = [
    await fw.root('fluships', 'fail2ban-sshd', 'fail2ban-web'),
    await fw.root('fluships', 'all'),
    await fw.root('fluships', '--owner', ''),
    await fw.nobody('fluships'),
  ].map(({ code }) => code)
  assert.deepEqual(codes, [64, 65, 65, 77])
})
