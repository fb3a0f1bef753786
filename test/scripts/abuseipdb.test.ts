import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { type Bench, makeBench } from '../lib/reporters.ts'
import { type AbuseIpDbSimulator, startAbuseIpDb } from '../simulators/abuseipdb.ts'

const KEY = '0123456789abcdef0123456789abcdef0123456789abcdef'

let service: AbuseIpDbSimulator
let bench: Bench

beforeEach(async () => {
  service = await startAbuseIpDb(KEY)
  bench = makeBench('abuseipdb', KEY, [
    `url: ${service.url}`,
    'jail_categories: {sshd: [22, 18], postfix: [11]}',
  ])
})

afterEach(async () => {
  bench.remove()
  await service.close()
})

function calls(): string[] {
  return service.seen.map(({ method, path, status }) => `${method} ${path} ${status}`)
}

async function succeeds(...args: string[]): Promise<string> {
  const ended = await bench.f2b(...args)
  assert.deepEqual({ code: ended.code, stderr: ended.stderr }, { code: 0, stderr: '' })
  return ended.stdout
}

test('ban reports one address, with the categories of its jail and no text of a log', async () => {
  assert.equal(await succeeds('ban', '--ip', '1.2.3.4', '--name', 'sshd', '--bantime', '600'), '')
  assert.deepEqual(calls(), ['POST /api/v2/report 200'])
  const { ip, categories, comment } = service.reports[0] ?? {}
  assert.deepEqual([ip, categories, comment], ['1.2.3.4', [18, 22], 'Banned by Fail2Ban'])
})

test('ban within the 15 minutes, or while the address is banned, makes no second report', async () => {
  await succeeds('ban', '--ip', '1.2.3.4', '--name', 'sshd', '--bantime', '1')
  await succeeds('ban', '--ip', '1.2.3.4', '--name', 'sshd', '--bantime', '900')
  await succeeds('ban', '--ip', '1.2.3.4', '--name', 'postfix', '--bantime', '9000')
  await bench.feed('1.2.3.4 sshd 0\n', 'sync')
  assert.equal(service.seen.length, 1)
})

test('an address that somebody else of the account just reported counts as reported', async () => {
  await succeeds('ban', '--ip', '1.2.3.4', '--name', 'sshd')
  const other = makeBench('abuseipdb', KEY, [`url: ${service.url}`])
  const ended = await other.f2b('ban', '--ip', '1.2.3.4', '--name', 'sshd')
  const listed = await other.f2b('list')
  other.remove()
  assert.deepEqual(calls(), ['POST /api/v2/report 200', 'POST /api/v2/report 429'])
  assert.equal(ended.code, 0)
  assert.equal(listed.stdout, '1.2.3.4 sshd 0 web1\n')
})

test('sync sends many as one bulk report, with all categories of an address', async () => {
  const lines = Array.from({ length: 50 }, (_, i) => `1.2.3.${i + 1} sshd 2000000000`)
  const more = [
    '1.2.3.1 postfix 2000000000',
    '1.2.3.60 other 0',
    '10.0.0.1 sshd 0',
    '1.9.9.0/24 - 0',
  ]
  const ended = await bench.feed([...lines, ...more].join('\n'), 'sync')
  assert.equal(ended.stdout, 'added 52, extended 0, removed 0, unchanged 0, refused 2\n')
  assert.deepEqual(calls(), ['POST /api/v2/bulk-report 200'])
  const categories = new Map(service.reports.map((report) => [report.ip, report.categories]))
  assert.equal(categories.size, 51)
  assert.deepEqual(categories.get('1.2.3.1'), [11, 18, 22])
  assert.deepEqual(categories.get('1.2.3.60'), [18])
  await bench.feed(lines.join('\n'), 'sync')
  assert.equal(service.seen.length, 1)
})

test('a row that the service refuses is set aside, and the others count', async () => {
  service.faults.disliked = ['1.2.3.7']
  const lines = Array.from({ length: 20 }, (_, i) => `1.2.3.${i + 1} sshd 2000000000`).join('\n')
  await bench.feed(lines, 'sync')
  await bench.feed(lines, 'sync')
  assert.equal(service.seen.length, 1)
  assert.equal((await succeeds('list')).split('\n').length - 1, 19)
})

test('a comment with quotes and commas stays one field', async () => {
  const other = makeBench('abuseipdb', KEY, [`url: ${service.url}`, `comment: 'say "a", b'`])
  const lines = Array.from({ length: 9 }, (_, i) => `1.2.3.${i + 1} sshd 2000000000`).join('\n')
  await other.feed(lines, 'sync')
  other.remove()
  assert.equal(service.reports.length, 9)
  assert.equal(service.reports[0]?.comment, 'say ""a"", b')
})

test('unban and flush withdraw nothing, and list prints what sync reads', async () => {
  await bench.feed('1.2.3.4 sshd 2000000000\n1.2.3.5 postfix 0\n', 'sync')
  const listed = await succeeds('list')
  assert.equal(listed, '1.2.3.4 sshd 2000000000 web1\n1.2.3.5 postfix 0 web1\n')
  assert.match((await bench.feed(listed, 'sync')).stdout, /unchanged 2\n$/)
  await succeeds('unban', '--ip', '1.2.3.4', '--name', 'sshd')
  assert.equal(await succeeds('list'), '1.2.3.5 postfix 0 web1\n')
  await succeeds('flush')
  assert.equal(await succeeds('list'), '')
  assert.equal(service.reports.length, 2)
  assert.equal(service.seen.length, 2)
})

test('clear takes back what was reported by mistake', async () => {
  await succeeds('ban', '--ip', '2606:4700::1', '--name', 'sshd')
  const missing = await bench.f2b('clear')
  assert.equal(missing.code, 64)
  await succeeds('clear', '--ip', '2606:4700::1')
  assert.equal(service.reports.length, 0)
})

test('check tests the key and tells with --verbose what is left', async () => {
  const ended = await bench.f2b('check', '--verbose')
  assert.equal(ended.code, 0)
  assert.match(ended.stderr, /the key works; checks left today: 999/)
})

const FAULTS = {
  'a wrong key': { status: 401, code: 77, says: /the key was refused \(401\)/ },
  'an account without the right': { status: 403, code: 77, says: /\(403\)/ },
  'a body that is not understood': { status: 422, code: 76, says: /\(422\): check "categories"/ },
  'a used-up quota': { status: 429, code: 75, says: /too many calls \(429\)/ },
  'a broken service': { status: 502, code: 75, says: /out of order \(502\)/ },
  'a broken connection': { reset: true, code: 75, says: /the connection broke/ },
  'a redirect': { redirect: 'http://127.0.0.1:1', code: 76, says: /unexpected answer \(307\)/ },
}

for (const [name, { code, says, ...faults }] of Object.entries(FAULTS)) {
  test(`${name} is ${code}, and the key appears nowhere`, async () => {
    Object.assign(service.faults, faults, { echo: true, retryAfter: '3600' })
    const ended = await bench.f2b('ban', '--ip', '1.2.3.4', '--name', 'sshd', '--verbose')
    assert.equal(ended.code, code)
    assert.match(ended.stderr, says)
    const lines = Array.from({ length: 9 }, (_, i) => `1.2.4.${i + 1} sshd 0`).join('\n')
    const others = [
      await bench.feed(lines, 'sync', '--verbose'),
      await bench.f2b('check', '--verbose'),
      await bench.f2b('clear', '--ip', '1.2.3.4', '--verbose'),
    ]
    const files = readdirSync(bench.state).map((file) =>
      readFileSync(join(bench.state, file), 'utf8'),
    )
    const sent = service.seen.map(({ path, body }) => path + body)
    const said = [ended, ...others].map(({ stdout, stderr }) => stdout + stderr)
    for (const text of [...said, ...files, ...sent]) assert.ok(!text.includes(KEY), text)
  })
}

test('a bulk report of what others have just reported is done, and is not repeated', async () => {
  const lines = Array.from({ length: 9 }, (_, i) => `1.2.3.${i + 1} sshd 2000000000`).join('\n')
  const other = makeBench('abuseipdb', KEY, [`url: ${service.url}`])
  await other.feed(lines, 'sync')
  other.remove()
  assert.deepEqual(calls(), ['POST /api/v2/bulk-report 200'])
  for (const sent of [2, 2]) {
    const ended = await bench.feed(lines, 'sync')
    assert.deepEqual([ended.code, ended.stderr, service.seen.length], [0, '', sent])
  }
  assert.equal((await succeeds('list')).split('\n').length - 1, 9)
})

test('a bulk report of which nothing was taken is 76, and stays due', async () => {
  const lines = Array.from({ length: 9 }, (_, i) => `1.2.3.${i + 1} sshd 0`).join('\n')
  service.faults.disliked = Array.from({ length: 9 }, (_, i) => `1.2.3.${i + 1}`)
  const ended = await bench.feed(lines, 'sync')
  assert.equal(ended.code, 76)
  assert.match(ended.stderr, /none of 9 addresses was taken/)
  assert.equal(await succeeds('list'), '')
})
