import assert from 'node:assert/strict'
import { test } from 'node:test'
import { run } from '../../../scripts/lib/run.ts'

test('run() hands arguments over as they are: no shell reads them', async () => {
  const words = ['$(id)', '; id', "'", '"', '*', 'a b', '\n']
  const { code, stdout } = await run('printf', ['<%s>', ...words])
  assert.deepEqual([code, stdout], [0, words.map((word) => `<${word}>`).join('')])
})

test('run() returns both channels and the exit status', async () => {
  const ended = await run('sh', ['-c', 'echo out; echo err >&2; exit 7'])
  assert.deepEqual(ended, { code: 7, stdout: 'out\n', stderr: 'err\n' })
})

test('run() answers 127 for a program that is not there and 137 for a killed one', async () => {
  assert.equal((await run('/none/such', [])).code, 127)
  assert.equal((await run('sh', ['-c', 'kill -9 $$'])).code, 137)
})

test('run() feeds large input and reads large output', async () => {
  const input = 'x'.repeat(1_000_003)
  assert.equal((await run('cat', [], { input })).stdout, input)
})

test('run() takes a program that does not read its input for what its exit status says', async () => {
  const ended = await run('sh', ['-c', 'exec <&-; exit 5'], { input: 'x'.repeat(1_000_000) })
  assert.equal(ended.code, 5)
})

test('run() without input gives an empty one', async () => {
  assert.deepEqual(await run('cat', []), { code: 0, stdout: '', stderr: '' })
})

test('run() kills the program when the signal fires', async () => {
  const signal = AbortSignal.timeout(50)
  assert.equal((await run('sleep', ['60'], { signal })).code, 137)
  assert.equal((await run('sleep', ['60'], { signal: AbortSignal.abort() })).code, 137)
})
