import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lock } from '../../../scripts/lib/lock.ts'
import { run } from '../../../scripts/lib/run.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('lock')

test('lock() lets one in at a time and the next after it', async () => {
  const release = await lock(`${folder}/a`)
  await assert.rejects(lock(`${folder}/a`, 0), {
    code: 75,
    message: /somebody else is busy with it/,
  })
  release()
  const again = await lock(`${folder}/a`, 0)
  again()
})

test('lock() is one lock for each file', async () => {
  const both = [await lock(`${folder}/b`, 0), await lock(`${folder}/c`, 0)]
  for (const release of both) release()
})

test('lock() keeps out other programs, and is free the moment its holder is killed', async () => {
  const hold = `flock 3; echo held; kill -9 $$`
  const { stdout } = await run('sh', ['-c', `exec 3>"$0"; ${hold}`, `${folder}/d`])
  assert.equal(stdout, 'held\n')
  const release = await lock(`${folder}/d`, 0)
  const other = await run('flock', ['-n', `${folder}/d`, 'true'])
  assert.equal(other.code, 1)
  release()
})

test('lock() answers 75 where there can be no file', async () => {
  await assert.rejects(lock(`${folder}/none/x`), { code: 75, message: /^Cannot open/ })
})
