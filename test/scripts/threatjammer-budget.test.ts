import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { Failure } from '../../scripts/lib/failure.ts'
import { Reporter } from '../../scripts/lib/reporter/reporter.ts'
import { makeService } from '../../scripts/lib/reporter/threatjammer.ts'
import { changeOne } from '../../scripts/lib/target.ts'
import { makeCall } from '../lib/call.ts'
import { makeClock, makeLease } from '../lib/reporters.ts'
import { publicAddress } from '../simulators/service.ts'
import { startThreatJammer, type ThreatJammerSimulator } from '../simulators/threatjammer.ts'

// Simulated time: the service and the reporter share a clock that moves only when it is turned.

const KEY = 'tja_0123456789abcdefghijklmnopqrstuvwxyz'
const DAY = 86400

let clock: ReturnType<typeof makeClock>
let service: ThreatJammerSimulator
let directory: string
let reporter: Reporter
/** Processes that were started to report later. */
let left: number

beforeEach(async () => {
  clock = makeClock()
  service = await startThreatJammer(KEY, clock.now)
  directory = mkdtempSync(join(tmpdir(), 'f2b-budget-'))
  reporter = anotherProcess()
  left = 0
})

afterEach(async () => {
  rmSync(directory, { recursive: true, force: true })
  await service.close()
})

/** A reporter with nothing in memory, as every process begins. */
function anotherProcess(max_ttl = 315360000): Reporter {
  const { reportUrl: report_url, apiUrl: api_url } = service
  const settings = { report_url, api_url, key: KEY, key_file: undefined, type: 'ABUSE' }
  return new Reporter(
    makeService({ ...settings, tags: ['FAIL2BAN'], ttl: DAY, max_ttl }),
    directory,
    { clock, later: () => left++ },
  )
}

function ban(n: number, seconds = DAY, jail = 'sshd'): Promise<void> {
  const expires = seconds < 0 ? 0 : reporter.seconds() + seconds
  return changeOne(reporter, makeCall(), {
    verb: 'ban',
    lease: makeLease(publicAddress(n), jail, expires),
  })
}

/** Leases with an end that does not move with the clock. */
function sync(...numbers: number[]) {
  const leases = numbers.map((n) => makeLease(publicAddress(n), 'sshd', 1_800_000_000 + DAY))
  return reporter.sync(makeCall(), leases)
}

/** The leases stay what they are: what a sync finds when nothing changed. */
async function resync(): Promise<void> {
  await reporter.sync(makeCall({ jail: 'nobody' }), [])
}

function statuses(): number[] {
  return service.seen.map(({ status }) => status)
}

function sizes(): number[] {
  return service.seen.map(({ body }) => JSON.parse(body).addresses.length)
}

// A ban takes locks, which are processes: bursts are as long as real ones, with fewer bans in them.

test('bans of a burst, one process each, are two calls: the first at once, the rest after it', async () => {
  for (let n = 1; n <= 100; n++) {
    reporter = anotherProcess()
    await ban(n)
    clock.turn(1400)
  }
  clock.turn(10_000)
  await resync()
  assert.deepEqual(statuses(), [202, 202])
  assert.deepEqual(sizes(), [1, 99])
  assert.equal(service.entries().size, 100)
})

test('a ban within ten seconds of another is reported by a process that it leaves behind', async () => {
  await ban(1)
  assert.equal(left, 0)
  for (const n of [2, 3, 4]) {
    clock.turn(1000)
    reporter = anotherProcess()
    await ban(n)
  }
  assert.deepEqual([left, service.seen.length], [1, 1])
  await anotherProcess().report(makeCall())
  assert.deepEqual(sizes(), [1, 3])
  await anotherProcess().report(makeCall())
  assert.equal(service.seen.length, 2, 'nothing is left')
})

test('a ban that comes while another is being reported is not forgotten', async () => {
  const lease = makeLease(publicAddress(2), 'sshd', reporter.seconds() + DAY)
  await Promise.all([ban(1), changeOne(anotherProcess(), makeCall(), { verb: 'ban', lease })])
  await anotherProcess().report(makeCall())
  assert.equal(service.entries().size, 2)
})

test('what a dead service did not take is reported by the process that was left behind', async () => {
  service.faults.status = 503
  await assert.rejects(ban(1), /out of order/)
  assert.equal(left, 1)
  const wait = clock.wait
  clock.wait = async (ms, signal) => {
    if (service.seen.length === 3) delete service.faults.status
    await wait(ms, signal)
  }
  const began = clock.now()
  await anotherProcess().report(makeCall())
  assert.deepEqual(statuses(), [503, 503, 503, 202])
  assert.equal(clock.now() - began, 60_000 + 120_000 + 240_000, 'after 1, 2 and 4 minutes')
})

test('1,000 bans in a sync are one call', async () => {
  await sync(...Array.from({ length: 1000 }, (_, i) => i + 1))
  assert.deepEqual(sizes(), [1000])
  assert.deepEqual(statuses(), [202])
})

test('bans without a pause for ten minutes: no 429, nothing lost, few calls', async () => {
  for (let n = 1; n <= 100; n++) {
    await ban(n)
    clock.turn(6000)
  }
  clock.turn(10_000)
  await ban(101)
  assert.equal(service.entries().size, 101)
  assert.ok(statuses().every((status) => status === 202))
  assert.ok(service.seen.length <= 5, `${service.seen.length} calls`)
})

test('bans without a pause for ten minutes with a sync every minute lose nothing either', async () => {
  for (let n = 1; n <= 100; n++) {
    await ban(n)
    clock.turn(6000)
    if (n % 10 === 0) await resync()
  }
  assert.equal(service.entries().size, 100)
  assert.deepEqual(new Set(statuses()), new Set([202]))
  assert.ok(service.seen.length <= 11, `${service.seen.length} calls`)
})

test('bans and unbans that come alone are told at once, and never more than six a minute', async () => {
  for (let n = 1; n <= 15; n++) {
    await ban(n)
    const { address, jail } = makeLease(publicAddress(n), 'sshd', 0)
    await changeOne(reporter, makeCall(), { verb: 'unban', address, jail })
    clock.turn(10_000)
  }
  clock.turn(60_000)
  await resync()
  assert.ok(service.seen.length >= 15)
  assert.deepEqual(new Set(statuses()), new Set([202]))
  assert.equal(service.entries().size, 0)
})

test('20 processes at once make two calls at most', async () => {
  const processes = Array.from({ length: 20 }, (_, i) => i + 1)
  await Promise.all(
    processes.map((n) => {
      const lease = makeLease(publicAddress(n), 'sshd', reporter.seconds() + DAY)
      return changeOne(anotherProcess(), makeCall(), { verb: 'ban', lease })
    }),
  )
  await resync()
  assert.ok(service.seen.length <= 2, `${service.seen.length} calls`)
  assert.equal(service.entries().size, 20)
})

test('a sync waits for its turn when the calls of the minute are used up', async () => {
  for (let n = 1; n <= 6; n++) await sync(...Array.from({ length: n }, (_, i) => i + 1))
  assert.equal(service.seen.length, 6)
  const before = clock.now()
  await sync(1, 2, 3, 4, 5, 6, 7)
  assert.ok(clock.now() - before > 50_000)
  assert.deepEqual(new Set(statuses()), new Set([202]))
})

test('what ends in the middle of a batch is withdrawn by the next sync, what lives on stays', async () => {
  const now = reporter.seconds()
  const short = makeLease(publicAddress(1), 'sshd', now + 600)
  const long = makeLease(publicAddress(2), 'sshd', now + 6000)
  await reporter.sync(makeCall(), [short, long])
  assert.equal(JSON.parse(service.seen[0]?.body ?? '').ttl, 6000)
  clock.turn(601_000)
  assert.equal(service.entries().size, 2)
  await reporter.sync(makeCall(), [long])
  assert.deepEqual([...service.entries().keys()], [publicAddress(2)])
  assert.equal(service.seen.length, 2)
})

test('a longer ban of another jail extends the report, a shorter one makes no call', async () => {
  await ban(1, 600)
  clock.turn(20_000)
  await ban(1, 300, 'nginx')
  assert.equal(service.seen.length, 1)
  clock.turn(20_000)
  await ban(1, 6000, 'recidive')
  assert.equal(service.seen.length, 2)
  assert.deepEqual(JSON.parse(service.seen[1]?.body ?? '').ttl, 6000)
})

test('a second more or less is not another ban', async () => {
  await ban(1, 600)
  clock.turn(20_000)
  await ban(1, 581)
  await reporter.sync(makeCall(), [makeLease(publicAddress(1), 'sshd', reporter.seconds() + 582)])
  assert.equal(service.seen.length, 1)
})

test('a ban for ever is renewed when half of the longest time is over', async () => {
  reporter = anotherProcess(1000)
  await ban(1, -1)
  clock.turn(400_000)
  await resync()
  assert.equal(service.seen.length, 1)
  clock.turn(200_000)
  await resync()
  assert.equal(service.seen.length, 2)
  clock.turn(500_000)
  assert.equal(service.entries().size, 1)
})

test('a list that is too long is split, and the shorter length is remembered', async () => {
  service.faults.most = 300
  await sync(...Array.from({ length: 1000 }, (_, i) => i + 1))
  assert.deepEqual(sizes().slice(0, 3), [1000, 500, 250])
  assert.equal(service.entries().size, 1000)
  const before = service.seen.length
  clock.turn(60_000)
  await sync(...Array.from({ length: 1200 }, (_, i) => i + 1))
  assert.deepEqual(sizes().slice(before), [200])
  assert.ok(!statuses().includes(429))
})

test('a list that is too long with one address is 76', async () => {
  service.faults.most = 0
  await assert.rejects(sync(1), (error: Failure) => {
    assert.equal(error.code, 76)
    assert.match(error.message, /too long even with one address \(413\)/)
    return true
  })
})

test('an address that the service does not like is set aside, and costs the others nothing', async () => {
  service.faults.disliked = [publicAddress(77)]
  await sync(...Array.from({ length: 100 }, (_, i) => i + 1))
  assert.equal(service.entries().size, 99)
  assert.ok(!statuses().includes(429))
  const before = service.seen.length
  clock.turn(60_000)
  await resync()
  assert.equal(service.seen.length, before)
})

test('a dead service is tried after 1, 2, 4 ... minutes, an hour at most, and nothing is lost', async () => {
  service.faults.status = 503
  await assert.rejects(ban(1), /out of order \(503\); it is kept/)
  const tried: number[] = []
  for (let minute = 1; minute <= 185; minute += 2) {
    clock.turn(minute === 1 ? 60_000 : 120_000)
    const before = service.seen.length
    await ban(1 + minute).catch(() => {})
    if (service.seen.length > before) tried.push(minute)
  }
  assert.deepEqual(tried, [1, 3, 7, 15, 31, 63, 123, 183])
  delete service.faults.status
  clock.turn(3_600_000)
  await resync()
  assert.equal(service.entries().size, 94)
})

test('a sync says why it does not call a service that is out of order', async () => {
  service.faults.status = 401
  await assert.rejects(ban(1), (error: Failure) => error.code === 77)
  const why = /key was refused \(401\); the next try is in 60 s/
  await assert.rejects(sync(1), (error: Failure) => error.code === 77 && why.test(error.message))
  assert.equal(service.seen.length, 1)
})

test('Retry-After is waited for if it fits, and kept to by every process if it does not', async () => {
  service.faults.status = 429
  service.faults.retryAfter = '4'
  await assert.rejects(ban(1), (error: Failure) => error.code === 75 && /429/.test(error.message))
  assert.equal(service.seen.length, 2, 'waited 4 s once, and then had no patience left')
  service.faults.retryAfter = '300'
  clock.turn(60_000)
  await assert.rejects(ban(2), (error: Failure) => error.code === 75)
  const before = service.seen.length
  delete service.faults.status
  for (let n = 3; n < 10; n++) {
    clock.turn(30_000)
    reporter = anotherProcess()
    await ban(n)
  }
  assert.equal(service.seen.length, before)
  clock.turn(100_000)
  await ban(10)
  assert.equal(service.entries().size, 10)
})

test('a clock that was turned back does not stop the reports', async () => {
  await ban(1)
  clock.turn(-86_400_000)
  await ban(2)
  assert.deepEqual(statuses(), [202, 202])
})

test('a clock that was turned back holds no report for longer than was asked', async () => {
  Object.assign(service.faults, { status: 429, retryAfter: '300' })
  await assert.rejects(ban(1), /429/)
  clock.turn(-3_600_000)
  delete service.faults.status
  clock.turn(300_000)
  await ban(2)
  assert.deepEqual(statuses(), [429, 202])
})

test('a clock that was turned back makes no pause after a failure longer', async () => {
  service.faults.status = 503
  await assert.rejects(ban(1), /503/)
  clock.turn(-1_800_000)
  delete service.faults.status
  clock.turn(60_000)
  await ban(2)
  assert.deepEqual(statuses(), [503, 202])
})

test('a ledger or pace file that was damaged by hand does not stop the reports', async () => {
  writeFileSync(join(directory, 'threatjammer.pace'), '{"buckets":{"report":[]}')
  writeFileSync(join(directory, 'threatjammer.wanted'), 'nonsense\n')
  await ban(1)
  assert.deepEqual(statuses(), [202])
})

test('what was due when a process died is reported by the next', async () => {
  service.faults.hang = true
  const abort = new AbortController()
  const lease = makeLease(publicAddress(1), 'sshd', reporter.seconds() + DAY)
  const call = makeCall({ signal: abort.signal })
  const dying = changeOne(reporter, call, { verb: 'ban', lease })
  setTimeout(() => abort.abort(), 50)
  await assert.rejects(dying, Failure)
  service.faults.hang = false
  clock.turn(60_000)
  reporter = anotherProcess()
  await resync()
  assert.equal(service.entries().size, 1)
})
