import assert from 'node:assert/strict'
import { test } from 'node:test'
import { within } from '../../../scripts/lib/delivery/probe.ts'
import type { Rejection } from '../../../scripts/lib/delivery/rejected.ts'
import { FRESH } from '../../../scripts/lib/delivery/state.ts'
import type { About } from '../../../scripts/lib/status/address.ts'
import { jsonOf } from '../../../scripts/lib/status/json.ts'
import { metricsOf } from '../../../scripts/lib/status/metrics.ts'
import { nagiosOf } from '../../../scripts/lib/status/nagios.ts'
import { aboutReport, reportOf } from '../../../scripts/lib/status/report.ts'
import {
  codeOfSurvey,
  problemsIn,
  type Survey,
  type TargetSurvey,
} from '../../../scripts/lib/status/survey.ts'
import {
  ending,
  entry,
  fit,
  paperOf,
  plain,
  span,
  tableOf,
} from '../../../scripts/lib/status/text.ts'
import { parseMetrics } from '../../lib/prometheus.ts'

const HOSTILE = 'a "b" \\ \u001b[31m\u009b1m\u202e\u2028\n{c="d"}'
const PAPER = paperOf({ isTTY: false } as NodeJS.WriteStream)
const NARROW = { ...PAPER, width: 80 }

function target(changes: Partial<TargetSurvey> = {}): TargetSurvey {
  return {
    sibling: 'firewall',
    target: 'edge1',
    reachable: true,
    trouble: undefined,
    complaint: undefined,
    leases: 3,
    drift: { missing: 0, extra: 0, wrong_expiry: 0, lines: [] },
    queue: { queued: 0, oldest: 0 },
    state: { ...FRESH, rejected: [] },
    ...changes,
  }
}

function survey(...targets: TargetSurvey[]): Survey {
  const deliverer = { running: true, trouble: undefined, config: undefined }
  return {
    at: 1_800_000_000,
    owner: 'web1',
    bans: 3,
    fail2ban: undefined,
    jails: [],
    deliverer,
    rejected: [],
    targets,
  }
}

test('span() and ending() say times as people do', () => {
  const spans = [-5, 0, 59.9, 60, 3599, 3600, 86_399, 86_400, 40 * 86_400]
  assert.deepEqual(spans.map(span), [
    '0 s',
    '0 s',
    '59 s',
    '1 min',
    '59 min',
    '1 h',
    '23 h',
    '1 d',
    '40 d',
  ])
  assert.equal(ending(0, 1_800_000_000), 'never')
  assert.match(ending(1_800_000_420, 1_800_000_000), /^2027-01-1\d \d\d:\d\d:\d\d \(in 7 min\)$/)
  assert.match(ending(1_799_999_999, 1_800_000_000), /\(over\)$/)
})

test('plain() leaves nothing that a terminal obeys', () => {
  assert.equal(plain(HOSTILE), 'a "b" \\  [31m 1m {c="d"}')
})

test('jsonOf() escapes what a terminal obeys, and loses nothing', () => {
  const text = jsonOf({ hostile: HOSTILE, plane: '\u{e0041}' })
  assert.doesNotMatch(text.replaceAll('\n', ''), /[\p{C}\p{Zl}\p{Zp}]/u)
  assert.deepEqual(JSON.parse(text), { hostile: HOSTILE, plane: '\u{e0041}' })
})

test('metricsOf() is read by Prometheus whatever targets are called, and if two share a name', () => {
  const odd = target({ target: HOSTILE, state: { ...target().state, lastSuccess: 1_700_000_000 } })
  const samples = parseMetrics(metricsOf(survey(target(), target(), odd)))
  const leases = samples.filter(({ name }) => name === 'fail2ban_perimeter_leases')
  assert.deepEqual(
    leases.map(({ labels }) => labels.target),
    ['edge1', plain(HOSTILE)],
  )
  const unknown = target({ reachable: undefined, leases: undefined, drift: undefined })
  const names = parseMetrics(metricsOf(survey(unknown))).map(({ name }) => name)
  for (const name of ['up', 'leases', 'drift']) {
    assert.ok(!names.includes(`fail2ban_perimeter_${name}`))
  }
})

test('parseMetrics() refuses what Prometheus would', () => {
  const head = '# HELP a b\n# TYPE a gauge\n'
  const bad = ['a 1', 'b 1\n', 'a{x="1} 1\n', 'a{x="1"y="2"} 1\n', 'a{x="\n"} 1\n', 'a 1\na 1\n']
  for (const text of bad) assert.throws(() => parseMetrics(head + text), text)
  assert.throws(() => parseMetrics('a 1\n'))
  assert.deepEqual(parseMetrics(`${head}a{x="\\\\\\"\\n"} 1\n`)[0]?.labels, { x: '\\"\n' })
})

const AT = 1_800_000_000

/** A ban that a target has refused. */
function rejection(changes: Partial<Rejection> = {}): Rejection {
  const key = 'ban 203.0.113.7 sshd'
  const what = { id: 'abc123', code: 65, reason: 'x', change: 'ban 203.0.113.7 in sshd', key }
  return { ...what, at: AT - 60, tried: AT - 60, expires: 1, acknowledged: false, ...changes }
}

test('codeOfSurvey() is 0 if all is well, else the worst of the problems, which all have a code', () => {
  const drift = { missing: 0, extra: 1, wrong_expiry: 0, lines: [] }
  const rejecting = (changes: Partial<Rejection>): Survey =>
    survey(target({ state: { ...target().state, rejected: [rejection(changes)] } }))
  const cases: [number, number, Survey][] = [
    [0, 0, survey(target())],
    [0, 0, survey(target({ queue: { queued: 9, oldest: AT - 119 } }))],
    [75, 1, survey(target({ queue: { queued: 9, oldest: AT - 121 } }))],
    [75, 1, survey(target({ drift }))],
    [69, 1, survey(target({ trouble: { code: 69, message: '' } }))],
    [77, 3, survey(target({ drift }), target({ drift, trouble: { code: 77, message: '' } }))],
    [77, 1, rejecting({})],
    [0, 0, rejecting({ acknowledged: true })],
    [0, 0, rejecting({ at: AT - 90_000 })],
    [77, 1, rejecting({ at: AT - 90_000, expires: 0 })],
    [77, 1, rejecting({ at: AT - 90_000, expires: AT + 1 })],
    [77, 1, { ...survey(target()), rejected: [{ sibling: 's', rejection: rejection() }] }],
    [75, 1, { ...survey(), fail2ban: { code: 75, message: '' } }],
    [
      75,
      1,
      {
        ...survey(),
        deliverer: { running: true, config: undefined, trouble: { code: 75, message: 'odd' } },
      },
    ],
    [
      78,
      1,
      {
        ...survey(),
        deliverer: {
          running: true,
          trouble: undefined,
          config: { path: 'x', since: 1, error: 'y' },
        },
      },
    ],
  ]
  for (const [code, count, one] of cases) {
    assert.deepEqual(
      [codeOfSurvey(one), problemsIn(one).length],
      [code, count],
      JSON.stringify(one),
    )
    for (const problem of problemsIn(one)) assert.ok(problem.code > 0)
  }
})

test('nagiosOf() tells what is critical from what is not, and from what nobody knows', () => {
  const drift = { missing: 0, extra: 1, wrong_expiry: 1, lines: [] }
  const trouble = { code: 75, message: 'a | b\nc' }
  const late = target({ queue: { queued: 9, oldest: AT - 121 } })
  const stopped = { running: false, trouble: undefined, config: undefined }
  const cases: [number, RegExp, Survey][] = [
    [0, /^F2B OK: 3 bans in Fail2Ban, 1 target \| bans=3;.* drift=0;/, survey(target())],
    [
      0,
      /^F2B OK: .* queued=9;;;0 oldest=119s;120;;0 /,
      survey(target({ queue: { queued: 9, oldest: AT - 119 } })),
    ],
    [1, /^F2B WARNING: firewall\/edge1: 9 changes wait for 2 min \|/, survey(late)],
    [1, /^F2B WARNING: .* drift=2;/, survey(target({ drift }))],
    [2, /^F2B CRITICAL: .*1 missing, 1 extra/, survey(target({ drift: { ...drift, missing: 1 } }))],
    [
      2,
      /: a \/ b c \(and 1 more problem\) \| .* unreached=1;/,
      survey(late, target({ trouble, reachable: false })),
    ],
    [2, /^F2B CRITICAL: f2b-deliver: does not run, and 9/, { ...survey(late), deliverer: stopped }],
    [2, /^F2B CRITICAL: f2b-deliver: /, { ...survey(), deliverer: { ...stopped, trouble } }],
    [
      3,
      /^F2B UNKNOWN: f2b-deliver: /,
      { ...survey(), deliverer: { ...stopped, running: true, trouble } },
    ],
    [
      3,
      /^F2B UNKNOWN: Fail2Ban: .* bans=U;.* drift=U;/,
      { ...survey(), bans: undefined, fail2ban: trouble },
    ],
    [3, /^F2B UNKNOWN: .*and 1 more/, { ...survey(late), fail2ban: trouble }],
    [1, / rejected=1;/, { ...survey(), rejected: [{ sibling: 's', rejection: rejection() }] }],
  ]
  for (const [code, line, one] of cases) {
    const told = nagiosOf(one)
    assert.match(told.line, line)
    assert.match(told.line, /^[^|\n]+ \| [^|\n]+\n$/)
    assert.equal(told.code, code, told.line)
  }
})

test('reportOf() keeps to 80 columns, with long names and long words below the table', () => {
  const message = `${'word '.repeat(60)}end`
  const lastError = { at: 1_700_000_000, code: 75, message }
  const long = target({
    target: `edge-${'x'.repeat(80)}`,
    leases: 123_456,
    trouble: { code: 69, message },
    queue: { queued: 99_999, oldest: 1_700_000_000 },
    state: { ...target().state, lastError, failingSince: 1_700_000_000 },
  })
  const lines = reportOf(survey(target(), long), NARROW).split('\n')
  for (const line of lines) assert.ok(line.length <= 80, line)
  assert.equal(lines.join(' ').replace(/\s+/g, ' ').split(message).length, 3, 'whole, twice')
})

test('reportOf() shows the whole name of a host on 80 columns, in ASCII, and each figure below its title', () => {
  const name = `edge-${'x'.repeat(23)}.example.com`
  assert.equal(name.length, 40)
  const [, , head = '', first, row = '', ...more] = reportOf(
    survey(target({ target: name }), target()),
    NARROW,
  ).split('\n')
  assert.deepEqual([first, more[0]], [`firewall/${name}`, 'firewall/edge1'])
  assert.equal(row.indexOf('yes'), head.indexOf('REACHED'))
  assert.equal(row.indexOf('3'), head.indexOf('LEASES') + 'LEASES'.length - 1)
  for (const line of [head, row, ...more]) assert.match(line, /^[ -~]{0,80}$/)
  const place = { sibling: 'firewall', target: name, waiting: [], others: [], known: [] }
  const lease = { address: '192.0.2.7', jail: 'apache-overflows', expires: AT + 600, owner: 'web1' }
  const about: About = {
    address: '192.0.2.7',
    at: AT,
    troubles: [],
    bans: [
      {
        jail: 'apache-overflows',
        address: '192.0.2.7',
        began: AT - 60,
        expires: AT + 600,
        live: true,
        times: 2,
        matches: [],
      },
    ],
    places: [{ ...place, leases: [lease] }],
  }
  for (const line of aboutReport(about, NARROW).split('\n')) assert.match(line, /^[ -~]{0,80}$/)
})

test('tableOf() lines up, and colours do not count', () => {
  const paper = { width: 80, style: (_: unknown, text: string) => `\u001b[1m${text}\u001b[22m` }
  const columns = [{ title: 'A' }, { title: 'B', right: true }]
  const lines = tableOf(
    columns,
    [
      ['\u001b[31mlong\u001b[39m', '1'],
      ['x', '22'],
    ],
    paper,
  )
  assert.deepEqual(lines.slice(1), ['\u001b[31mlong\u001b[39m   1', 'x     22'])
  assert.equal(fit('abcdefgh', 5), 'ab~gh')
  assert.deepEqual(entry('n', 3, 'a b', { ...PAPER, width: 40 }), ['n  a b'])
})

test('paperOf() has colours and a width on a terminal only', () => {
  const terminal = { isTTY: true, columns: 100, hasColors: () => true } as unknown
  const paper = paperOf(terminal as NodeJS.WriteStream)
  assert.deepEqual([paper.width, paper.style('red', 'x')], [100, '\u001b[31mx\u001b[39m'])
  assert.deepEqual([PAPER.width, PAPER.style('red', 'x')], [Infinity, 'x'])
})

test('within() gives up in time, and passes on what fails earlier', async () => {
  const never = new Promise(() => {})
  await assert.rejects(within(0.05, 'too late', never), { code: 75, message: 'too late' })
  await assert.rejects(within(5, 'too late', Promise.reject(new Error('early'))), /early/)
  assert.equal(await within(5, 'too late', Promise.resolve(1)), 1)
})
