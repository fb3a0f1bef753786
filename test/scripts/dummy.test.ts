import assert from 'node:assert/strict'
import { appendFileSync, existsSync, rmSync, writeFileSync } from 'node:fs'
import { beforeEach, test } from 'node:test'
import { type Ended, run } from '../../scripts/lib/run.ts'
import { temporaryFolder } from '../lib/folder.ts'

const folder = temporaryFolder('dummy')
const state = `${folder}/state`
const config = `${folder}/config.yaml`
writeFileSync(config, `owner: web1\nstate_dir: ${state}\n`)
const LEASE = '203.0.113.7 sshd 4000000061 web1'
const BAN = 'ban --ip 203.0.113.7/32 --name sshd --time 4000000000.5 --bantime 60'.split(' ')

beforeEach(() => rmSync(state, { recursive: true, force: true }))

function dummy(input: string, ...args: string[]): Promise<Ended> {
  return run(process.execPath, ['dist/dummy.cjs', ...args, '--config', config], { input })
}

test('f2b-dummy shows the lease of a ban, with its end, and lists it until it is released', async () => {
  const { code, stdout } = await dummy('', ...BAN, '--port', 'ssh')
  assert.deepEqual([code, stdout], [0, `ban ${LEASE} 22\n`])
  assert.equal((await dummy('', 'list')).stdout, `${LEASE}\n`)
  assert.equal((await dummy('', 'list', '--name', 'web')).stdout, '')
  const unban = await dummy('', 'unban', '--ip', '203.0.113.7', '--name', 'sshd')
  assert.equal(unban.stdout, 'unban 203.0.113.7 sshd web1\n')
  assert.equal((await dummy('', 'list')).stdout, '')
})

test('f2b-dummy shows what a sync changes and counts it; the second time nothing', async () => {
  await dummy('', ...BAN)
  const lines = '203.0.113.8 sshd 0\n127.0.0.1 sshd 0\n'
  const shown = 'unban 203.0.113.7 sshd web1\nban 203.0.113.8 sshd 0 web1\n'
  const first = 'added 1, extended 0, removed 1, unchanged 0, refused 1\n'
  assert.deepEqual(await dummy(lines, 'sync'), { code: 0, stdout: shown + first, stderr: '' })
  const second = 'added 0, extended 0, removed 0, unchanged 1, refused 1\n'
  assert.equal((await dummy(lines, 'sync')).stdout, second)
  assert.equal((await dummy('', 'flush')).stdout, 'unban 203.0.113.8 sshd web1\n')
  assert.equal((await dummy('', 'list')).stdout, '')
})

test('f2b-dummy shows start and check; a dry run remembers nothing', async () => {
  for (const verb of ['start', 'check']) {
    assert.equal((await dummy('', verb, '--name', 'sshd')).stdout, `${verb} sshd\n`)
  }
  assert.equal((await dummy('', 'stop')).stdout, '')
  assert.equal((await dummy('', ...BAN, '--dry-run')).stdout, `ban ${LEASE}\n`)
  assert.equal((await dummy('', 'list')).stdout, '')
})

test('f2b-dummy check fails with 75 if its file cannot be read', async () => {
  await dummy('', ...BAN)
  appendFileSync(`${state}/dummy.leases`, 'nonsense\n')
  const { code, stderr } = await dummy('', 'check')
  assert.deepEqual(
    [code, stderr, existsSync(`${state}/dummy.leases`)],
    [75, 'dummy: Cannot check on "dummy": cannot read 1 lines of its file\n', true],
  )
})
