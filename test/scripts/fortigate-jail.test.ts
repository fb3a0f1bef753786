import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { after, before, beforeEach, test } from 'node:test'
import { type Bench, openBench, PASS, SECRET } from '../lib/fortigate.ts'
import { type Fail2Ban, openFail2Ban, withCommands } from '../lib/fortigate-jail.ts'
import { waitUntil } from '../lib/wait.ts'
import { FortiGate, SSLVPN_FAILED, tunnelUp } from '../simulators/fortigate.ts'

let bench: Bench
let server: Fail2Ban
let device: FortiGate

/** The jails of the action's own header, for other files and times. */
function jailsOfHeader(log: string): string {
  const header = readFileSync('action.d/fortigate.conf', 'utf8').split('[Definition]')[0] ?? ''
  const lines = header.split('\n').filter((line) => line.startsWith('#   '))
  assert.ok(lines.length >= 15, 'the header has the jails')
  return lines
    .map((line) => line.slice(4))
    .join('\n')
    .replaceAll(/^logpath.*$/gm, `logpath = ${log}`)
}

before(async () => {
  bench = openBench({ webhook: { decoy_users: ['backup'] } })
  writeFileSync(bench.log, '')
  const env = {
    ...process.env,
    PATH: withCommands(bench.folder, ['f2b-fortigate']),
    FAIL2BAN_PERIMETER_CONFIG: bench.config,
  }
  const extra = `
[short]
enabled = true
filter = fortigate[mode=decoy]
action = add-to-list
logpath = ${bench.log}
backend = polling
maxretry = 1
bantime = 4
`
  server = openFail2Ban(jailsOfHeader(bench.log) + extra, env)
  const { code, stderr, stdout } = await server.client('start')
  assert.equal(code, 0, stderr + stdout)
  await waitUntil('the list', async () => (await bench.cli('check')).code === 0)
  await bench.startFeed()
  device = new FortiGate({ server: bench.url, user: 'fortigate', pass: PASS, secret: SECRET })
})
after(async () => {
  await server.close()
  await bench.close()
})
beforeEach(() => assert.deepEqual(device.complaints, []))

const listed = () => readFileSync(bench.list, 'utf8')
const faults = () =>
  readFileSync(server.log, 'utf8')
    .split('\n')
    .filter((l) => /ERROR|CRITICAL/.test(l))

test('the jails of the header start on this Fail2Ban, and the list is there at once', async () => {
  const { stdout } = await server.client('status')
  assert.match(stdout, /Jail list:\s+fortigate, fortigate-decoy, short/)
  assert.equal(await device.pull(), 200)
})

test('the story: logins fail, Fail2Ban bans after maxretry, the device fetches and blocks', async () => {
  for (let i = 0; i < 2; i++) await device.post(SSLVPN_FAILED.v7({ remip: '203.0.113.7' }), 'form')
  await device.post(tunnelUp({ remip: '203.0.113.50' }))
  await device.post(tunnelUp({ remip: '203.0.113.50' }))
  await device.post(tunnelUp({ remip: '203.0.113.50' }))
  await new Promise((done) => setTimeout(done, 1500))
  await device.pull()
  assert.ok(!device.blocks('203.0.113.7'), 'two failures are not enough')
  await device.post(SSLVPN_FAILED.v7({ remip: '203.0.113.7' }), 'unescaped')
  await waitUntil('the ban', () => listed().includes('203.0.113.7 # fortigate '))
  assert.equal(await device.pull(), 200)
  assert.ok(device.blocks('203.0.113.7'))
  assert.ok(!device.blocks('203.0.113.50'), 'who logged in fine is never banned')
  assert.equal(await device.pull(), 304)
})

test('a decoy name bans at the first try, in IPv6 too', async () => {
  await device.post(SSLVPN_FAILED.v7({ remip: '2001:db8::66', user: 'backup' }))
  await waitUntil('the ban', () => /2001:db8::66 # fortigate-decoy \d/.test(listed()))
  await device.pull()
  assert.ok(device.blocks('2001:db8::66'))
})

test('the ban ends and the feed drops it, while the longer one of another jail stays', async () => {
  await server.client('set', 'short', 'banip', '203.0.113.8')
  await device.pull()
  assert.ok(device.blocks('203.0.113.8'))
  await waitUntil('its end', async () => {
    await device.pull()
    return !device.blocks('203.0.113.8')
  })
  await waitUntil('its unban', () => !listed().includes(' # short '))
  assert.ok(device.blocks('2001:db8::66'))
})

test('unbanip frees at once', async () => {
  await server.client('set', 'fortigate', 'banip', '203.0.113.9')
  assert.match(listed(), /203\.0\.113\.9 # fortigate /)
  await server.client('set', 'fortigate', 'unbanip', '203.0.113.9')
  assert.doesNotMatch(listed(), /203\.0\.113\.9/)
})

test('a restart of Fail2Ban opens no gap and doubles nothing', async () => {
  const before = listed()
  assert.match(before, /203\.0\.113\.7 # fortigate \d+ web1/)
  await server.client('stop')
  assert.equal(listed(), before, 'stopping frees nobody')
  const { code } = await server.client('start')
  assert.equal(code, 0)
  const restored = () => /Restore Ban 2001:db8::66/.test(readFileSync(server.log, 'utf8'))
  await waitUntil('the restored bans', restored)
  await new Promise((done) => setTimeout(done, 1000))
  assert.deepEqual(listed().split('\n').sort(), before.split('\n').sort())
  assert.equal(await device.pull('/blocked-ips'), 304)
})

test('Fail2Ban logged no error in all that', () => {
  assert.deepEqual(faults(), [])
})
