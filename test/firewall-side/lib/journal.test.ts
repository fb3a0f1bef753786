import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Journal } from '../../../firewall-side/lib/journal.ts'
import { temporaryFolder } from '../../lib/folder.ts'
import { waitUntil } from '../../lib/wait.ts'

// A `logger` that writes down each of its lives.
const folder = temporaryFolder('journal')
const log = join(folder, 'log')
writeFileSync(
  join(folder, 'logger'),
  `#!/bin/sh\n(echo "$*"; cat; echo end) >${log}.$$\nmv ${log}.$$ ${log}\n`,
  {
    mode: 0o755,
  },
)
const { PATH } = process.env
process.env.PATH = `${folder}:${PATH}`
after(() => {
  process.env.PATH = PATH
})

const HEAD = '-t fail2ban-perimeter -p auth.notice\n'

test('the journal gets the lines of a turn at once, whether it was opened before or not', async () => {
  const journal = new Journal()
  journal.write(['one', 'two'])
  await waitUntil('they are there', () => read() === `${HEAD}one\ntwo\nend\n`)
  journal.open()
  journal.open()
  journal.write(['three'])
  await waitUntil('it is there', () => read() === `${HEAD}three\nend\n`)
})

test('a turn without a line leaves nobody waiting', async () => {
  const journal = new Journal()
  journal.open()
  journal.write([])
  await waitUntil('the logger has ended', () => read() === `${HEAD}end\n`)
})

test('no logger is no reason to fail, and the next one is used again', async () => {
  const journal = new Journal()
  process.env.PATH = '/nonexistent'
  journal.write(['lost'])
  process.env.PATH = `${folder}:${PATH}`
  journal.write(['kept'])
  await waitUntil('it is there', () => read() === `${HEAD}kept\nend\n`)
})

function read(): string {
  return existsSync(log) ? readFileSync(log, 'utf8') : ''
}
