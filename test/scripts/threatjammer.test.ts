import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { afterEach, beforeEach, test } from 'node:test'
import { run } from '../../scripts/lib/run.ts'
import { type Bench, makeBench, stateFile } from '../lib/reporters.ts'
import { startThreatJammer, type ThreatJammerSimulator } from '../simulators/threatjammer.ts'

const KEY = 'tja_0123456789abcdefghijklmnopqrstuvwxyz'

let service: ThreatJammerSimulator
let bench: Bench

beforeEach(async () => {
  service = await startThreatJammer(KEY)
  bench = makeBench('threatjammer', KEY, sectionOf(service))
})

afterEach(async () => {
  bench.remove()
  await service.close()
})

function sectionOf({ reportUrl, apiUrl }: ThreatJammerSimulator): string[] {
  return [`report_url: ${reportUrl}`, `api_url: ${apiUrl}`]
}

/** Calls that were made: method and path, and the status they were answered with. */
function calls(): string[] {
  return service.seen.map(({ method, path, status }) => `${method} ${path} ${status}`)
}

function body(n: number): Record<string, unknown> {
  return JSON.parse(service.seen[n]?.body ?? '')
}

async function succeeds(...args: string[]): Promise<string> {
  const ended = await bench.f2b(...args)
  assert.deepEqual({ code: ended.code, stderr: ended.stderr }, { code: 0, stderr: '' })
  return ended.stdout
}

async function fails(code: number, message: RegExp, ...args: string[]): Promise<void> {
  const ended = await bench.f2b(...args)
  assert.match(ended.stderr, message)
  assert.equal(ended.stderr.split('\n').length, 2, 'exactly one line')
  assert.equal(ended.code, code)
}

test('ban reports the address with what is left of the ban, and prints nothing', async () => {
  const began = String(Math.floor(Date.now() / 1000) - 100)
  const args = ['--name', 'sshd', '--bantime', '600', '--time', began]
  assert.equal(await succeeds('ban', '--ip', '1.2.3.4', ...args), '')
  const { ttl, ...rest } = body(0)
  assert.deepEqual(rest, { addresses: ['1.2.3.4'], type: 'ABUSE', tags: ['FAIL2BAN', 'SSHD'] })
  assert.ok(Number(ttl) > 490 && Number(ttl) <= 500, `ttl ${ttl}`)
  assert.deepEqual(calls(), ['POST /v1/ip 202'])
})

test('ban reports a permanent ban with the longest time, and one without an end with ttl', async () => {
  await succeeds('ban', '--ip', '1.2.3.4', '--bantime', '-1')
  const other = makeBench('threatjammer', KEY, [...sectionOf(service), 'ttl: 1234'])
  await other.f2b('ban', '--ip', '2606:4700::1')
  other.remove()
  assert.equal(body(0).ttl, 315360000)
  assert.deepEqual(body(0).tags, ['FAIL2BAN'])
  // What is left of it: a second may pass between the ban and its report.
  const left = Number(body(1).ttl)
  assert.ok(left > 1224 && left <= 1234, `ttl ${left}`)
  assert.deepEqual(body(1).addresses, ['2606:4700::1'])
})

test('ban repeated for the same lease makes no second call', async () => {
  const args = [
    'ban',
    '--ip',
    '1.2.3.4',
    '--name',
    'sshd',
    '--bantime',
    '600',
    '--time',
    '2000000000',
  ]
  await succeeds(...args)
  await succeeds(...args)
  assert.equal(service.seen.length, 1)
})

test('ban never reports what is not public, and refuses ranges and never_ban', async () => {
  // What else is not public: isPublic() in lib/reporter.test.ts.
  for (const ip of ['10.211.7.93', '2001:db8::1']) {
    await succeeds('ban', '--ip', ip, '--name', 'sshd')
  }
  await fails(65, /^threatjammer: Cannot ban "1.2.3.0\/24" on .*range/, 'ban', '--ip', '1.2.3.0/24')
  const other = makeBench('threatjammer', KEY, sectionOf(service), ['never_ban: ["1.2.3.4"]'])
  const ended = await other.f2b('ban', '--ip', '1.2.3.4')
  other.remove()
  assert.equal(ended.code, 65)
  assert.deepEqual(calls(), [])
})

test('unban withdraws the report, unless another jail still bans the address', async () => {
  await succeeds('ban', '--ip', '1.2.3.4', '--name', 'sshd', '--bantime', '600')
  await succeeds('ban', '--ip', '1.2.3.4', '--name', 'nginx', '--bantime', '500')
  await succeeds('unban', '--ip', '1.2.3.4', '--name', 'sshd')
  assert.deepEqual(calls(), ['POST /v1/ip 202'])
  await succeeds('unban', '--ip', '1.2.3.4', '--name', 'nginx')
  assert.deepEqual(calls().slice(1), ['POST /v1/unban/ip 202'])
  assert.deepEqual(body(1), { addresses: ['1.2.3.4'] })
  assert.equal(service.entries().size, 0)
})

test('unban of an address that the ledger lost asks the service all the same', async () => {
  await succeeds('unban', '--ip', '1.2.3.4', '--name', 'sshd')
  await succeeds('unban', '--ip', '10.0.0.1', '--name', 'sshd')
  assert.deepEqual(calls(), ['POST /v1/unban/ip 202'])
})

test('unban of a report that waits in the queue takes it back', async () => {
  await succeeds('ban', '--ip', '1.2.3.4', '--name', 'sshd', '--bantime', '600')
  await succeeds('ban', '--ip', '1.2.3.5', '--name', 'sshd', '--bantime', '600')
  await succeeds('unban', '--ip', '1.2.3.5', '--name', 'sshd')
  await bench.feed('# nothing\n', 'sync', '--name', 'other')
  assert.deepEqual(calls(), ['POST /v1/ip 202'])
})

test('flush withdraws the reports of this owner or of one jail', async () => {
  const far = '2000000000'
  await bench.feed(`1.2.3.4 sshd ${far}\n1.2.3.5 nginx ${far}\n`, 'sync')
  await succeeds('flush', '--name', 'sshd')
  assert.deepEqual([...service.entries().keys()], ['1.2.3.5'])
  await succeeds('flush')
  assert.equal(service.entries().size, 0)
})

test('sync reports what is new in one call, withdraws what ended in one, then makes none', async () => {
  const lines = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => `1.2.3.${from + i} sshd 2000000000`).join('\n')
  const first = await bench.feed(lines(1, 100), 'sync')
  assert.equal(first.stdout, 'added 99, extended 0, removed 0, unchanged 0\n')
  const second = await bench.feed(`${lines(51, 120)}\n10.0.0.1 sshd 0\n1.9.9.0/24 sshd 0`, 'sync')
  assert.equal(second.stdout, 'added 20, extended 0, removed 50, unchanged 49, refused 2\n')
  await bench.feed(lines(51, 120), 'sync')
  assert.deepEqual(calls(), ['POST /v1/ip 202', 'POST /v1/unban/ip 202', 'POST /v1/ip 202'])
  assert.equal(service.entries().size, 69)
})

test('sync --dry-run shows what would change and changes nothing', async () => {
  const ended = await bench.feed('1.2.3.4 sshd 2000000000\n', 'sync', '--dry-run')
  assert.match(ended.stdout, /^ban 1\.2\.3\.4 sshd 2000000000 web1\nadded 1,/)
  await bench.f2b('ban', '--ip', '1.2.3.4', '--dry-run')
  await bench.f2b('delete-all', '--dry-run')
  assert.deepEqual(calls(), [])
  assert.equal(
    (await bench.feed('1.2.3.4 sshd 2000000000\n', 'sync')).stdout.slice(0, 7),
    'added 1',
  )
})

test('list prints leases that sync reads', async () => {
  await bench.feed('1.2.3.4 sshd 2000000000\n1.2.3.5 nginx 0\n', 'sync')
  const listed = await succeeds('list')
  assert.equal(listed, '1.2.3.4 sshd 2000000000 web1\n1.2.3.5 nginx 0 web1\n')
  const again = await bench.feed(listed, 'sync')
  assert.equal(again.stdout, 'added 0, extended 0, removed 0, unchanged 2\n')
  assert.equal(await succeeds('list', '--name', 'nginx'), '1.2.3.5 nginx 0 web1\n')
})

test('list leaves out what the service no longer has', async () => {
  await bench.feed('1.2.3.4 sshd 2000000000\n1.2.3.5 sshd 2000000000\n', 'sync')
  service.remove('1.2.3.4')
  assert.equal(await succeeds('list'), '1.2.3.5 sshd 2000000000 web1\n')
})

test('list passes every documented filter and format on', async () => {
  await bench.feed('1.2.3.4 sshd 2000000000\n2606:4700::1 sshd 2000000000\n', 'sync')
  const filters = {
    dataset: 'ABUSE',
    'reported-before': '2000000001',
    'reported-after': '1',
    'expires-before': '2100000000',
    'expires-after': '3',
    'less-than': '2',
    'ip-protocol-version': 'IPV6',
  }
  const args = Object.entries(filters).flatMap(([name, value]) => [`--${name}`, value])
  assert.equal(await succeeds('list', ...args), '2606:4700::1 sshd 2000000000 web1\n')
  const asked = new URL(service.seen.at(-1)?.path ?? '', 'http://x').searchParams
  const wanted = Object.entries(filters).map(([name, value]) => [name.replaceAll('-', '_'), value])
  assert.deepEqual([...asked], wanted)
  assert.equal(await succeeds('list', '--greater-than', '1'), '')
  const json = JSON.parse(await succeeds('list', '--format', 'json'))
  assert.equal(json.addresses.length, 2)
  assert.equal((await succeeds('list', '--format', 'csv')).split('\n').length, 4)
  const waf = await succeeds('list', '--format', 'aws-waf', '--ip-protocol-version', 'IPV4')
  assert.deepEqual(JSON.parse(waf), { Addresses: ['1.2.3.4/32'] })
})

test('list refuses filters and formats that the service would not understand', async () => {
  await fails(65, /--format "xml"/, 'list', '--format', 'xml')
  await fails(65, /--dataset "a b"/, 'list', '--dataset', 'a b')
  await fails(65, /--greater-than "0"/, 'list', '--greater-than', '0')
  await fails(64, /IPV4 or IPV6/, 'list', '--format', 'aws-waf')
  assert.deepEqual(calls(), [])
})

test('delete-all empties the account and the ledgers, but only with --yes', async () => {
  await bench.feed('1.2.3.4 sshd 2000000000\n', 'sync')
  await fails(64, /say --yes/, 'delete-all')
  assert.equal(service.entries().size, 1)
  await succeeds('delete-all', '--yes')
  assert.equal(service.entries().size, 0)
  assert.equal(await succeeds('list'), '')
  const again = await bench.feed('1.2.3.4 sshd 2000000000\n', 'sync')
  assert.match(again.stdout, /^added 1,/)
  assert.equal(service.entries().size, 1)
})

test('check tests the key, start and stop do nothing', async () => {
  await succeeds('start')
  await succeeds('stop')
  assert.deepEqual(calls(), [])
  await succeeds('check')
  assert.equal(service.seen.length, 1)
})

test('what may not be read by others is not: the ledgers are 0600', async () => {
  await succeeds('ban', '--ip', '1.2.3.4', '--name', 'sshd', '--bantime', '600')
  assert.match(stateFile(bench, 'threatjammer.wanted'), /^1\.2\.3\.4 sshd \d+ web1\n$/)
  for (const kind of ['wanted', 'reported', 'pace']) {
    assert.equal(statSync(`${bench.state}/threatjammer.${kind}`).mode & 0o777, 0o600)
  }
})

test('a configuration without the section, or without a key, is 78', async () => {
  const other = makeBench('abuseipdb', KEY, [])
  const script = new URL('../../dist/threatjammer.cjs', import.meta.url).pathname
  const ended = await run(process.execPath, [script, 'check', '--config', other.config])
  other.remove()
  assert.equal(ended.code, 78)
  assert.match(ended.stderr, /missing key "threatjammer"/)
})
