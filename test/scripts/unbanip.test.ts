import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { after, before, test } from 'node:test'
import { openSandbox, type Sandbox } from '../lib/sandbox.ts'
import { standInSsh } from '../lib/standin-ssh.ts'

const ssh = standInSsh()
const file = `${ssh.folder}/config.yaml`
writeFileSync(file, 'owner: web1\nfirewalls:\n  - host: edge1\n  - host: edge2\n')

let box: Sandbox
before(async () => {
  box = await openSandbox()
})
after(() => box.close())

async function unbanip(...words: string[]): Promise<[number, string]> {
  const env = { ...process.env, PATH: ssh.path }
  const args = [resolve('dist/unbanip.cjs'), ...words, '--config', file]
  const { code, stdout, stderr } = await box.run(process.execPath, args, { env })
  return [code, stdout + stderr]
}

test('unbanip tells every firewall, in silence', async () => {
  assert.deepEqual(await unbanip('fail2ban-sshd', '203.0.113.7/32'), [0, ''])
  const told = ['connect', 'unbanip fail2ban-sshd 203.0.113.7']
  assert.deepEqual([ssh.told('edge1'), ssh.told('edge2')], [told, told])
})

test('unbanip names the firewall that refused, and frees on the other', async () => {
  ssh.answer('edge1', 'unbanip', "echo 'firewall: Cannot lock: busy' >&2; exit 75")
  const message = 'unbanip: Cannot unban "203.0.113.7" on "edge1": Cannot lock: busy\n'
  assert.deepEqual(await unbanip('fail2ban-sshd', '203.0.113.7'), [75, message])
  assert.deepEqual(ssh.told('edge2'), ['unbanip fail2ban-sshd 203.0.113.7'])
})

test('unbanip refuses too few or many words with 64 and bad ones with 65, and tells nobody', async () => {
  ssh.told('edge1')
  const table: [number, string[]][] = [
    [64, ['fail2ban-sshd']],
    [64, ['fail2ban-sshd', '203.0.113.7', '22', 'tcp']],
    [64, ['fail2ban-sshd', '203.0.113.7', '--bantimes', '5']],
    [65, ['sshd', '203.0.113.7']],
    [65, ['fail2ban-sshd', '203.0.113.7; id']],
  ]
  for (const [code, words] of table) {
    const [ended, text] = await unbanip(...words)
    assert.deepEqual([words, ended], [words, code])
    assert.match(text, /^unbanip: [^\n]+\n$/)
  }
  assert.deepEqual(ssh.told('edge1'), [])
})
