import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Bench, makeBench } from '../lib/reporters.ts'
import {
  startThreatJammer,
  type ThreatJammerFaults,
  type ThreatJammerSimulator,
} from '../simulators/threatjammer.ts'

const KEY = 'tja_0123456789abcdefghijklmnopqrstuvwxyz'
const WRONG = 'tja_zyxwvutsrqponmlkjihgfedcba9876543210'

interface Case {
  faults: ThreatJammerFaults
  /** What `ban` ends with, and what it says. */
  code: number
  says: RegExp
  /** The configuration's URLs in place of the simulator's. */
  url?: string
  key?: string
}

const CASES: Record<string, Case> = {
  'a wrong key': { faults: {}, key: WRONG, code: 77, says: /the key was refused \(401\)/ },
  'a forbidden account': { faults: { status: 403 }, code: 77, says: /may not do this \(403\)/ },
  'a list that is always too long': { faults: { status: 413 }, code: 76, says: /\(413\)/ },
  'a body that is not understood': { faults: { status: 422 }, code: 76, says: /"type".*|\(422\)/ },
  'too many calls': {
    faults: { status: 429, retryAfter: '3000' },
    code: 75,
    says: /too many calls \(429\).* 3000 s/,
  },
  'a 200 in place of a 202': {
    faults: { status: 200 },
    code: 76,
    says: /unexpected answer \(200\)/,
  },
  'a 404': { faults: { status: 404 }, code: 76, says: /unexpected answer \(404\)/ },
  'a broken service': { faults: { status: 500 }, code: 75, says: /out of order \(500\)/ },
  'an answer that repeats the key': {
    faults: { status: 500, echo: true },
    code: 75,
    says: /out of order/,
  },
  'a redirect': {
    faults: { redirect: 'http://127.0.0.1:1' },
    code: 76,
    says: /unexpected answer \(307\)/,
  },
  'a broken connection': { faults: { reset: true }, code: 75, says: /the connection broke/ },
  'an answer that got lost': { faults: { lost: true }, code: 75, says: /the connection broke/ },
  'a closed port': {
    faults: {},
    url: 'http://127.0.0.1:1',
    code: 69,
    says: /cannot connect: connection refused/,
  },
  'a name that does not exist': {
    faults: {},
    url: 'https://threatjammer.invalid',
    code: 69,
    says: /cannot connect/,
  },
}

for (const [name, given] of Object.entries(CASES)) {
  test(`${name} is ${given.code}, and the key appears nowhere`, async () => {
    const service = await startThreatJammer(KEY)
    Object.assign(service.faults, given.faults)
    const { reportUrl, apiUrl } = service
    const section = [`report_url: ${given.url ?? reportUrl}`, `api_url: ${given.url ?? apiUrl}`]
    const bench = makeBench('threatjammer', given.key ?? KEY, section)
    try {
      const ended = await bench.f2b('ban', '--ip', '1.2.3.4', '--name', 'sshd', '--bantime', '600')
      assert.match(ended.stderr, given.says)
      assert.match(
        ended.stderr,
        /^threatjammer: Cannot ban "1\.2\.3\.4" on "threatjammer": [^\n]*\n$/,
      )
      assert.equal(ended.code, given.code)
      await assertNoKey(bench, service, ended.stdout + ended.stderr)
    } finally {
      bench.remove()
      await service.close()
    }
  })
}

/**
 * Runs the verbs that call, loudly, and looks for the key in everything that leaves us. Of an answer
 * that is a status and no more nothing can be passed on: there, a question and a report will do.
 */
async function assertNoKey(bench: Bench, service: ThreatJammerSimulator, said: string) {
  const { status, echo } = service.faults
  const all = [['check'], ['list'], ['list', '--format', 'csv'], ['delete-all', '--yes']]
  const verbs = status === undefined || echo ? all : all.slice(0, 1)
  const ends = await Promise.all([
    ...verbs.map((args) => bench.f2b(...args, '--verbose')),
    bench.feed('1.2.3.5 sshd 2000000000\n', 'sync', '--verbose'),
  ])
  const files = readdirSync(bench.state).map((name) =>
    readFileSync(join(bench.state, name), 'utf8'),
  )
  const sent = service.seen.map(({ path, body }) => path + body)
  const texts = [said, ...ends.map(({ stdout, stderr }) => stdout + stderr), ...files, ...sent]
  for (const text of texts) {
    assert.ok(!text.includes(KEY) && !text.includes(WRONG), `the key is in: ${text}`)
  }
}

test('Fail2Ban runs a failing ban twice: the second finds it kept, and makes no call', async () => {
  const service = await startThreatJammer(KEY)
  service.faults.status = 503
  const { reportUrl, apiUrl } = service
  const bench = makeBench('threatjammer', KEY, [`report_url: ${reportUrl}`, `api_url: ${apiUrl}`])
  try {
    const args = ['ban', '--ip', '1.2.3.4', '--name', 'sshd', '--bantime', '600']
    assert.equal((await bench.f2b(...args)).code, 75)
    const second = await bench.f2b(...args)
    assert.deepEqual(second, { code: 0, stdout: '', stderr: '' })
    assert.equal(service.seen.length, 1)
  } finally {
    bench.remove()
    await service.close()
  }
})

test('a check with a key that works again starts the reports again', async () => {
  const service = await startThreatJammer(KEY)
  service.faults.status = 401
  const { reportUrl, apiUrl } = service
  const bench = makeBench('threatjammer', KEY, [`report_url: ${reportUrl}`, `api_url: ${apiUrl}`])
  try {
    assert.equal((await bench.f2b('ban', '--ip', '1.2.3.4', '--bantime', '600')).code, 77)
    assert.equal((await bench.f2b('check')).code, 77)
    delete service.faults.status
    assert.equal((await bench.f2b('check')).code, 0)
    await bench.feed('1.2.3.4 - 2000000000\n', 'sync')
    assert.equal(service.entries().size, 1)
  } finally {
    bench.remove()
    await service.close()
  }
})

test('a list that is not JSON is 76, and shows no key and nothing that a terminal obeys', async () => {
  const service = await startThreatJammer(KEY)
  service.faults.garbage = `a\u001b[31mb\u0007\u009bc\nd ${KEY}`
  const { reportUrl, apiUrl } = service
  const bench = makeBench('threatjammer', KEY, [`report_url: ${reportUrl}`, `api_url: ${apiUrl}`])
  try {
    const plain = await bench.f2b('list')
    assert.equal(plain.code, 76)
    assert.match(plain.stderr, /the list could not be read/)
    assert.equal((await bench.f2b('list', '--format', 'csv')).stdout, 'a[31mbc\nd ***\n')
  } finally {
    bench.remove()
    await service.close()
  }
})

test('a key in the configuration itself never enters a message about the configuration', async () => {
  const secret = '1234567890123456'
  for (const line of [`key: ${secret}`, `key: "${secret} x"`, `key: [${secret}]`]) {
    const bench = makeBench('threatjammer', KEY, [line])
    const ended = await bench.f2b('check', '--verbose')
    bench.remove()
    assert.equal(ended.code, 78)
    assert.ok(!(ended.stdout + ended.stderr).includes(secret), ended.stderr)
  }
})

test('the key is never sent where others could read it: http is for this machine only', async () => {
  for (const url of ['http://192.0.2.1', 'https://u:p@example.com', 'https://example.com/?a=b']) {
    const bench = makeBench('threatjammer', KEY, [`report_url: "${url}"`])
    const ended = await bench.f2b('check')
    bench.remove()
    assert.equal(ended.code, 78)
    assert.match(ended.stderr, /must be an https URL/)
  }
})
