import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { build } from 'esbuild'
import { EXIT_TABLE } from '../../../scripts/lib/failure.ts'
import { run } from '../../../scripts/lib/run.ts'
import { temporaryFolder } from '../../lib/folder.ts'

// A command of its own, built as all are, since main() reads and ends a whole process.
const COMMAND = `
import { main, noWords, textOption, unknownWord } from './scripts/lib/command.ts'
import { Failure } from './scripts/lib/failure.ts'
const thrown = {
  bug: () => new TypeError('a\\nb'),
  denied: () => Object.assign(new Error('EACCES: x'), { code: 'EACCES', syscall: 'mkdir', path: '/x' }),
  config: () => new Failure(78, 'x.yaml:1:1: one\\nx.yaml:2:1: \\x1b[31mtwo'),
  input: () => new Failure(65, 'Cannot read\\nthis \\x07'),
}
void main({
  name: 'try',
  help: 'Usage: try [options]\\n\\nTries.\\n\\nOptions\\n  --time SECONDS    when\\n',
  options: { time: { type: 'string' }, fast: { type: 'boolean' } },
  async run(words, values) {
    if (words[0] === 'verb') throw unknownWord('verb', words[1], ['start', 'stop', 'check', 'ban', 'unban'])
    if (words[0] === 'none') noWords(words.slice(1))
    const make = thrown[words[0]]
    if (make) throw make()
    console.log(JSON.stringify([words, textOption(values, 'time') ?? null, values.fast === true]))
  },
})`

const folder = temporaryFolder('command')
before(async () => {
  await build({
    stdin: { contents: COMMAND, resolveDir: process.cwd(), loader: 'js' },
    outfile: `${folder}/try.cjs`,
    bundle: true,
    platform: 'node',
    logLevel: 'warning',
  })
})

/** Code, then standard output, then standard error. */
async function call(...args: string[]): Promise<[number, string, string]> {
  const { code, stdout, stderr } = await run(process.execPath, [`${folder}/try.cjs`, ...args])
  return [code, stdout, stderr]
}

test('main() takes the word after an option as its value, also with a dash', async () => {
  const table: [string[], string][] = [
    [['a', '--time', '-1', 'b', '--fast'], '[["a","b"],"-1",true]'],
    [['--time', '--fast'], '[[],"--fast",false]'],
    [['--time=', 'a'], '[["a"],"",false]'],
    [['--', '--time', '5'], '[["--time","5"],null,false]'],
    [['--time', '1', '--time', '2'], '[[],"2",false]'],
  ]
  for (const [args, out] of table) assert.deepEqual(await call(...args), [0, `${out}\n`, ''])
})

test('main() refuses options that it does not know or cannot read with 64 and a hint', async () => {
  for (const args of [['--no-such'], ['-x'], ['--time'], ['--fast=yes'], ['none', 'more']]) {
    const [code, stdout, stderr] = await call(...args)
    assert.deepEqual([args, code, stdout], [args, 64, ''])
    assert.match(stderr, /^try: [^\n]+: see --help\n$/)
  }
})

test('main() asks whether a near word was meant; else it lists the words there are', async () => {
  const list = '(one of start, stop, check, ban, unban)'
  const table: [string[], string][] = [
    [['--tmie', '5'], `Unknown option '--tmie', did you mean "--time"?`],
    [['--fsat'], `Unknown option '--fsat', did you mean "--fast"?`],
    [['--verb'], `Unknown option '--verb', did you mean "--verbose"?`],
    [['--no-such'], "Unknown option '--no-such'"],
    [['verb', 'bann'], 'Unknown verb "bann", did you mean "ban"?'],
    [['verb', 'unabn'], 'Unknown verb "unabn", did you mean "unban"?'],
    [['verb', 'chekc'], 'Unknown verb "chekc", did you mean "check"?'],
    [['verb', 'drop'], `Unknown verb "drop" ${list}`],
    [['verb', ''], `Unknown verb "" ${list}`],
  ]
  for (const [args, said] of table) {
    assert.deepEqual(await call(...args), [64, '', `try: ${said}: see --help\n`])
  }
})

test('main() prints help with the common options and the exit codes, whatever else is said', async () => {
  for (const args of [['--help'], ['-h', 'bug', '--time', '5']]) {
    const [code, stdout, stderr] = await call(...args)
    assert.deepEqual([code, stderr], [0, ''])
    assert.ok(stdout.startsWith('Usage: try') && stdout.endsWith(`${EXIT_TABLE}\n`), stdout)
    assert.match(stdout, /--time SECONDS {4}when\n {2}-v, --verbose/)
  }
})

test('main() makes one line of a failure, one per problem of a configuration, without codes', async () => {
  assert.deepEqual(await call('input'), [65, '', 'try: Cannot read this  \n'])
  const two = 'try: x.yaml:1:1: one\ntry: x.yaml:2:1:  [31mtwo\n'
  assert.deepEqual(await call('config'), [78, '', two])
})

test('main() calls a bug a bug, with 70, and shows where on --verbose', async () => {
  const line = 'try: Bug, please report it: a b (--verbose shows where)\n'
  assert.deepEqual(await call('bug'), [70, '', line])
  const [code, , stderr] = await call('bug', '--verbose')
  assert.equal(code, 70)
  assert.match(stderr, /^try: TypeError: a\nb\n +at /)
})

test('main() asks a plain user, and him alone, whether he is root when the system refuses', async () => {
  assert.equal((await call('denied'))[0], 70)
  await run('chmod', ['-R', 'a+rX', folder])
  const user = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath]
  const { code, stderr } = await run('setpriv', [...user, `${folder}/try.cjs`, 'denied'])
  const said = 'try: Cannot mkdir "/x": permission denied, are you root?\n'
  assert.deepEqual([code, stderr], [75, said])
})

test('main() does not mind a reader that has gone', async () => {
  const line = '{ "$0" "$1" a; echo $? >&2; } | true'
  const { stderr } = await run('sh', ['-c', line, process.execPath, `${folder}/try.cjs`])
  assert.equal(stderr, '0\n')
})
