import assert from 'node:assert/strict'
import { cpSync } from 'node:fs'
import { basename } from 'node:path'
import { test } from 'node:test'
import { run } from '../scripts/lib/run.ts'
import { temporaryFolder } from './lib/folder.ts'
import { blocksOf, linesOf } from './lib/readme.ts'

// What README.md begins with, in a copy of the sources as somebody who has just fetched them has it.

const [COMMANDS = ''] = blocksOf('Two commands', 1)
const [DEMO = '', TEST = ''] = linesOf(COMMANDS).map((line) => line.replace(/ +#.*/, ''))

/** What is made of the sources; they are what is left. */
const MADE = /^(node_modules|dist|\.git|.*\.tgz)$/

test('the two commands do what README says, in fresh sources', async (t) => {
  const folder = temporaryFolder('fresh')
  cpSync('.', folder, { recursive: true, filter: (path) => !MADE.test(basename(path)) })
  // There is no way out: npm has in its cache what it once installed here.
  const env = { ...process.env, npm_config_offline: 'true', npm_config_update_notifier: 'false' }
  const type = (line: string) => run('sh', ['-c', `cd ${folder}; exec 2>&1; ${line}`], { env })
  const played = await type(DEMO)
  if (/ENOTCACHED/.test(played.stdout)) return t.skip('the cache of npm is empty')
  assert.equal(played.code, 0, played.stdout)
  assert.match(played.stdout, /203\.0\.113\.101/)
  // One of the files that are running at this moment, so that this ends.
  const tested = await type(`${TEST} -- test/notices.test.ts`)
  assert.equal(tested.code, 0, tested.stdout)
  assert.match(tested.stdout, /^(\d+) of \1 tests passed, in \d+ min \d+ s$/m)
})
