import assert from 'node:assert/strict'
import { test } from 'node:test'
import { answerText, Reader } from '../../../firewall-side/lib/session.ts'
import { Failure } from '../../../scripts/lib/failure.ts'

function kinds(reader: Reader, chunk: string): (string | number)[] {
  return reader.feed(chunk).map((item) => (item instanceof Failure ? item.code : item.verb))
}

test('Reader hands out a request when its line is complete', () => {
  const reader = new Reader(10)
  assert.deepEqual(kinds(reader, 'li'), [])
  assert.deepEqual(kinds(reader, 'st\n\ngeneration\nunban fail2ban-a 192.0.2.1'), [
    'list',
    'generation',
  ])
  assert.deepEqual(kinds(reader, '\n'), ['unban'])
})

test('Reader hands out a sync when its last line has come, whatever its chunks', () => {
  const text = 'sync fail2ban-a - - 2\n192.0.2.1 0\n192.0.2.2 0\nsync fail2ban-b - - 0\nlist\n'
  const reader = new Reader(10)
  assert.deepEqual(
    [...text].flatMap((letter) => kinds(reader, letter)),
    ['sync', 'sync', 'list'],
  )
  const [sync] = new Reader(10).feed(text)
  assert.ok(sync && !(sync instanceof Failure) && sync.verb === 'sync')
  assert.deepEqual(
    sync.leases.map(({ address }) => address.text),
    ['192.0.2.1', '192.0.2.2'],
  )
})

test('Reader refuses a sync for one bad line, once, and goes on after it', () => {
  const reader = new Reader(10)
  const text = 'sync fail2ban-a - - 3\nx\ny\n192.0.2.2 0\nlist\n'
  assert.deepEqual(kinds(reader, text), [65, 'list'])
})

test('Reader refuses a sync of more than max_leases before it is stored', () => {
  const reader = new Reader(1)
  assert.deepEqual(kinds(reader, 'sync fail2ban-a - - 2\n192.0.2.1 0\n'), [])
  assert.deepEqual(kinds(reader, '192.0.2.2 0\nlist\n'), [77, 'list'])
})

test('Reader answers an endless line once and throws it away as it comes', () => {
  const reader = new Reader(10)
  const codes = Array.from({ length: 50 }, () => kinds(reader, 'x'.repeat(1000))).flat()
  assert.deepEqual(codes, [65])
  assert.deepEqual(kinds(reader, 'tail\nlist\n'), ['list'])
})

function restOf(reader: Reader, text: string): string[] | number | undefined {
  const request = reader.feed(`${text}flushrest\n`).at(-1)
  if (request instanceof Failure) return request.code
  return request?.verb === 'flush' && request.but ? [...request.but] : undefined
}

test('flushrest spares every jail that the session has synced, refused ones too', () => {
  assert.deepEqual(restOf(new Reader(10), ''), [])
  const text = 'sync fail2ban-a - - 1\n192.0.2.1 0\nsync fail2ban-b - - 1\nx\n'
  const big = `sync fail2ban-c - - 11\n${'192.0.2.1 0\n'.repeat(11)}`
  assert.deepEqual(restOf(new Reader(10), text + big), ['a', 'b', 'c'])
})

test('flushrest is refused where a sync could not be read: that jail must keep what it has', () => {
  assert.equal(restOf(new Reader(10), 'sync fail2ban-a 99999 tcp 0\n'), 65)
  assert.equal(restOf(new Reader(10), 'sync fail2ban-a - - 0\nx\n'), 65)
  const many = Array.from({ length: 5000 }, (_, i) => `sync fail2ban-${i} - - 0\n`)
  assert.equal(restOf(new Reader(10), many.join('')), 65)
})

test('answerText() ends every answer with ok or error', () => {
  const answer = { code: 0 as const, lines: ['a', 'b'], error: '' }
  assert.equal(answerText({ verb: 'check' }, answer), 'a\nb\nok\n')
  assert.equal(answerText({ verb: 'check' }, { ...answer, lines: [] }), 'ok\n')
  assert.equal(answerText({ verb: 'check' }, { ...answer, code: 65, error: 'no' }), 'error 65 no\n')
  const sync = {
    verb: 'sync' as const,
    jail: 'a',
    naming: { ports: '-', protocol: '-' },
    leases: [],
  }
  assert.equal(answerText(sync, { ...answer, lines: ['added 1'] }), 'ok added 1\n')
  const rest = { verb: 'flush' as const, jail: undefined, but: new Set<string>() }
  assert.equal(answerText(rest, { ...answer, lines: ['removed 1'] }), 'ok removed 1\n')
})
