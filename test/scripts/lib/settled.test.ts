import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
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

test('configPath() gives root no file that others can write, nor one of the current directory', () => {
  const own = `${folder}/own`
  mkdirSync(own)
  const path = `${own}/config.yaml`
  writeFileSync(path, 'fail2ban:\n  client: /tmp/evil\n')
  symlinkSync(path, `${folder}/link.yaml`)
  const refused = (at = path): void => {
    const message = /^Cannot let root read "\S+": others can write [^\n]+$/
    assert.throws(() => configPath(at), { code: 78, message })
  }
  assert.equal(configPath(path), path)
  for (const at of [path, own]) {
    const mode = at === own ? 0o755 : 0o600
    for (const open of [0o002, 0o022]) {
      chmodSync(at, mode | open)
      refused()
      refused(`${folder}/link.yaml`)
    }
    chmodSync(at, mode | 0o020) // by root's own group
    assert.equal(configPath(path), path)
    chownSync(at, 0, 65534)
    refused()
    chmodSync(at, mode)
    chownSync(at, 65534, 0)
    refused()
    chownSync(at, 0, 0)
  }
  const before = process.cwd()
  process.chdir(own)
  try {
    assert.throws(() => configPath(), {
      code: 78,
      message: /^Cannot find a configuration: [^.]+\.yaml/,
    })
  } finally {
    process.chdir(before)
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
