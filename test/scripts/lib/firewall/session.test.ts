import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AnswerReader } from '../../../../scripts/lib/firewall/session.ts'

test('answers are read whatever pieces they come in', () => {
  const reader = new AnswerReader()
  assert.deepEqual(reader.feed('203.0.113.7 sshd 0 web1\no'), [])
  assert.deepEqual(reader.feed('k\nok added 1\nerror 77 no\n'), [
    { lines: ['203.0.113.7 sshd 0 web1'], ok: '' },
    { lines: [], ok: 'added 1' },
    { lines: [], ok: '', error: { code: 77, text: 'no' } },
  ])
})

test('neither a line nor an answer without end is kept (76)', () => {
  for (const chunk of ['x', 'x\n', '203.0.113.7 sshd 0 web1\n', `${'y'.repeat(5000)}\n`]) {
    const reader = new AnswerReader()
    const piece = chunk.repeat(Math.ceil(65_536 / chunk.length))
    const endless = (): void => {
      for (let i = 0; i < 1_000; i++) reader.feed(piece)
    }
    assert.throws(endless, { code: 76, message: /without end/ }, JSON.stringify(chunk.slice(0, 30)))
  }
})

test('neither is a greeting, though a long one is passed over', () => {
  const reader = new AnswerReader('ok begun')
  assert.deepEqual(reader.feed(`${'Welcome to edge1\n'.repeat(500)}ok begun\nok\n`), [
    { lines: [], ok: '' },
  ])
  const endless = (): void => void new AnswerReader('ok begun').feed('evil\n'.repeat(20_000))
  assert.throws(endless, { code: 76, message: /greets without end/ })
})

test('an answer of 100,000 leases is no such answer', () => {
  const reader = new AnswerReader()
  const lines = '2001:db8:1111:2222:3333:4444:5555:6666 a-jail 1800000000 web1\n'.repeat(100_000)
  assert.equal(reader.feed(`${lines}ok\n`)[0]?.lines.length, 100_000)
})
