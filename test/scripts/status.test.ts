import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { resolve } from 'node:path'
import { beforeEach, test } from 'node:test'
import { type Ended, run } from '../../scripts/lib/run.ts'
import { temporaryFolder } from '../lib/folder.ts'
import type { Seed } from '../lib/private-fail2ban.ts'
import { parseMetrics } from '../lib/prometheus.ts'
import { useServer } from '../lib/server.ts'
import { standInSsh } from '../lib/standin-ssh.ts'

// How the targets stand, with firewalls that an ssh of our own plays; see also status-address.test.

const ssh = standInSsh()
const server = useServer(ssh, 'firewalls:\n  - host: stat1\n  - host: stat2\n')
const { state } = server
const plain = temporaryFolder('plain')
const queue = `${state}/queue/firewall`
/** When the bans of Fail2Ban end. */
const END = Date.parse('2033-05-18T03:43:20Z') / 1000
const banned = (id: string): Seed => ({ jail: 'sshd', id, began: END - 600, seconds: 600 })
/** What no terminal, file or label may be given: colours, a bell, a line, a turn of direction. */
const HOSTILE = 'red\u001b[31m bell\u0007 csi\u009b1m turn\u202e "quote" back\\slash'

beforeEach(async () => {
  rmSync(state, { recursive: true, force: true })
  for (const host of ['stat1', 'stat2']) {
    ssh.told(host)
    rmSync(`${ssh.folder}/${host}.refused`, { force: true })
    ssh.answer(host, 'list', 'case $command in *--) ;; *) cat "$at.has";; esac')
    ssh.has(host, [`203.0.113.1 sshd ${END} web1`])
  }
  await server.fail2ban.seed([banned('203.0.113.1')])
})

async function status(...args: string[]): Promise<Ended & { lines: string[] }> {
  const ended = await server.run('status', ...args)
  return { ...ended, lines: ended.stdout.split('\n') }
}

test('f2b-status shows a row for each target, all lined up, and 0 if all is well', async () => {
  const { code, stdout, stderr } = await status()
  assert.deepEqual([code, stderr], [0, ''])
  assert.deepEqual(stdout.split('\n'), [
    'web1: 1 ban in Fail2Ban, 2 targets',
    '',
    'TARGET          REACHED  LEASES  DRIFT  QUEUED  OLDEST  REJECTED  SUCCESS  ERROR',
    'firewall/stat1  yes           1      0       -       -         -        -      -',
    'firewall/stat2  yes           1      0       -       -         -        -      -',
    '',
  ])
  assert.equal(existsSync(state), false, 'it has written nothing')
})

test('f2b-status counts what is missing, extra, and ends at another time; it changes nothing', async () => {
  await server.fail2ban.seed([1, 2, 3, 4].map((i) => banned(`203.0.113.${i}`)))
  const extra = `203.0.113.9 sshd ${END} web1`
  ssh.has('stat1', [`203.0.113.1 sshd ${END} web1`, `203.0.113.2 sshd ${END - 99} web1`, extra])
  const { code, lines } = await status()
  assert.equal(code, 75)
  assert.match(lines[3] ?? '', /^firewall\/stat1 {2}yes {11}3 {6}4 /)
  assert.deepEqual(lines.slice(5, 8), [
    '',
    'Problems',
    '  firewall/stat1  2 missing, 1 extra, 1 with another end: f2b-sync repairs it (--dry-run shows it) (75)',
  ])
  const words = new Set(ssh.told('stat1').map((line) => line.split(' ')[0]))
  words.delete('connect')
  assert.deepEqual([...words], ['list'])
})

test('f2b-status takes no ban for missing that is only on its way', async () => {
  // By the second look, the firewall has it.
  await server.fail2ban.seed([banned('203.0.113.1'), banned('203.0.113.2')])
  const late = `[ -e "$at.again" ] && echo 203.0.113.2 sshd ${END} web1; : >"$at.again"`
  ssh.answer('stat1', 'list', `case $command in *--) ;; *) cat "$at.has"; ${late};; esac`)
  ssh.has(
    'stat2',
    [1, 2].map((i) => `203.0.113.${i} sshd ${END} web1`),
  )
  const { code, lines } = await status()
  assert.deepEqual([code, lines.length], [0, 6])
})

test('f2b-status says whole why a target cannot be reached, and shows the others', async () => {
  const other = `${ssh.folder}/other.yaml`
  writeFileSync(other, readFileSync(server.config, 'utf8').replace('stat2', 'stat3'))
  ssh.refuse('stat3', `ssh: connect to host stat3 port 22: No route to ${HOSTILE}`)
  const { code, stdout } = await status('--config', other)
  assert.equal(code, 69)
  assert.match(stdout, /^firewall\/stat1 {2}yes {11}1 {6}0 /m)
  assert.match(stdout, /^firewall\/stat3 {2}no {12}\? {6}\? /m)
  const message =
    /^ {2}firewall\/stat3 {2}cannot connect: connect to host stat3 port 22: .*\(69\)$/m
  assert.match(stdout, message)
  assert.doesNotMatch(stdout.replaceAll('\n', ''), /\p{C}/u)
})

test('f2b-status does not wait for a target that hangs', async () => {
  ssh.answer('stat2', 'list', 'sleep 30; : >"$at.woke"')
  const { code, stdout } = await status('--timeout', '2')
  assert.equal(code, 75)
  assert.match(stdout, /^ {2}firewall\/stat2 {2}no answer in time \(75\)$/m)
  assert.match(stdout, /^firewall\/stat1 {2}yes/m)
  assert.equal(existsSync(`${ssh.folder}/stat2.woke`), false)
})

test('f2b-status does not know the drift while Fail2Ban is down, and says so', async () => {
  await server.fail2ban.stop()
  const { code, lines } = await status()
  assert.equal(code, 75)
  assert.equal(lines[0], 'web1: Fail2Ban does not answer, 2 targets')
  assert.match(lines[3] ?? '', /^firewall\/stat1 {2}yes {11}1 {6}\? /)
  assert.match(
    lines[7] ?? '',
    /^ {2}Fail2Ban {2}Cannot ask Fail2Ban: it does not run .*; drift is unknown \(75\)$/,
  )
})

test('f2b-status counts the lines of a queue that nobody reads, and leaves them alone', async () => {
  mkdirSync(`${state}/queue`, { recursive: true })
  const now = Math.floor(Date.now() / 1000)
  const ban = (ip: string, time: number): string => `\nban|${ip}|sshd|${time}|600|22|tcp|.\n`
  const text = `${ban('203.0.113.5', now - 300)}${ban('203.0.113.6', now)}\nban|203.0.1`
  writeFileSync(queue, text)
  const { code, stdout } = await status()
  assert.equal(code, 0, 'they have only just been written')
  assert.match(stdout, /^web1: .*, f2b-deliver does not run\n/)
  assert.match(stdout, /^firewall\/stat1 {2}yes {11}1 {6}0 {7}2 +\d+ s {9}0 /m)
  assert.equal(readFileSync(queue, 'utf8'), text)
  assert.equal(existsSync(`${state}/delivery`), false)
})

test('f2b-status asks a running f2b-deliver: what waits, why, and what was rejected', async () => {
  mkdirSync(`${state}/queue`, { recursive: true })
  const lines = ['ban|203.0.113.1|sshd|2000000000|600|22|tcp', 'ban|127.0.0.1|sshd|2000000000|-1']
  writeFileSync(queue, lines.map((line) => `\n${line}|.\n`).join(''))
  const deliver = server.deliver()
  const ended = once(deliver, 'close')
  try {
    let said = await status()
    const both = /deliver runs[\s\S]*Last errors\n.*stat1.*\n.*stat2/
    for (let i = 0; i < 50 && !both.test(said.stdout); i++) said = await status()
    assert.equal(said.lines[0], 'web1: 1 ban in Fail2Ban, 2 targets, f2b-deliver runs')
    assert.match(said.stdout, /^firewall\/stat1 {2}yes {11}1 {6}0 {7}1 +\d+ s {9}1 {8}- +\d+ s$/m)
    assert.doesNotMatch(said.stdout, /does not run/)
    assert.match(said.stdout, /^ {2}firewall\/stat2 {2}\d+ s ago, failing for \d+ s: .*\(69\)$/m)
    const rejected =
      /^ {2}firewall {2}[0-9a-f]{6}, \d+ s ago, ban 127.0.0.1 in sshd: overlaps .*\(65\)$/m
    assert.match(said.stdout, rejected)
    assert.equal(said.code, 77)
  } finally {
    deliver.kill('SIGTERM')
    await ended // or it would write its state while the next test runs
  }
})

test('f2b-status shows what was rejected, whatever is written in there, until it is acknowledged', async () => {
  mkdirSync(`${state}/delivery`, { recursive: true })
  const at = Math.floor(Date.now() / 1000) - 60
  const change = `${HOSTILE}\n`
  const what = { id: 'abc123', at, tried: at, code: 65, reason: HOSTILE, change, key: HOSTILE }
  const rejected = [{ ...what, expires: 1, acknowledged: false }]
  const lastError = { at: 1_700_000_000, code: 76, message: `no ${HOSTILE}\nSecond line` }
  writeFileSync(`${state}/delivery/firewall.state`, JSON.stringify({ rejected }))
  writeFileSync(`${state}/delivery/firewall@stat1.state`, JSON.stringify({ lastError, rejected }))
  const { code, stdout, lines } = await status()
  assert.equal(code, 77)
  assert.doesNotMatch(stdout.replaceAll('\n', ''), /\p{C}/u)
  assert.equal(lines.filter((line) => /^ {2}firewall.*back\\slash/.test(line)).length, 3)
  assert.match(lines[3] ?? '', /^firewall\/stat1 {2}yes {11}1 {6}0 {7}- {7}- {9}2 {8}- +\d+ d$/)
  const seen = await status('--acknowledge', 'all')
  assert.equal(seen.code, 0)
  assert.doesNotMatch(seen.stdout.replaceAll('\n', ''), /\p{C}/u)
  assert.match(seen.stdout, /^firewall: .*\nfirewall\/stat1: acknowledged abc123, /)
  assert.equal((await status()).code, 0)
  assert.match((await status('--acknowledge', 'all')).stdout, /^Nothing is rejected that was not/)
  assert.equal((await status('--acknowledge', 'abc123')).code, 65)
})

test('f2b-status --json is for programs, and gives hostile values back as they were', async () => {
  for (const name of ['delivery', 'queue']) mkdirSync(`${state}/${name}`, { recursive: true })
  const lastError = { at: 1_700_000_000, code: 76, message: HOSTILE }
  writeFileSync(
    `${state}/delivery/firewall@stat1.state`,
    JSON.stringify({ lastError, lastSuccess: 1_700_000_001, failingSince: 0 }),
  )
  const { code, stdout } = await status('--json')
  assert.equal(code, 0)
  assert.doesNotMatch(stdout.replaceAll('\n', ''), /\p{C}/u)
  const { time, ...said } = JSON.parse(stdout)
  assert.ok(Math.abs(time - Date.now() / 1000) < 60)
  const target = {
    sibling: 'firewall',
    target: 'stat1',
    reachable: true,
    error: null,
    leases: 1,
    drift: { missing: 0, extra: 0, wrong_expiry: 0 },
    queued: null,
    oldest_queued: null,
    last_success: 1_700_000_001,
    failing_since: null,
    last_error: lastError,
    rejected: [],
  }
  assert.deepEqual(said, {
    owner: 'web1',
    code: 0,
    problems: [],
    fail2ban: { answers: true, bans: 1, error: null },
    deliverer: { running: false, error: null, config: null },
    targets: [target, { ...target, target: 'stat2', last_success: null, last_error: null }],
    rejected: [],
  })
})

test('f2b-status --metrics writes what Prometheus reads, for everybody to read', async () => {
  const to = `${ssh.folder}/f2b.prom`
  writeFileSync(to, 'old', { mode: 0o600 })
  ssh.has('stat2', [])
  const { code, stdout, stderr } = await status('--metrics', to)
  assert.deepEqual([code, stdout, stderr], [0, '', ''])
  assert.equal(statSync(to).mode & 0o777, 0o644)
  const samples = parseMetrics(readFileSync(to, 'utf8'))
  const value = (name: string, labels = {}) =>
    samples.find((one) => {
      const wanted = JSON.stringify(labels) === JSON.stringify(one.labels)
      return one.name === `fail2ban_perimeter_${name}` && wanted
    })?.value
  const [stat1, stat2] = ['stat1', 'stat2'].map((target) => ({ sibling: 'firewall', target }))
  assert.equal(value('fail2ban_up'), 1)
  assert.equal(value('deliverer_up'), 0)
  assert.deepEqual([value('up', stat1), value('leases', stat1), value('leases', stat2)], [1, 1, 0])
  assert.equal(value('drift', { ...stat2, kind: 'missing' }), 1)
  assert.equal(value('drift', { ...stat1, kind: 'missing' }), 0)
  assert.equal(value('queued', stat1), undefined, 'there is no queue')
})

test('f2b-status refuses what makes no sense with 64 and 65', async () => {
  const refused = async (code: number, ...args: string[]): Promise<void> => {
    const ended = await status(...args)
    assert.deepEqual([args, ended.code, ended.stdout], [args, code, ''])
    assert.match(ended.stderr, /^status: [^\n]+\n$/)
  }
  await refused(64, '192.0.2.7', '192.0.2.8')
  await refused(64, '192.0.2.7', '--unban', '192.0.2.7')
  await refused(64, '--metrics', `${ssh.folder}/metrics.txt`)
  await refused(65, '--timeout', '0')
  await refused(75, '--metrics', `${ssh.folder}/none/such.prom`)
  for (const ip of ['999.1.1.1', 'example.com', '$(id)', 'fe80::1%eth0', '']) {
    await refused(65, ip)
    await refused(65, '--unban', ip)
  }
})

test('f2b-status asks a plain user who cannot read the settings whether he is root', async () => {
  chmodSync(plain, 0o755)
  writeFileSync(`${plain}/config.yaml`, 'owner: web1\n', { mode: 0o600 })
  const user = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath]
  const args = [resolve('dist/status.cjs'), '--config', `${plain}/config.yaml`]
  const { code, stderr } = await run('setpriv', [...user, ...args])
  const said = `Cannot read "${plain}/config.yaml": permission denied, are you root?`
  assert.deepEqual([code, stderr], [78, `status: ${said}\n`])
})

test('f2b-status --nagios is a plug-in: one line with figures, and its code', async () => {
  const ok = await status('--nagios')
  const figures = 'bans=1;;;0 targets=2;;;0 unreached=0;;0;0 drift=0;0;;0 queued=0;;;0'
  const line = `F2B OK: 1 ban in Fail2Ban, 2 targets | ${figures} oldest=0s;120;;0 rejected=0;0;;0\n`
  assert.deepEqual(ok, { code: 0, stdout: line, stderr: '', lines: line.split('\n') })

  const other = `${ssh.folder}/other.yaml`
  writeFileSync(other, readFileSync(server.config, 'utf8').replace('stat2', 'stat4'))
  ssh.refuse('stat4', 'ssh: connect to host stat4 port 22: No route | to host')
  const critical = await status('--nagios', '--config', other)
  assert.equal(critical.code, 2)
  assert.match(
    critical.stdout,
    /^F2B CRITICAL: firewall\/stat4: [^|]*route \/ to host \| .*unreached=1;/,
  )

  ssh.has('stat1', [`203.0.113.1 sshd ${END} web1`, `203.0.113.9 sshd ${END} web1`])
  const warning = await status('--nagios')
  assert.equal(warning.code, 1)
  assert.match(warning.stdout, /^F2B WARNING: firewall\/stat1: 1 extra: f2b-sync .*\| .*drift=1;/)

  await server.fail2ban.stop()
  const unknown = await status('--nagios')
  assert.equal(unknown.code, 3)
  assert.match(unknown.stdout, /^F2B UNKNOWN: Fail2Ban: Cannot ask Fail2Ban: .*\| bans=U;/)
  for (const args of [['--config', '/none.yaml'], ['192.0.2.1'], ['--timeout', 'x']]) {
    const failed = await status('--nagios', ...args)
    assert.deepEqual([failed.code, failed.stderr], [3, ''])
    assert.match(failed.stdout, /^F2B UNKNOWN: [^|\n]+\n$/)
  }
})
