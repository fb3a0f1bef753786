import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { resolve } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { type Bench, openBench } from '../lib/fortigate.ts'

let bench: Bench
beforeEach(() => {
  bench = openBench({ top: { never_ban: ['192.0.2.0/24'] } })
})
afterEach(() => bench.close())

const lines = () => readFileSync(bench.list, 'utf8').split('\n').slice(0, -1)
const later = (seconds: number) => Math.floor(Date.now() / 1000) + seconds

async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await bench.cli(...args)
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
  assert.equal(stderr, '')
  return stdout
}

test('ban writes one line with jail, end and owner, and says nothing', async () => {
  const time = String(later(0))
  assert.equal(
    await ok('ban', '--ip', '203.0.113.7', '--name', 'sshd', '--bantime', '600', '--time', time),
    '',
  )
  assert.deepEqual(lines(), [`203.0.113.7 # sshd ${Number(time) + 600} web1`])
})

test('ban twice leaves one line; a longer one extends and moves to the end, a shorter one changes nothing', async () => {
  const time = String(later(0))
  const ban = (ip: string, seconds: string) =>
    ok('ban', '--ip', ip, '--name', 'sshd', '--bantime', seconds, '--time', time)
  await ban('203.0.113.7', '600')
  await ban('203.0.113.8', '600')
  const before = statSync(bench.list).ino
  await ban('203.0.113.7', '300')
  assert.equal(statSync(bench.list).ino, before, 'nothing to write')
  await ban('203.0.113.7', '900')
  const end = (seconds: number) => Number(time) + seconds
  assert.deepEqual(lines(), [
    `203.0.113.8 # sshd ${end(600)} web1`,
    `203.0.113.7 # sshd ${end(900)} web1`,
  ])
})

test('unban takes out its own lease only: last owner releases', async () => {
  await ok('ban', '--ip', '203.0.113.7', '--name', 'sshd')
  await ok('ban', '--ip', '203.0.113.7', '--name', 'postfix')
  appendFileSync(bench.list, '203.0.113.7 # sshd 0 web2\n')
  await ok('unban', '--ip', '203.0.113.7', '--name', 'sshd')
  assert.deepEqual(lines(), ['203.0.113.7 # postfix 0 web1', '203.0.113.7 # sshd 0 web2'])
  await ok('unban', '--ip', '203.0.113.7', '--name', 'sshd')
  assert.equal(lines().length, 2, 'was not banned: success')
})

test('what a person wrote stays as it is, byte for byte, and in its place', async () => {
  const hand = [
    '# printers',
    '',
    '203.0.113.9',
    '  2001:DB8::9  ',
    'caf\u00e9 9',
    '10.0.0.300',
    '203.0.113.7\r',
    '203.0.113.6\t# two words\r',
    '203.0.113.5#note; and so on',
    '; 203.0.113.4 no more',
  ]
  writeFileSync(bench.list, hand.join('\n'))
  await ok('ban', '--ip', '203.0.113.9', '--name', 'sshd')
  assert.deepEqual(lines(), [...hand, '203.0.113.9 # sshd 0 web1'])
  await ok('unban', '--ip', '203.0.113.9', '--name', 'sshd')
  await ok('flush')
  await bench.cliWith('# nobody\n', 'sync')
  assert.deepEqual(lines(), hand)
})

test('check reports lines that nobody can read and succeeds; a missing list is 75', async () => {
  writeFileSync(
    bench.list,
    '203.0.113.9\nnonsense\n2001:DB8::1 # sshd 0 web1\n1.2.3.4 # sshd 0 web1 more\n1.2.3.5 # for ever\n',
  )
  const { code, stderr } = await bench.cli('check')
  assert.equal(code, 0)
  assert.match(stderr, /line 2: "nonsense"/)
  assert.match(stderr, /line 3: "2001:DB8::1 # sshd 0 web1"/)
  assert.match(stderr, /line 4: "1\.2\.3\.4 # sshd 0 web1 more"/)
  assert.equal(stderr.trim().split('\n').length, 3)
  rmSync(bench.list)
  assert.equal((await bench.cli('check')).code, 75)
})

test('start makes an empty list, drops what has ended, and never empties one', async () => {
  await ok('start', '--name', 'sshd')
  assert.deepEqual(lines(), [])
  writeFileSync(
    bench.list,
    `203.0.113.9\n203.0.113.5 # sshd 1700000000 web1\n203.0.113.6 # sshd ${later(60)} web1\n`,
  )
  await ok('start', '--name', 'sshd')
  assert.deepEqual(
    lines().map((line) => line.split(' ')[0]),
    ['203.0.113.9', '203.0.113.6'],
  )
})

test('the list is readable for the feed whatever the umask is', async () => {
  const script = resolve('dist/fortigate.cjs')
  const shell = `umask 077; "$0" "$1" start && "$0" "$1" ban --ip 203.0.113.7`
  const env = { ...process.env, FAIL2BAN_PERIMETER_CONFIG: bench.config }
  const child = spawn('sh', ['-c', shell, process.execPath, script], { env, stdio: 'inherit' })
  await new Promise((done) => child.once('exit', done))
  assert.equal(statSync(bench.list).mode & 0o777, 0o644)
})

test('list prints what sync reads; sync makes the own leases exactly these', async () => {
  const end = later(600)
  writeFileSync(
    bench.list,
    `203.0.113.1\n203.0.113.2 # sshd ${end} web1\n203.0.113.3 # sshd 0 web2\n203.0.113.4 # web ${end} web1\n`,
  )
  assert.equal(await ok('list'), `203.0.113.2 sshd ${end} web1\n203.0.113.4 web ${end} web1\n`)
  const wanted = `203.0.113.2 sshd ${end + 60}\n203.0.113.5 sshd 0\n192.0.2.9 sshd 0\n`
  const synced = await bench.cliWith(wanted, 'sync', '--name', 'sshd')
  assert.equal(synced.stdout, 'added 1, extended 1, removed 0, unchanged 0, refused 1\n')
  assert.equal(
    (await bench.cliWith(wanted, 'sync')).stdout,
    'added 0, extended 0, removed 1, unchanged 2, refused 1\n',
  )
  assert.deepEqual(lines(), [
    '203.0.113.1',
    '203.0.113.3 # sshd 0 web2',
    `203.0.113.2 # sshd ${end + 60} web1`,
    '203.0.113.5 # sshd 0 web1',
  ])
  assert.equal((await bench.cliWith('', 'sync')).code, 65)
  assert.equal((await bench.cliWith('rubbish\n', 'sync')).code, 65)
  assert.equal(lines().length, 4)
})

test('flush releases own leases, of one jail with --name', async () => {
  writeFileSync(
    bench.list,
    '203.0.113.2 # sshd 0 web1\n203.0.113.3 # sshd 0 web2\n203.0.113.4 # web 0 web1\n',
  )
  await ok('flush', '--name', 'sshd')
  assert.deepEqual(lines(), ['203.0.113.3 # sshd 0 web2', '203.0.113.4 # web 0 web1'])
  await ok('flush')
  assert.deepEqual(lines(), ['203.0.113.3 # sshd 0 web2'])
})

test('--dry-run shows and changes nothing', async () => {
  for (const verb of ['start', 'flush']) await bench.cli(verb, '--dry-run')
  assert.match(await ok('ban', '--ip', '203.0.113.7', '--dry-run'), /ban 203\.0\.113\.7 - 0 web1/)
  assert.equal(existsSync(bench.list), false)
})

test('bad input is 65, wrong usage 64, no section 78, and one line each', async () => {
  const codes: [number, ...string[]][] = [
    [65, 'ban', '--ip', '0.0.0.0'],
    [65, 'ban', '--ip', '203.0.113.0/8'],
    [65, 'ban', '--ip', '192.0.2.7'],
    [65, 'ban', '--ip', '203.0.113.7', '--name', 'a b'],
    [64, 'ban'],
    [64, 'frobnicate'],
    [78, 'list', '--device'],
  ]
  for (const [code, ...args] of codes) {
    const ended = await bench.cli(...args)
    assert.equal(ended.code, code, args.join(' '))
    assert.match(ended.stderr, /^fortigate: [^\n]+\n$/)
  }
  writeFileSync(bench.config, 'owner: web1\n')
  assert.equal((await bench.cli('list')).code, 78)
})

test('a list that cannot be written is 75 and stays as it was', async () => {
  await ok('ban', '--ip', '203.0.113.7', '--name', 'sshd')
  mkdirSync(`${bench.list}.new`)
  const { code, stderr } = await bench.cli('ban', '--ip', '203.0.113.8', '--name', 'sshd')
  assert.equal(code, 75)
  assert.match(stderr, /^fortigate: Cannot ban "203\.0\.113\.8" on ".*list\.txt": Cannot write/)
  assert.equal(lines().length, 1)
})

test('a folder that is not there is 75', async () => {
  const text = readFileSync(bench.config, 'utf8').replace(
    /list_file: .*/,
    'list_file: /nowhere/list.txt',
  )
  writeFileSync(bench.config, text)
  assert.equal((await bench.cli('ban', '--ip', '203.0.113.7')).code, 75)
  chmodSync(bench.config, 0o600)
})

test('200 ban processes at once: nothing lost, nothing doubled, no reader sees a part', async (t) => {
  const known = Array.from({ length: 2000 }, (_, i) => `10.9.${i >> 8}.${i & 255} # old 0 web1`)
  writeFileSync(bench.list, `${known.join('\n')}\n`)
  let reads = 0
  let running = true
  const reader = (async () => {
    while (running) {
      const text = readFileSync(bench.list, 'utf8')
      reads++
      assert.ok(text.endsWith('\n'), 'a cut line')
      assert.ok(text.split('\n').length > 2000, 'a part of the list')
      await new Promise((done) => setTimeout(done, 1))
    }
  })()
  const began = Date.now()
  // 100 addresses, each banned by two processes.
  const runs = Array.from({ length: 200 }, async (_, i) => {
    const line = ['--ip', `203.0.113.${i % 100}`, '--name', 'sshd', '--bantime', '600']
    const first = await bench.cli('ban', ...line)
    // Fail2Ban runs a failing action once more; on a busy machine the last one's 20 s may be over.
    return first.code === 75 ? bench.cli('ban', ...line) : first
  })
  const ended = await Promise.all(runs)
  running = false
  await reader
  t.diagnostic(`200 processes in ${Date.now() - began} ms, ${reads} whole reads meanwhile`)
  assert.deepEqual(
    [...new Set(ended.map(({ code }) => code))],
    [0],
    ended.find((e) => e.code)?.stderr,
  )
  const fresh = lines().filter((line) => line.startsWith('203.0.113.'))
  const addresses = fresh.map((line) => line.split(' ')[0])
  assert.equal(addresses.length, 100)
  assert.equal(new Set(addresses).size, 100)
  assert.equal(lines().length, 2100)
})

test('killed at any moment: the list is whole and the next ban works', async () => {
  const known = Array.from({ length: 20_000 }, (_, i) => `10.9.${i >> 8}.${i & 255} # old 0 web1`)
  writeFileSync(bench.list, `${known.join('\n')}\n`)
  const env = { ...process.env, FAIL2BAN_PERIMETER_CONFIG: bench.config }
  const script = resolve('dist/fortigate.cjs')
  for (let i = 0; i < 25; i++) {
    const child = spawn(process.execPath, [script, 'ban', '--ip', `203.0.113.${i}`], { env })
    setTimeout(() => child.kill('SIGKILL'), 60 + i * 6)
    await new Promise((done) => child.once('exit', done))
    assert.ok(lines().length >= 20_000)
    assert.ok(readFileSync(bench.list, 'utf8').endsWith('\n'))
  }
  await ok('ban', '--ip', '203.0.113.200')
  assert.ok(lines().includes('203.0.113.200 # - 0 web1'))
})
