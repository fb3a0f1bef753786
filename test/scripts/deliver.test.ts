import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { type Ended, run } from '../../scripts/lib/run.ts'
import { append } from '../lib/append.ts'
import { openFail2ban, type PrivateFail2ban } from '../lib/private-fail2ban.ts'
import { type Bench, makeBench } from '../lib/reporters.ts'
import { waitUntil } from '../lib/wait.ts'
import { startThreatJammer, type ThreatJammerSimulator } from '../simulators/threatjammer.ts'

// Siblings other than the firewalls: a FortiGate list and a reporter, served side by side.

const KEY = 'tja_0123456789abcdefghijklmnopqrstuvwxyz'

let fail2ban: PrivateFail2ban
let service: ThreatJammerSimulator
let bench: Bench
let list: string

before(async () => {
  const jails = '[sshd]\naction = fortigate\n'
  fail2ban = await openFail2ban({ jails, delivery: 'direct' })
})
after(() => fail2ban?.remove())

beforeEach(async () => {
  service = await startThreatJammer(KEY)
  const section = [`report_url: ${service.reportUrl}`, `api_url: ${service.apiUrl}`]
  bench = makeBench('threatjammer', KEY, section, [
    'fail2ban:',
    `  socket: ${fail2ban.socket}`,
    'fortigate:',
    `  list_file: /tmp/f2b-list-${process.pid}`,
  ])
  list = join(bench.directory, 'list')
  const text = readFileSync(bench.config, 'utf8')
  writeFileSync(bench.config, text.replace(`/tmp/f2b-list-${process.pid}`, list))
  mkdirSync(join(bench.state, 'queue'), { recursive: true })
})

afterEach(async () => {
  bench.remove()
  await service.close()
})

function f2b(script: string, ...args: string[]): Promise<Ended> {
  const file = resolve(`dist/${script}.cjs`)
  const env = { ...process.env, TZ: 'UTC' }
  return run(process.execPath, [file, '--config', bench.config, ...args], { env })
}

const queue = (sibling: string, ...words: string[]) =>
  append(join(bench.state, 'queue', sibling), words)

const began = String(Math.floor(Date.now() / 1000))
const listed = (): string[] =>
  readFileSync(list, 'utf8')
    .split('\n')
    .flatMap((line) => line.split(' ')[0] || [])
const calls = (): string[] =>
  service.seen.map(({ method, path, status }) => `${method} ${path} ${status}`)

test('f2b-deliver takes lines to a list and to a reporter, many in one go', async () => {
  for (let i = 1; i <= 12; i++) {
    await queue('fortigate', 'ban', `1.2.3.${i}`, 'sshd', began, '600')
    await queue('threatjammer', 'ban', `1.2.3.${i}`, 'sshd', began, '600')
  }
  await queue('fortigate', 'unban', '1.2.3.5', 'sshd')
  assert.deepEqual(await f2b('deliver'), { code: 0, stdout: '', stderr: '' })
  assert.equal(listed().length, 11)
  assert.equal(listed().includes('1.2.3.5'), false)
  assert.deepEqual(calls(), ['POST /v1/ip 202'])
  assert.equal(JSON.parse(service.seen[0]?.body ?? '').addresses.length, 12)
  await queue('fortigate', 'unban', '1.2.3.1', 'sshd')
  assert.equal((await f2b('deliver')).code, 0)
  assert.equal(listed().includes('1.2.3.1'), false)
})

test('a reporter that is out of order keeps no list waiting, and gets its lines later', async () => {
  await service.close()
  await queue('threatjammer', 'ban', '1.2.3.4', 'sshd', began, '600')
  await queue('fortigate', 'ban', '1.2.3.4', 'sshd', began, '600')
  const { code, stderr } = await f2b('deliver')
  assert.deepEqual(listed(), ['1.2.3.4'])
  assert.ok(code === 0 || code === 69, stderr)
  const state = readFileSync(join(bench.state, 'threatjammer.wanted'), 'utf8')
  assert.match(state, /^1\.2\.3\.4 sshd \d+ web1$/m)
})

test('f2b-sync makes the list equal to Fail2Ban, and leaves what a person wrote', async () => {
  writeFileSync(
    list,
    '192.0.2.99\n1.2.3.4 # sshd 0 web1\n1.2.3.5 # gone 0 web1\n1.2.3.6 # sshd 0 web2\n',
  )
  await fail2ban.seed([{ jail: 'sshd', id: '1.2.3.7', began: 2_000_000_000, seconds: -1 }])
  const drift = await f2b('sync', 'fortigate', '--dry-run')
  assert.match(drift.stdout, /added 1, extended 0, removed 2, unchanged 0/)
  const { code, stdout, stderr } = await f2b('sync', 'fortigate')
  assert.deepEqual([code, stderr], [0, ''])
  assert.equal(stdout, 'added 1, extended 0, removed 2, unchanged 0\n')
  assert.deepEqual(listed().sort(), ['1.2.3.6', '1.2.3.7', '192.0.2.99'])
  const again = await f2b('sync', 'fortigate')
  assert.equal(again.stdout, 'added 0, extended 0, removed 0, unchanged 1\n')
  assert.equal(readFileSync(list, 'utf8').match(/192\.0\.2\.99/g)?.length, 1)
  assert.deepEqual(calls(), [], 'the reporter was not meant')
})

test('f2b-deliver takes up a changed configuration, and keeps the old one if the new one is no use', async () => {
  const whole = readFileSync(bench.config, 'utf8')
  const without = whole.replace(/fortigate:\n.*\n/, '')
  writeFileSync(bench.config, without)
  const args = [resolve('dist/deliver.cjs'), '--follow', '--config', bench.config]
  const deliver = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  deliver.stderr.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  const ended = once(deliver, 'close')
  await fail2ban.seed([])
  try {
    await waitUntil('f2b-deliver', () => said.includes(' ready '), { timeout: 30_000 })
    // The ban comes first: a jail may use the new action before the target is known.
    await queue('fortigate', 'ban', '1.2.3.4', 'sshd', began, '600')
    writeFileSync(bench.config, whole)
    await waitUntil('the ban', () => existsSync(list) && listed().includes('1.2.3.4'), {
      timeout: 30_000,
    })
    await queue('threatjammer', 'ban', '1.2.3.5', 'sshd', began, '600')
    await waitUntil('the report', () => calls().length === 1, { timeout: 30_000 })
    // A broken file, and a copy of the good one for f2b-status to be asked with.
    const good = join(bench.directory, 'good.yaml')
    writeFileSync(good, whole)
    writeFileSync(bench.config, `${whole}no_such_key: 1\n`)
    const asked = async () => {
      const { code, stdout } = await f2b('status', '--config', good, '--json')
      return { code, ...JSON.parse(stdout) }
    }
    await waitUntil('the complaint', async () => (await asked()).code === 78, { timeout: 60_000 })
    const { problems, deliverer } = await asked()
    const own = problems.find(({ name }: { name: string }) => name === 'f2b-deliver')
    assert.match(own?.text, /^works with the configuration of .*unknown key "no_such_key"$/)
    assert.equal(deliverer.config.path, bench.config)
    await queue('fortigate', 'ban', '1.2.3.6', 'sshd', began, '600')
    await waitUntil('the ban', () => listed().includes('1.2.3.6'), { timeout: 30_000 })
    writeFileSync(bench.config, whole)
    await waitUntil('no complaint', async () => (await asked()).deliverer.config.error === '', {
      timeout: 60_000,
    })
    assert.equal(said.match(/took up the configuration/g)?.length, 1, said)
  } finally {
    deliver.kill('SIGTERM')
    await ended
  }
})

test('a queue that cannot be read keeps no other from being delivered', async () => {
  mkdirSync(join(bench.state, 'queue', 'threatjammer'))
  await queue('fortigate', 'ban', '1.2.3.4', 'sshd', began, '600')
  const { code, stderr } = await f2b('deliver')
  assert.equal(code, 75)
  assert.match(stderr, /^deliver: Cannot read ".*queue\/threatjammer": it is no file\n$/)
  assert.deepEqual(listed(), ['1.2.3.4'])
})

test('f2b-deliver says what is wrong with its configuration, with 78', async () => {
  writeFileSync(bench.config, 'owner: web1\n')
  const none = await f2b('deliver')
  assert.deepEqual([none.code, none.stdout], [78, ''])
  assert.match(none.stderr, /^deliver: .*names no target\n$/)
})
