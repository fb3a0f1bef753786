import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { type IncomingHttpHeaders, type RequestOptions, request } from 'node:http'
import { request as requestTls } from 'node:https'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { gunzipSync } from 'node:zlib'
import { sourceOf } from '../../scripts/lib/fortigate/source.ts'
import { run } from '../../scripts/lib/run.ts'
import { temporaryFolder } from '../lib/folder.ts'
import {
  type Bench,
  LOGIN,
  makeCertificate,
  type Options,
  openBench,
  PASS,
  SECRET,
} from '../lib/fortigate.ts'
import { waitUntil } from '../lib/wait.ts'
import { FortiGate } from '../simulators/fortigate.ts'

const folder = temporaryFolder('cert')
let bench: Bench
afterEach(() => bench.close())

async function open(list: string | undefined, options: Options = {}): Promise<void> {
  bench = openBench(options)
  if (list !== undefined) writeFileSync(bench.list, list)
  await bench.startFeed()
}

/** Nobody reads half of it. */
function replaceList(text: string): void {
  writeFileSync(`${bench.list}.tmp`, text)
  renameSync(`${bench.list}.tmp`, bench.list)
}

interface Answer {
  status: number
  headers: IncomingHttpHeaders
  body: Buffer
}

/** The raw answer: nothing is followed, decoded or retried. */
function ask(path: string, options: RequestOptions & { ca?: string } = {}): Promise<Answer> {
  const make = bench.url.startsWith('https') ? requestTls : request
  return new Promise((resolve, reject) => {
    make(bench.url + path, { headers: LOGIN, ...options }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const { statusCode = 0, headers } = response
        resolve({ status: statusCode, headers, body: Buffer.concat(chunks) })
      })
    })
      .on('error', reject)
      .end()
  })
}

const get = (path: string, headers: Record<string, string> = {}) =>
  ask(path, { headers: { ...LOGIN, ...headers } })
const inFuture = (seconds: number) => Math.floor(Date.now() / 1000) + seconds

const LIST = `# by hand
198.51.100.9
2001:db8::2 # sshd 0 web1
203.0.113.10 # sshd 0 web1
203.0.113.9 # sshd 0 web1
203.0.113.9 # web 0 web1
203.0.113.9 # sshd 0 web2
203.0.113.8 # sshd 1700000000 web1
198.51.100.128/25
nonsense
`

test('each address once, IPv4 first, in numeric order, no remarks, nothing that has ended', async () => {
  await open(LIST)
  const all = await get('/blocked-ips')
  assert.equal(all.status, 200)
  assert.equal(
    all.body.toString(),
    '198.51.100.9\n198.51.100.128/25\n203.0.113.9\n203.0.113.10\n2001:db8::2\n',
  )
  assert.equal(all.headers['content-type'], 'text/plain; charset=utf-8')
  assert.equal((await get('/blocked-ips/ipv6')).body.toString(), '2001:db8::2\n')
  assert.equal((await get('/blocked-ips/ipv4')).body.toString().split('\n').length, 5)
})

test('lines as people and their editors write them are served, or shown on the page', async () => {
  const end = inFuture(600)
  const lease = `203.0.113.1 # sshd ${end} web1`
  const served = ['203.0.113.2\t# note', '203.0.113.3#note', '203.0.113.4 # two words ; x']
  const notes = ['203.0.113.5 ; note', ' 203.0.113.6\t', '203.0.113.7 # ticket 4711 spam']
  const lost = [`203.0.113.8\t# sshd ${end} web1`, `203.0.113.9 # sshd ${end}`, '203.0.113.1 note']
  const all = [lease, ...served, ...notes, '; remark', '# remark', ...lost]
  await open(`\ufeff${all.join('\r\n')}\r\n`)
  const expected = [1, 2, 3, 4, 5, 6, 7].map((i) => `203.0.113.${i}\n`).join('')
  assert.equal((await get('/blocked-ips')).body.toString(), expected)
  const page = (await get('/')).body.toString()
  const [, shown = ''] = /not served: ([^<]*)/.exec(page) ?? []
  assert.deepEqual(shown.match(/\d+(?=: &quot;)/g), ['10', '11', '12'])
  const unban = await bench.cli('unban', '--ip', '203.0.113.1', '--name', 'sshd')
  assert.equal(unban.code, 0, unban.stderr)
  assert.equal((await get('/blocked-ips')).body.toString(), expected.replace('203.0.113.1\n', ''))
})

test('HEAD has the same headers and no body; other methods and paths are refused', async () => {
  await open(LIST)
  utimesSync(bench.list, 1_700_000_000, 1_700_000_000) // Within its own second it is told a second less.
  const { headers } = await get('/blocked-ips')
  const head = await ask('/blocked-ips', { method: 'HEAD' })
  assert.equal(head.body.length, 0)
  for (const name of ['etag', 'last-modified', 'content-length', 'vary']) {
    assert.equal(head.headers[name], headers[name], name)
  }
  assert.equal((await ask('/blocked-ips', { method: 'DELETE' })).status, 405)
  assert.equal((await ask('/receive-logs')).status, 405)
  assert.equal((await get('/../etc/passwd')).status, 404)
})

test('304 by ETag, per encoding and in every spelling, until the list changes', async () => {
  await open(LIST)
  const { headers } = await get('/blocked-ips')
  const etag = String(headers.etag)
  for (const tag of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
    const same = await get('/blocked-ips', { 'if-none-match': tag })
    assert.equal(same.status, 304, tag)
    assert.equal(same.body.length, 0)
    assert.equal(same.headers.etag, etag)
  }
  const zipped = await get('/blocked-ips', { 'accept-encoding': 'gzip', 'if-none-match': etag })
  assert.equal(zipped.status, 200)
  assert.notEqual(zipped.headers.etag, etag)
  assert.equal((await get('/blocked-ips/ipv4', { 'if-none-match': etag })).status, 200)
  await bench.cli('ban', '--ip', '203.0.113.77')
  assert.equal((await get('/blocked-ips', { 'if-none-match': etag })).status, 200)
})

test('gzip if asked, not if refused', async () => {
  await open(LIST)
  const plain = await get('/blocked-ips', { 'accept-encoding': 'gzip;q=0, identity' })
  assert.equal(plain.headers['content-encoding'], undefined)
  const zipped = await get('/blocked-ips', { 'accept-encoding': 'deflate, gzip;q=0.5' })
  assert.equal(zipped.headers['content-encoding'], 'gzip')
  assert.equal(zipped.headers.vary, 'accept-encoding')
  assert.deepEqual(gunzipSync(zipped.body), plain.body)
})

test('an entry that ends drops out, and with it ETag and Last-Modified change', async () => {
  await open('203.0.113.1\n')
  replaceList(`203.0.113.1\n203.0.113.2 # sshd ${inFuture(5)} web1\n`)
  const before = await get('/blocked-ips')
  assert.match(before.body.toString(), /203\.0\.113\.2/)
  const tag = { 'if-none-match': String(before.headers.etag) }
  assert.equal((await get('/blocked-ips', tag)).status, 304)
  await waitUntil('it ends', async () => (await get('/blocked-ips', tag)).status === 200)
  const after = await get('/blocked-ips')
  assert.equal(after.body.toString(), '203.0.113.1\n')
  const modified = (answer: Answer) => Date.parse(String(answer.headers['last-modified']))
  assert.ok(modified(after) > modified(before))
  const since = String(before.headers['last-modified'])
  assert.equal((await get('/blocked-ips', { 'if-modified-since': since })).status, 200)
})

test('If-Modified-Since never calls a list unchanged that changed twice within a second', async () => {
  await open('203.0.113.1\n')
  const first = await get('/blocked-ips')
  writeFileSync(bench.list, '203.0.113.1\n203.0.113.2\n')
  const since = String(first.headers['last-modified'])
  assert.equal((await get('/blocked-ips', { 'if-modified-since': since })).status, 200)
  await new Promise((done) => setTimeout(done, 2100))
  const { headers } = await get('/blocked-ips')
  const again = { 'if-modified-since': String(headers['last-modified']) }
  assert.equal((await get('/blocked-ips', again)).status, 304)
})

test('an empty list is an empty 200; a missing or unreadable one 503, and healthz says so', async () => {
  await open('')
  const empty = await get('/blocked-ips')
  assert.deepEqual([empty.status, empty.body.length], [200, 0])
  assert.equal((await ask('/healthz', { headers: {} })).status, 200)
  renameSync(bench.list, `${bench.list}.away`)
  assert.equal((await get('/blocked-ips')).status, 503)
  assert.equal((await ask('/healthz', { headers: {} })).status, 503)
  assert.match((await get('/')).body.toString(), /no such file/)
  renameSync(`${bench.list}.away`, bench.list)
  assert.equal((await get('/blocked-ips')).status, 200)
  for (let i = 0; i < 100; i++) {
    renameSync(bench.list, `${bench.list}.away`)
    assert.equal((await get('/blocked-ips')).status, 503, 'whoever has just looked')
    renameSync(`${bench.list}.away`, bench.list)
    assert.equal((await get('/blocked-ips')).status, 200)
  }
  if (process.getuid?.() === 0) return
  chmodSync(bench.list, 0)
  assert.equal((await get('/blocked-ips')).status, 503)
})

test('a device keeps its copy over a 503 and empties it with an empty list', async () => {
  await open('203.0.113.7\n')
  const device = new FortiGate({ server: bench.url, user: 'fortigate', pass: PASS })
  await device.pull()
  assert.equal(await device.pull(), 304)
  rmSync(bench.list)
  assert.equal(await device.pull(), 503)
  assert.ok(device.blocks('203.0.113.7'))
  writeFileSync(bench.list, '')
  assert.equal(await device.pull(), 200)
  assert.ok(!device.blocks('203.0.113.7'))
  assert.deepEqual(device.complaints, [])
})

test('everything but healthz and the receiver wants the login', async () => {
  await open(LIST)
  const wrong = `Basic ${Buffer.from('fortigate:wrong').toString('base64')}`
  const refused = async (path: string, headers: Record<string, string>) => {
    const began = Date.now()
    const { status, body } = await ask(path, { headers })
    assert.deepEqual([status, body.length], [401, 0], path)
    return Date.now() - began
  }
  for (const path of ['/', '/blocked-ips', '/blocked-ips/ipv4', '/metrics', '/nothing']) {
    await refused(path, {})
    const guesses = [wrong, 'Basic', 'Bearer x'].map((authorization) =>
      refused(path, { authorization }),
    )
    const times = await Promise.all(guesses)
    assert.ok(Math.min(...times) >= 990, `guesses are answered late, not after ${times} ms`)
    assert.ok(Math.max(...times) >= 2990, `one after another, not after ${times} ms`)
  }
  assert.match(String((await ask('/', { headers: {} })).headers['www-authenticate']), /^Basic /)
})

test('whoever sends guesses ahead has one a second, and learns nothing by a right one among them', async () => {
  await open(LIST)
  const socket = connect(Number(new URL(bench.url).port), '127.0.0.1')
  const requestOf = (login: string): string =>
    `GET /blocked-ips HTTP/1.1\r\nHost: x\r\nAuthorization: ${login}\r\n\r\n`
  let said = ''
  socket.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  const statuses = () => said.match(/(?<=^HTTP\/1\.1 )\d+/gm) ?? []
  const began = performance.now()
  socket.write(requestOf('Basic eDp5').repeat(500))
  const other = await get('/blocked-ips')
  assert.equal(other.status, 429, 'so much waits of this source that nothing more is looked at')
  await waitUntil('three answers', () => statuses().length >= 3)
  assert.ok(performance.now() - began >= 2_990, 'three seconds have passed')
  assert.deepEqual(statuses().slice(0, 3), ['401', '401', '401'])
  await waitUntil('the end of the connection', () => socket.destroyed)
  assert.deepEqual(statuses(), [...Array(8).fill('401'), '429'])
  assert.equal((await get('/blocked-ips')).status, 200, 'and then all is as before')
})

test('more than max_entries: the newest are served, with a log line, a metric and a banner', async () => {
  const lines = Array.from({ length: 20 }, (_, i) => `203.0.113.${i} # sshd 0 web1\n`)
  bench = openBench({ feed: { max_entries: 8 } })
  writeFileSync(bench.list, `${lines.join('')}2001:db8::1\n203.0.113.3 # web 0 web1\n`)
  const { lines: logged } = await bench.startFeed()
  const { body } = await get('/blocked-ips')
  const kept = [3, 14, 15, 16, 17, 18, 19].map((i) => `203.0.113.${i}`)
  assert.deepEqual(body.toString().trim().split('\n'), [...kept, '2001:db8::1'])
  assert.equal((await get('/blocked-ips/ipv6')).body.toString(), '2001:db8::1\n')
  assert.match((await get('/metrics')).body.toString(), /f2b_fortigate_dropped\{part="all"\} 13\n/)
  assert.match((await get('/')).body.toString(), /banner bad[^<]*>\/blocked-ips holds 8 addresses/)
  await waitUntil('the log says so', () => logged.some((line) => /^alarm: .*13 oldest/.test(line)))
})

test('what nobody may ban is not served, whoever wrote it into the list', async () => {
  await open('0.0.0.0/0\n127.0.0.1\n203.0.113.0/8\n203.0.113.5\n198.51.100.7\n', {
    top: { never_ban: ['198.51.100.0/28'] },
  })
  assert.equal((await get('/blocked-ips')).body.toString(), '203.0.113.5\n')
  assert.match((await get('/')).body.toString(), /4 addresses of the list are not served/)
})

test('HTTPS with the configured certificate', async () => {
  const { key, cert } = await makeCertificate(folder)
  await open('203.0.113.7\n', { feed: { key_file: key, cert_file: cert } })
  assert.match(bench.url, /^https:/)
  const { body } = await ask('/blocked-ips', { headers: LOGIN, ca: readFileSync(cert, 'utf8') })
  assert.equal(body.toString(), '203.0.113.7\n')
})

test('a renewed certificate is taken up without a restart, one without its key is told of', async () => {
  const mine = temporaryFolder('renewed')
  const { key, cert } = await makeCertificate(mine)
  bench = openBench({ feed: { key_file: key, cert_file: cert } })
  writeFileSync(bench.list, '203.0.113.7\n')
  const { lines } = await bench.startFeed()
  const old = readFileSync(cert, 'utf8')
  const fetched = async (ca: string) =>
    (await ask('/blocked-ips', { headers: LOGIN, ca, agent: false })).body.toString()
  await makeCertificate(folder)
  writeFileSync(cert, readFileSync(join(folder, 'cert.pem')))
  const page = async (ca: string) => (await ask('/', { headers: LOGIN, ca })).body.toString()
  assert.match(await page(old), /Cannot use certificate [^<]*, the one before is used/)
  assert.equal(await fetched(old), '203.0.113.7\n')
  writeFileSync(key, readFileSync(join(folder, 'key.pem')))
  assert.match(await page(old), /All is well/)
  assert.match(lines.join(), /took up the renewed certificate/)
  assert.equal(await fetched(readFileSync(cert, 'utf8')), '203.0.113.7\n')
  await assert.rejects(fetched(old), /self-signed|unable to verify/)
})

test('listening beyond loopback without a login is refused (78)', async () => {
  bench = openBench({ feed: { listen: '0.0.0.0:0', user: undefined, pass: undefined } })
  const env = { ...process.env, FAIL2BAN_PERIMETER_CONFIG: bench.config }
  const open = await run(process.execPath, ['dist/fortigate-feed.cjs'], { env })
  assert.equal(open.code, 78)
  assert.match(open.stderr, /^fortigate-feed: Cannot listen on "0\.0\.0\.0" without a login/)
})

test('a slow header, a slow body and a silent connection are cut off within 13 s', async (t) => {
  await open(LIST)
  const began = Date.now()
  const hold = (opening: string, drip: string) =>
    new Promise<number>((resolve) => {
      const socket = connect(Number(new URL(bench.url).port), '127.0.0.1')
      socket.write(opening)
      const timer = setInterval(() => socket.write(drip), 500)
      socket.on('error', () => {}).resume()
      socket.on('close', () => {
        clearInterval(timer)
        resolve(Date.now() - began)
      })
    })
  const post = `POST /receive-logs HTTP/1.1\r\nHost: x\r\nX-Webhook-Token: ${SECRET}\r\n`
  const times = await Promise.all([
    hold('GET /blocked-ips HTTP/1.1\r\n', 'x: y\r\n'),
    hold(`${post}Content-Length: 5000\r\n\r\n`, 'a'),
    hold(`${post}Transfer-Encoding: chunked\r\n\r\n`, '1\r\na\r\n'),
  ])
  t.diagnostic(`closed after ${times.join(', ')} ms`)
  assert.ok(Math.max(...times) < 13_000)
})

test('a proxy: the whole URL, a path in front of the page, and who asks as the proxy says', async () => {
  await open(LIST, {
    feed: { proxies: ['127.0.0.1'] },
    webhook: { allow_from: ['198.51.100.0/24'] },
  })
  assert.equal((await get('')).status, 200)
  const whole = (path: string, from: string, headers: Record<string, string> = {}) =>
    ask('', {
      path: `http://feed.example${path}`,
      headers: { ...LOGIN, 'x-forwarded-for': from, ...headers },
    })
  const said = [
    '203.0.113.50',
    'x, 203.0.113.51',
    '203.0.113.50, 203.0.113.52:4711',
    '[2001:DB8::5]:80',
  ]
  for (const from of said) assert.equal((await whole('/blocked-ips', from)).status, 200)
  assert.equal((await whole('/blocked-ips', 'nonsense')).status, 200)
  const page = (await whole('', '')).body.toString()
  const clients = [...page.matchAll(/"From"><code>([^<]*)/g)].map(([, from]) => from)
  assert.deepEqual(clients.toSorted(), [
    '127.0.0.1',
    '2001:db8::5',
    '203.0.113.50',
    '203.0.113.51',
    '203.0.113.52',
  ])
  assert.doesNotMatch(page, /(href|action)="\//)
  const post = (from: string) =>
    ask('/receive-logs', {
      method: 'POST',
      headers: { 'x-webhook-token': SECRET, 'x-forwarded-for': from },
    })
  assert.equal((await post('203.0.113.50')).status, 403)
  assert.equal((await post('198.51.100.9')).status, 422, 'an empty body, of somebody who may send')
  // Whoever guesses is held up, not who comes through the same proxy.
  const wrong = { authorization: 'Basic eDp5' }
  const guesses = Array.from({ length: 9 }, () => whole('/', '203.0.113.66', wrong))
  assert.equal((await whole('/blocked-ips', '203.0.113.50')).status, 200)
  assert.deepEqual(
    [...new Set((await Promise.all(guesses)).map(({ status }) => status))].toSorted(),
    [401, 429],
  )
})

test('without proxies nobody may say who he is', async () => {
  await open(LIST)
  await get('/blocked-ips', { 'x-forwarded-for': '203.0.113.50' })
  assert.match((await get('/')).body.toString(), /"From"><code>127\.0\.0\.1</)
})

test('1,000 connections of one source, slow ones among them, keep no other device waiting', async () => {
  await open(LIST)
  const port = Number(new URL(bench.url).port)
  const openings = [
    '',
    'GET /blocked-ips HTTP/1.1\r\nx: ',
    `POST /receive-logs HTTP/1.1\r\nHost: x\r\nX-Webhook-Token: ${SECRET}\r\nContent-Length: 9\r\n\r\na`,
  ]
  const whole = `GET /blocked-ips HTTP/1.1\r\nHost: x\r\nAuthorization: ${LOGIN.authorization}\r\n\r\n`
  const flood = Array.from({ length: 1_000 }, (_, i) => {
    const socket = connect({ port, host: '127.0.0.1', localAddress: '127.0.0.9' })
    socket.on('error', () => {}).write([...openings, whole.repeat(50)][i % 4] ?? '')
    return socket
  })
  try {
    const answers = await Promise.all(Array.from({ length: 20 }, () => get('/blocked-ips')))
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200])
    assert.ok(flood.some(isOpen), 'while they are still there')
  } finally {
    for (const socket of flood) socket.destroy()
  }
})

function idle(localAddress: string, count: number) {
  const port = Number(new URL(bench.url).port)
  const make = () => connect({ port, host: '127.0.0.1', localAddress }).on('error', () => {})
  return Array.from({ length: count }, make)
}

const isOpen = (socket: ReturnType<typeof connect>) => !socket.resume().readableEnded

test('one source may have 64 connections open, and keeps nobody else from being served', async () => {
  await open(LIST)
  const sockets = idle('127.0.0.9', 70)
  try {
    await waitUntil('six are ended', () => sockets.filter(isOpen).length === 64)
    assert.equal((await get('/blocked-ips')).status, 200)
  } finally {
    for (const socket of sockets) socket.destroy()
  }
})

test('nor do eight sources that open 64 each and never begin with TLS', async () => {
  const { key, cert } = await makeCertificate(folder)
  await open(LIST, { feed: { key_file: key, cert_file: cert } })
  const sockets = [1, 2, 3, 4, 5, 6, 7, 8].flatMap((i) => idle(`127.0.0.1${i}`, 64))
  try {
    await Promise.all(sockets.map((socket) => once(socket, 'connect')))
    const ca = readFileSync(cert, 'utf8')
    assert.equal((await ask('/blocked-ips', { headers: LOGIN, ca, timeout: 3_000 })).status, 200)
    await waitUntil('they are ended', () => sockets.filter(isOpen).length === 0)
  } finally {
    for (const socket of sockets) socket.destroy()
  }
})

test('a source is an IPv4 address or an IPv6 network', () => {
  assert.equal(sourceOf('192.0.2.1'), '192.0.2.1')
  assert.equal(sourceOf('::ffff:192.0.2.1'), '192.0.2.1')
  assert.equal(sourceOf('2001:db8:0:1:ffff::2'), '2001:db8:0:1::/64')
  assert.equal(sourceOf('fe80::1%eth0'), 'fe80::/64')
  assert.equal(sourceOf(undefined), '')
})

test('while a list of 100,000 is rewritten every second, nobody reads a part of it', async () => {
  const lines = Array.from(
    { length: 100_000 },
    (_, i) => `${20 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.9 # sshd 0 web1`,
  )
  await open(`${lines.join('\n')}\n`)
  await get('/blocked-ips')
  let running = true
  const writer = (async () => {
    for (let i = 1; running; i++) {
      replaceList(`${lines.slice(i).join('\n')}\n`)
      await new Promise((done) => setTimeout(done, 1000))
    }
  })()
  const end = Date.now() + 6000
  while (Date.now() < end) {
    const { status, body } = await get('/blocked-ips')
    assert.equal(status, 200)
    const text = body.toString()
    assert.ok(text.endsWith('.9\n'), 'cut off')
    assert.ok(text.split('\n').length > 99_980, 'a part of the list')
  }
  running = false
  await writer
})

test('a long list that changed is made ready before a device asks for it', async () => {
  const lines = (last: string): string =>
    `${'198.51.100.7 # sshd 0 web1\n'.repeat(15_000)}${last}\n`
  await open(lines('203.0.113.1'))
  assert.match((await ask('/blocked-ips')).body.toString(), /203\.0\.113\.1\n/)
  replaceList(lines('203.0.113.2'))
  await sleep(4_000)
  // Who asks in the moment of a change gets what is ready, instead of waiting for what is not.
  replaceList(lines('203.0.113.3'))
  assert.match((await ask('/blocked-ips')).body.toString(), /203\.0\.113\.2\n/)
  await waitUntil('the newest', async () => /113\.3\n/.test(`${(await ask('/blocked-ips')).body}`))
})

test('a restart forgets neither the devices nor the last day', async () => {
  bench = openBench()
  writeFileSync(bench.list, '203.0.113.7\n')
  const feed = await bench.startFeed()
  await get('/blocked-ips', { 'user-agent': 'curl/7.58.0' })
  writeFileSync(bench.list, '203.0.113.7\n203.0.113.8\n')
  await get('/blocked-ips')
  assert.equal(await feed.stop(), 0)
  await bench.startFeed()
  const text = (await get('/metrics')).body.toString()
  assert.match(text, /f2b_fortigate_pulls_total\{client="127\.0\.0\.1"\} 2\n/)
  assert.match((await get('/')).body.toString(), /New bans<\/h2><p class="value">1</)
})

test('a device that stops fetching raises an alarm', async () => {
  await open('203.0.113.7\n', { feed: { stale_after: '2s' } })
  for (let i = 0; i < 3; i++) await get('/blocked-ips')
  assert.match((await get('/')).body.toString(), /All is well/)
  await waitUntil('the alarm', async () => /has not fetched/.test((await get('/')).body.toString()))
  assert.match((await get('/metrics')).body.toString(), /stale\{client="127\.0\.0\.1"\} 1\n/)
  await get('/blocked-ips')
  assert.match((await get('/')).body.toString(), /All is well/)
})
