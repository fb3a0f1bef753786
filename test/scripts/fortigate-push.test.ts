import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, test } from 'node:test'
import { run } from '../../scripts/lib/run.ts'
import { temporaryFolder } from '../lib/folder.ts'
import { type Bench, makeCertificate, openBench } from '../lib/fortigate.ts'
import { type Fault, FortiGate } from '../simulators/fortigate.ts'

const NAME = 'Internal fail2ban List'
const { key, cert } = await makeCertificate(temporaryFolder('device'))
const tls = { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') }
let device: FortiGate
let entries: Set<string>
let bench: Bench

beforeEach(async () => {
  device = new FortiGate({ server: '' })
  entries = device.addConnector(NAME)
  const push = { url: await device.listen(tls), name: NAME, token: device.token, ca: cert }
  bench = openBench({ push })
})
afterEach(async () => {
  assert.deepEqual(device.complaints, [])
  await device.close()
  await bench.close()
})

async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await bench.cli(...args)
  assert.equal(code, 0, stderr)
  return stdout
}

test('ban and unban push one address each, and the last owner releases', async () => {
  await ok('ban', '--ip', '203.0.113.7', '--name', 'sshd')
  await ok('ban', '--ip', '203.0.113.7', '--name', 'web')
  await ok('ban', '--ip', '2001:db8::7', '--name', 'web')
  assert.deepEqual([...entries], ['203.0.113.7', '2001:db8::7'])
  await ok('unban', '--ip', '203.0.113.7', '--name', 'sshd')
  assert.ok(device.blocks('203.0.113.7'))
  await ok('unban', '--ip', '203.0.113.7', '--name', 'web')
  assert.ok(!device.blocks('203.0.113.7'))
  assert.deepEqual(device.calls, ['add 1', 'add 1', 'add 1', 'add 1', 'remove 1'])
})

test('what a person wrote into the list is not taken off the device', async () => {
  writeFileSync(bench.list, '203.0.113.7\n')
  await ok('ban', '--ip', '203.0.113.7', '--name', 'sshd')
  await ok('unban', '--ip', '203.0.113.7', '--name', 'sshd')
  assert.ok(device.blocks('203.0.113.7'))
})

test('sync pushes one snapshot of everything; check and list --device read it back', async () => {
  writeFileSync(bench.list, '203.0.113.1\n203.0.113.2 # sshd 0 web2\n203.0.113.9 # sshd 0 web1\n')
  entries.add('198.51.100.99')
  assert.equal((await bench.cli('check')).code, 75)
  const { stdout } = await bench.cliWith('203.0.113.9 sshd 0\n203.0.113.4 sshd 0\n', 'sync')
  assert.equal(stdout, 'added 1, extended 0, removed 0, unchanged 1\n')
  assert.deepEqual(device.calls, ['snapshot 4'])
  assert.deepEqual([...entries].sort(), [
    '203.0.113.1',
    '203.0.113.2',
    '203.0.113.4',
    '203.0.113.9',
  ])
  await ok('check')
  entries.add('198.51.100.99')
  assert.equal(
    await ok('list', '--device'),
    '198.51.100.99 - 0 web1\n203.0.113.1 - 0 web1\n203.0.113.4 sshd 0 web1\n203.0.113.9 sshd 0 web1\n',
  )
  const { code, stderr } = await bench.cli('check')
  assert.equal(code, 75)
  assert.match(stderr, /lacks 0 entries and has 1 too many/)
})

test('20 bans and unbans of one address at once: the device ends as the list does', async () => {
  const runs = Array.from({ length: 20 }, (_, i) =>
    bench.cli(i % 2 ? 'ban' : 'unban', '--ip', '203.0.113.7', '--name', 'sshd'),
  )
  for (const { code, stderr } of await Promise.all(runs)) assert.equal(code, 0, stderr)
  const banned = readFileSync(bench.list, 'utf8').includes('203.0.113.7')
  assert.equal(device.blocks('203.0.113.7'), banned)
})

const FAULTS: [Fault, number][] = [
  ['refused', 77],
  ['busy', 75],
  ['error', 75],
  ['garbage', 76],
  ['failed', 76],
  ['reset', 75],
]
for (const [fault, code] of FAULTS) {
  test(`${fault}: exit ${code}, the list stands and no secret is shown`, async () => {
    device.fault = fault
    const ended = await bench.cli('ban', '--ip', '203.0.113.7', '--name', 'sshd', '--verbose')
    assert.equal(ended.code, code, ended.stderr)
    assert.match(ended.stderr, /fortigate: Cannot ban "203\.0\.113\.7" on /)
    assert.ok(!(ended.stdout + ended.stderr).includes(device.token))
    assert.match(readFileSync(bench.list, 'utf8'), /^203\.0\.113\.7 # sshd 0 web1\n$/)
    device.fault = undefined
    await bench.cliWith('203.0.113.7 sshd 0\n', 'sync')
    assert.ok(device.blocks('203.0.113.7'), 'the next sync repairs it')
  })
}

test('a device that does not answer is 75 within 20 s', async () => {
  device.fault = 'hang'
  const began = Date.now()
  assert.equal((await bench.cli('ban', '--ip', '203.0.113.7')).code, 75)
  assert.ok(Date.now() - began < 30_000)
})

test('a device whose answer has no end is 76, and takes no memory', async () => {
  device.fault = 'endless'
  const limited = ['--max-old-space-size=64', 'dist/fortigate.cjs', 'ban', '--ip', '203.0.113.7']
  const env = { ...process.env, FAIL2BAN_PERIMETER_CONFIG: bench.config }
  const { code, stderr } = await run(process.execPath, limited, { env })
  assert.equal(code, 76, stderr)
  assert.match(stderr, /the device sent an answer without end/)
})

test('a token never crosses the network in the clear (78)', async () => {
  const text = readFileSync(bench.config, 'utf8')
  writeFileSync(bench.config, text.replace('https:', 'http:'))
  const { code, stderr } = await bench.cli('ban', '--ip', '203.0.113.7')
  assert.equal(code, 78)
  assert.match(stderr, /must be https:\/\/HOST/)
})

test('a device that is not there is 69', async () => {
  await device.close()
  const { code, stderr } = await bench.cli('ban', '--ip', '203.0.113.7')
  assert.equal(code, 69, stderr)
})

test('a wrong token is 77, an unknown connector 76', async () => {
  const text = readFileSync(bench.config, 'utf8')
  writeFileSync(bench.config, text.replace(device.token, 'another-token'))
  assert.equal((await bench.cli('ban', '--ip', '203.0.113.7')).code, 77)
  writeFileSync(bench.config, text.replace(NAME, 'Other'))
  assert.equal((await bench.cli('ban', '--ip', '203.0.113.7')).code, 76)
})

test('TLS: refused (69) without the CA, fine with it', async () => {
  const secure = new FortiGate({ server: '' })
  const pushed = secure.addConnector(NAME)
  const push = { url: await secure.listen(tls), name: NAME, token: secure.token }
  const [without, trusting] = [openBench({ push }), openBench({ push: { ...push, ca: cert } })]
  const refused = await without.cli('ban', '--ip', '203.0.113.7')
  assert.equal(refused.code, 69, refused.stderr)
  assert.match(refused.stderr, /TLS failed/)
  assert.equal((await trusting.cli('ban', '--ip', '203.0.113.7')).code, 0)
  assert.deepEqual([...pushed], ['203.0.113.7'])
  await Promise.all([secure.close(), without.close(), trusting.close()])
})

test('a list and a device that others keep busy cost a ban 20 s together, not 20 s each', async () => {
  await ok('start')
  const over = new AbortController()
  const hold = (name: string, seconds: string) =>
    run('flock', ['--no-fork', `${bench.list}.${name}`, 'sleep', seconds], { signal: over.signal })
  const held = [hold('lock', '8'), hold('push.lock', '60')]
  const began = Date.now()
  const { code, stderr } = await bench.cli('ban', '--ip', '203.0.113.7')
  const seconds = (Date.now() - began) / 1000
  over.abort()
  await Promise.all(held)
  assert.equal(code, 75)
  assert.match(stderr, /^fortigate: Cannot ban "203\.0\.113\.7" .*: Cannot lock .*busy with it\n$/)
  // Fail2Ban kills an action after 60 s and runs a failing one twice.
  assert.ok(seconds < 27, `${seconds} s`)
  assert.match(readFileSync(bench.list, 'utf8'), /^203\.0\.113\.7 /, 'what was written stands')
})
