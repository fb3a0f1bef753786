import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LEDGER, useFirewall } from '../lib/firewall.ts'

const fw = useFirewall()

test('checkfw says generation, leases of the owner, and what it restored', async () => {
  await fw.root('banip', 'fail2ban-sshd', '203.0.113.5', '22', 'tcp', '--owner', 'web1')
  const lines = 'generation abcd0123\nleases 1\n'
  assert.equal((await fw.root('checkfw', '--owner', 'web1')).stdout, lines)
  await fw.box.sh('nft flush ruleset')
  const { code, stdout, stderr } = await fw.root('checkfw')
  const restored = 'restored 1 block that the kernel did not have as they should be'
  assert.deepEqual([code, stderr], [0, ''])
  assert.equal(stdout, `generation abcd0123\nleases 0\n${restored}\n`)
  assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.5'])
})

test('checkfw fails with 75 after the ledger was lost, until this owner has begun anew', async () => {
  await fw.box.sh(`rm ${LEDGER}`)
  const { code, stdout, stderr } = await fw.root('checkfw')
  assert.deepEqual([code, stdout], [75, ''])
  assert.match(stderr, /^checkfw: lost generation: [^\n]+\n$/)
  await fw.root('fluships')
  assert.match((await fw.root('checkfw')).stdout, /^generation [0-9a-f]{8}\nleases 0\n/)
  assert.equal((await fw.root('checkfw', '--owner', 'web1')).code, 75)
})

test('checkfw tells a bad firewall.yaml with 78 and its place', async () => {
  await fw.configure('backend: nftables\nhooks: [input]\n')
  const { code, stderr } = await fw.root('checkfw')
  assert.equal(code, 78)
  assert.match(stderr, /^checkfw: \/etc\/fail2ban-perimeter\/firewall\.yaml:2:\d+: [^\n]+\n$/)
  await fw.configure('backend: nftables\n')
})

test('checkfw refuses a word with 64, a bad owner with 65, who is not root with 77', async () => {
  const codes = [
    await fw.root('checkfw', 'fail2ban-sshd'),
    await fw.root('checkfw', '--owner', '-x'),
    await fw.nobody('checkfw'),
  ].map(({ code }) => code)
  assert.deepEqual(codes, [64, 65, 77])
})
