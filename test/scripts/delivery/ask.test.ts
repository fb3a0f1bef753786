import assert from 'node:assert/strict'
import { mkdirSync, rmSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { after, test } from 'node:test'
import { ask, isLike, Optional, VERSION } from '../../../scripts/lib/delivery/ask.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const state = temporaryFolder('ask')
mkdirSync(`${state}/delivery`)

/** A service that may be anybody's: an account answers, and root asks. */
async function answering(listener: RequestListener) {
  rmSync(`${state}/delivery/socket`, { force: true })
  const server = createServer((asked, answer) => {
    answer.setHeader(VERSION.header, VERSION.value)
    listener(asked, answer)
  })
  await new Promise<void>((resolve) => server.listen(`${state}/delivery/socket`, resolve))
  const end = (): void => {
    server.close()
    server.closeAllConnections()
  }
  after(end)
  return end
}

test('ask() takes out of an answer what a terminal obeys, also out of a failure', async () => {
  const hostile = '\u001b[2J\u001b]0;owned\u0007a\u202eb\u2028\u009b31m'
  const end = await answering((asked, answer) => {
    answer.statusCode = asked.url === '/failure' ? 500 : 200
    answer.end(JSON.stringify({ code: 69, message: hostile, deep: [{ text: hostile }] }))
  })
  const { deep } = await ask<{ deep: { text: string }[] }>(state, '/good')
  assert.doesNotMatch(deep[0]?.text ?? '\u001b', /\p{C}|\p{Zl}/u)
  const failure = await ask<never>(state, '/failure').catch((error) => error)
  assert.equal(failure.code, 69)
  assert.doesNotMatch(failure.message, /\p{C}|\p{Zl}/u)
  end()
})

test('ask() waits no longer than it was told, whether nothing comes or never an end', async () => {
  const restart = 'restart it (systemctl restart fail2ban-perimeter-deliver)'
  const silent = { code: 75, message: `f2b-deliver does not answer within 1 s: ${restart}` }
  const end = await answering((asked, answer) => {
    if (asked.url === '/silent') return
    const more = setInterval(() => answer.write(' '), 10)
    answer.on('close', () => clearInterval(more))
  })
  for (const question of ['/silent', '/endless']) {
    const began = Date.now()
    await assert.rejects(ask(state, question, { seconds: 1 }), silent)
    assert.ok(Date.now() - began < 5_000)
  }
  end()
})

test('ask() takes no answer that is too long, of another version, or of another kind', async () => {
  const mega = Buffer.alloc(1_048_576, 32)
  const end = await answering((asked, answer) => {
    if (asked.url === '/older') answer.removeHeader(VERSION.header)
    if (asked.url !== '/long') return void answer.end('{"names":[{"sibling":7}]}')
    const write = (): void => {
      while (answer.write(mega));
      answer.once('drain', write)
    }
    write()
  })
  await assert.rejects(ask(state, '/long'), { code: 76, message: 'f2b-deliver says too much' })
  await assert.rejects(ask(state, '/older'), { code: 75, message: /is of version another, this/ })
  const like = { names: [{ sibling: '' }] }
  await assert.rejects(ask(state, '/odd', { like }), { code: 75, message: /says something unex/ })
  end()
})

test('ask() says how to start a service that does not run', async () => {
  rmSync(`${state}/delivery/socket`, { force: true })
  await assert.rejects(ask(state, '/names'), { code: 75, message: /does not run: start it \(sys/ })
})

test('isLike() looks at keys, lists and what is in them', () => {
  const example = { a: [{ b: '' }], c: 0, d: null }
  assert.equal(isLike({ a: [{ b: 'x' }, { b: 'y', e: 1 }], c: 1 }, example), true)
  assert.equal(isLike({ a: [], c: 1, d: {} }, example), true)
  for (const odd of [
    null,
    [],
    { a: {}, c: 1 },
    { a: [{ b: 1 }], c: 1 },
    { a: [null], c: 1 },
    'x',
  ]) {
    assert.equal(isLike(odd, example), false, JSON.stringify(odd))
  }
})

test('isLike() takes whole numbers only, and lets an Optional be missing', () => {
  const example = { code: new Optional(0), lines: new Optional(['']) }
  for (const good of [{}, { code: null }, { code: 75, lines: ['x'] }]) {
    assert.equal(isLike(good, example), true, JSON.stringify(good))
  }
  for (const odd of [{ code: '75' }, { code: 0.5 }, { code: {} }, { lines: [1] }, { lines: 'x' }]) {
    assert.equal(isLike(odd, example), false, JSON.stringify(odd))
  }
})
