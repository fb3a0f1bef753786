import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { type Ended, run } from '../../scripts/lib/run.ts'
import { temporaryFolder } from '../lib/folder.ts'

const folder = temporaryFolder('banip')
writeFileSync(
  `${folder}/config.yaml`,
  'owner: web1\nfirewalls:\n  - host: edge1\n  - host: edge2\n',
)

function call(command: string, ...args: string[]): Promise<Ended> {
  const options = ['--config', `${folder}/config.yaml`, '--dry-run']
  return run(process.execPath, [`dist/${command}.cjs`, ...args, ...options])
}

test('banip would send the document’s words to every firewall', async () => {
  const { code, stdout } = await call('banip', 'fail2ban-sshd', '203.0.113.7', '80,ssh', 'tcp')
  const words = 'banip fail2ban-sshd 203.0.113.7 22,80 tcp 0\n'
  assert.deepEqual([code, stdout], [0, `edge1: ${words}edge2: ${words}`])
})

test('unbanip would send its two words, also for what may not be banned', async () => {
  const { code, stdout } = await call('unbanip', 'fail2ban-sshd', '127.0.0.1')
  const words = 'unbanip fail2ban-sshd 127.0.0.1\n'
  assert.deepEqual([code, stdout], [0, `edge1: ${words}edge2: ${words}`])
})

test('banip refuses too few words with 64 and bad ones with 65', async () => {
  const codes = [
    ['fail2ban-sshd', '203.0.113.7', '22'],
    ['INPUT', '203.0.113.7', '22', 'tcp'],
    ['fail2ban-sshd', '203.0.113', '22', 'tcp'],
    ['fail2ban-sshd', '203.0.113.7', 'no port', 'tcp'],
    ['fail2ban-sshd', '203.0.113.7', '22', 'ipx'],
    ['fail2ban-sshd', '127.0.0.1', '22', 'tcp'],
  ].map(async (words) => (await call('banip', ...words)).code)
  assert.deepEqual(await Promise.all(codes), [64, 65, 65, 65, 65, 65])
})
