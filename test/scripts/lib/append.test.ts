import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { test } from 'node:test'
import { appendToQueue } from '../../../scripts/lib/delivery/append.ts'
import { Queue, wordsOf } from '../../../scripts/lib/delivery/queue.ts'
import { run } from '../../../scripts/lib/run.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('append')

test('appendToQueue() writes a line that the queue reads, behind whatever was torn before it', () => {
  const path = `${folder}/firewall`
  appendToQueue(path, ['unban', '192.0.2.7', 'sshd'])
  appendToQueue(path, ['unban', '2001:db8::7', '-'])
  assert.equal(readFileSync(path, 'utf8'), '\nunban|192.0.2.7|sshd|.\n\nunban|2001:db8::7|-|.\n')
  assert.equal(statSync(path).mode & 0o137, 0, 'nobody else may write, others not even read')
  const queue = new Queue(path)
  assert.deepEqual(queue.read().map(wordsOf), [
    ['unban', '192.0.2.7', 'sshd'],
    ['unban', '2001:db8::7', '-'],
  ])
  queue.close()
})

test('appendToQueue() begins a new file when the old one was put away', () => {
  const path = `${folder}/sophosxg`
  appendToQueue(path, ['unban', '192.0.2.7', 'sshd'])
  renameSync(path, `${path}.taken`)
  appendToQueue(path, ['unban', '192.0.2.8', 'sshd'])
  assert.equal(readFileSync(path, 'utf8'), '\nunban|192.0.2.8|sshd|.\n')
})

test('appendToQueue() fails with 75 on a full disk, without a directory, and follows no link', async () => {
  const append = (path: string) => () => appendToQueue(path, ['unban', '192.0.2.7', 'sshd'])
  const disk = `${folder}/disk`
  mkdirSync(disk)
  const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=4k', 'tmpfs', disk])
  assert.equal(mounted.code, 0, mounted.stderr)
  try {
    writeFileSync(`${disk}/firewall`, 'x'.repeat(4090))
    assert.throws(append(`${disk}/firewall`), { code: 75, message: /: the disk is full$/ })
  } finally {
    await run('umount', [disk])
  }
  const missing = { code: 75, message: /no such file or directory$/ }
  assert.throws(append(`${folder}/none/firewall`), missing)
  symlinkSync(`${folder}/elsewhere`, `${folder}/link`)
  assert.throws(append(`${folder}/link`), { code: 75 })
  assert.equal(existsSync(`${folder}/elsewhere`), false)
})
