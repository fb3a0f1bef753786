import assert from 'node:assert/strict'
import { readFileSync, rmSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { type PrivateFail2ban, startPrivateFail2ban } from '../lib/private-fail2ban.ts'
import { type Bench, makeBench, stateFile } from '../lib/reporters.ts'
import { waitUntil } from '../lib/wait.ts'
import { type AbuseIpDbSimulator, startAbuseIpDb } from '../simulators/abuseipdb.ts'
import { startThreatJammer, type ThreatJammerSimulator } from '../simulators/threatjammer.ts'

// A real fail2ban-server with our action files, and both services as simulators.

const KEY = 'tja_0123456789abcdefghijklmnopqrstuvwxyz'

let jammer: ThreatJammerSimulator
let abuse: AbuseIpDbSimulator
let benches: { jammer: Bench; abuse: Bench }
let fail2ban: PrivateFail2ban

before(async () => {
  jammer = await startThreatJammer(KEY)
  abuse = await startAbuseIpDb(KEY)
  benches = {
    jammer: makeBench('threatjammer', KEY, [
      `report_url: ${jammer.reportUrl}`,
      `api_url: ${jammer.apiUrl}`,
    ]),
    abuse: makeBench('abuseipdb', KEY, [`url: ${abuse.url}`, 'jail_categories: {sshd: [18, 22]}']),
  }
  const command = (bench: Bench) => bench.command.map((word) => `'${word}'`).join(' ')
  fail2ban = await startPrivateFail2ban('sshd', [
    `threatjammer[threatjammer="${command(benches.jammer)}"]`,
    `abuseipdb-perimeter[abuseipdb="${command(benches.abuse)}"]`,
  ])
})

after(async () => {
  await fail2ban.remove()
  for (const bench of Object.values(benches)) bench.remove()
  await Promise.all([jammer.close(), abuse.close()])
})

test('a ban is reported to both, once, and a restart of Fail2Ban reports nothing again', async () => {
  await fail2ban.client('set', 'sshd', 'banip', '1.2.3.4')
  assert.deepEqual(
    [...jammer.entries()].map(([address, { tags }]) => [address, tags]),
    [['1.2.3.4', ['FAIL2BAN', 'SSHD']]],
  )
  assert.deepEqual(
    abuse.reports.map(({ ip, categories, comment }) => ({ ip, categories, comment })),
    [{ ip: '1.2.3.4', categories: [18, 22], comment: 'Banned by Fail2Ban' }],
  )
  // Without ledgers nobody but Fail2Ban itself can know that it was reported.
  for (const { state } of Object.values(benches)) rmSync(state, { recursive: true })
  await fail2ban.restart('1.2.3.4')
  assert.match(await fail2ban.client('get', 'sshd', 'banip'), /1\.2\.3\.4/)
  assert.equal(jammer.seen.length, 1)
  assert.equal(abuse.seen.length, 1)
})

test('a burst makes one more call, though nothing comes after it, and leaves out what is not public', async () => {
  const burst = Array.from({ length: 20 }, (_, i) => `1.2.4.${i + 1}`)
  await fail2ban.client('set', 'sshd', 'banip', ...burst, '10.211.7.93', '192.0.2.7', '2001:db8::7')
  const lines = stateFile(benches.jammer, 'threatjammer.wanted').trim().split('\n')
  assert.equal(lines.length, 20)
  await waitUntil(
    'the rest of the burst',
    () => jammer.entries().size === 21 && abuse.reports.length === 21,
  )
  assert.deepEqual([jammer.seen.length, abuse.seen.length], [3, 3])
})

test('an unban withdraws the report at Threat Jammer and leaves that at AbuseIPDB', async () => {
  await fail2ban.client('set', 'sshd', 'unbanip', '1.2.4.1')
  assert.ok(!jammer.entries().has('1.2.4.1'))
  assert.equal(abuse.reports.length, 21)
})

test('the key is in no log, no command and no configuration of Fail2Ban', async () => {
  jammer.faults.status = 401
  abuse.faults.status = 500
  await benches.jammer.f2b('check')
  await fail2ban.client('set', 'sshd', 'banip', '1.2.5.1')
  const shown = await fail2ban.client('get', 'sshd', 'action', 'threatjammer', 'actionban')
  for (const text of [shown, readFileSync(fail2ban.log, 'utf8'), await fail2ban.dump()]) {
    assert.ok(text.length > 0 && !text.includes(KEY))
  }
})
