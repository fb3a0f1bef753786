import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { type Ended, run } from '../../scripts/lib/run.ts'
import { temporaryFolder } from '../lib/folder.ts'

const folder = temporaryFolder('dummy')
writeFileSync(`${folder}/config.yaml`, 'owner: web1\n')

function dummy(input: string, ...args: string[]): Promise<Ended> {
  return run(process.execPath, ['dist/dummy.cjs', ...args, '--config', `${folder}/config.yaml`], {
    input,
  })
}

test('f2b-dummy shows the lease of a ban, with its end', async () => {
  const options = [
    '--ip',
    '203.0.113.7/32',
    '--name',
    'sshd',
    '--time',
    '4000000000.5',
    '--bantime',
    '60',
  ]
  const { code, stdout } = await dummy('', 'ban', ...options, '--port', 'ssh')
  assert.deepEqual([code, stdout], [0, 'ban 203.0.113.7 sshd 4000000061 web1 22 all\n'])
})

test('f2b-dummy shows what a sync would do and counts it', async () => {
  const { code, stdout } = await dummy('203.0.113.7 sshd 0\n127.0.0.1 sshd 0\n', 'sync')
  const counts = 'added 1, extended 0, removed 0, unchanged 0, refused 1'
  assert.deepEqual([code, stdout], [0, `ban 203.0.113.7 sshd 0 web1\n${counts}\n`])
})

test('f2b-dummy shows every other verb and lists nothing', async () => {
  for (const verb of ['start', 'stop', 'check', 'flush']) {
    assert.equal((await dummy('', verb, '--name', 'sshd')).stdout, `${verb} sshd\n`)
  }
  assert.equal(
    (await dummy('', 'unban', '--ip', '203.0.113.7')).stdout,
    'unban 203.0.113.7 - web1\n',
  )
  assert.equal((await dummy('', 'list')).stdout, '')
})
