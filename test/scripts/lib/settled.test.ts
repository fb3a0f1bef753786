import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { configPath, settled } from '../../../scripts/lib/settled.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('settled')

test('configPath() takes the given file, else that of the environment', () => {
  const before = process.env.FAIL2BAN_PERIMETER_CONFIG
  process.env.FAIL2BAN_PERIMETER_CONFIG = '/from/environment'
  try {
    assert.equal(configPath('/given'), '/given')
    assert.equal(configPath(), '/from/environment')
  } finally {
    if (before === undefined) delete process.env.FAIL2BAN_PERIMETER_CONFIG
    else process.env.FAIL2BAN_PERIMETER_CONFIG = before
  }
})

test('settled() never returns what was made of another file or content', async () => {
  const [a, b] = [`${folder}/a`, `${folder}/b`]
  for (const path of [a, b]) writeFileSync(path, 'same')
  const name = `test-${process.pid}`
  const get = (path: string, value: string): Promise<string> =>
    settled(path, name, async () => value)
  await get(a, 'of a')
  assert.equal(await get(b, 'of b'), 'of b')
  writeFileSync(b, 'other')
  assert.equal(await get(b, 'of b again'), 'of b again')
  rmSync(b)
  assert.equal(await get(b, 'of nothing'), 'of nothing')
  rmSync(`/run/fail2ban-perimeter/${name}.settled`, { force: true })
})

test('settled() passes on what goes wrong and remembers nothing of it', async () => {
  const fail = async (): Promise<string> => {
    throw new Error('no')
  }
  await assert.rejects(settled(`${folder}/c`, `test-${process.pid}`, fail), /no/)
})
