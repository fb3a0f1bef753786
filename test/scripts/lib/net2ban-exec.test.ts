import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { execute, executeMany } from '../../../scripts/lib/net2ban/exec.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('exec')

async function told(how: (text: string) => Promise<unknown>): Promise<string> {
  process.env.F2B_SECRET = 'not for actions'
  await how(`{ umask; pwd; env | sort; cat; } >${folder}/told`)
  return readFileSync(`${folder}/told`, 'utf8')
}

test('a command finds what it would find in Fail2Ban, and no more', async () => {
  const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
  const one = await told((text) => execute(text, 5))
  const many = await told((text) => executeMany([text, 'true'], 5))
  for (const text of [one, many]) {
    const lines = text.split('\n').filter((line) => !/^(_|OLDPWD|SHLVL)=/.test(line))
    assert.deepEqual(lines, ['0077', '/', 'LANG=C.UTF-8', `PATH=${path}`, 'PWD=/', ''])
  }
})

test('the last line decides, and the last word is told', async () => {
  assert.deepEqual(await execute('false\ntrue', 5), { ok: true, code: 0, reason: 'exit code 0' })
  const failed = await execute('echo first >&2; echo last >&2; exit 65', 5)
  assert.deepEqual(failed, { ok: false, code: 65, reason: 'exit code 65: last' })
  assert.match((await execute('kill -9 $$', 5)).reason, /SIGKILL/)
  assert.match((await execute('no-such-program', 5)).reason, /^exit code 127: .*not found/)
})

test('executeMany() runs in order and tells which ended well', async () => {
  const texts = ['echo 1', 'echo 2; false', 'exit 3', 'kill -9 $$', 'echo 5'].map(
    (text, i) => `echo ${i} >>${folder}/order; ${text}`,
  )
  assert.deepEqual(await executeMany(texts, 5), [true, false, false, false, true])
  assert.equal(readFileSync(`${folder}/order`, 'utf8'), '0\n1\n2\n3\n4\n')
})

test('executeMany() kills what hangs, and runs nothing after it', async () => {
  const texts = ['true', 'trap "" TERM; sleep 300', `touch ${folder}/never`]
  assert.deepEqual(await executeMany(texts, 0.3), [true, false, false])
  assert.throws(() => readFileSync(`${folder}/never`))
})
