import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { makeService } from '../../scripts/lib/reporter/abuseipdb.ts'
import { Reporter } from '../../scripts/lib/reporter/reporter.ts'
import { changeOne } from '../../scripts/lib/target.ts'
import { makeCall } from '../lib/call.ts'
import { makeClock, makeLease } from '../lib/reporters.ts'
import { type AbuseIpDbSimulator, startAbuseIpDb } from '../simulators/abuseipdb.ts'
import { publicAddress } from '../simulators/service.ts'

const KEY = '0123456789abcdef0123456789abcdef0123456789abcdef'
const HOUR = 3_600_000

let clock: ReturnType<typeof makeClock>
let service: AbuseIpDbSimulator
let directory: string
let reporter: Reporter

beforeEach(async () => {
  clock = makeClock()
  service = await startAbuseIpDb(KEY, clock.now)
  directory = mkdtempSync(join(tmpdir(), 'f2b-budget-'))
  const settings = {
    url: service.url,
    key: KEY,
    key_file: undefined,
    categories: [18],
    jail_categories: {},
    comment: 'Banned by Fail2Ban',
    reports_per_day: 1000,
    bulk_reports_per_day: 5,
  }
  reporter = new Reporter(makeService(settings), directory, { clock })
})

afterEach(async () => {
  rmSync(directory, { recursive: true, force: true })
  await service.close()
})

function ban(n: number, seconds = 600): Promise<void> {
  const lease = makeLease(publicAddress(n), 'sshd', reporter.seconds() + seconds)
  return changeOne(reporter, makeCall(), { verb: 'ban', lease })
}

async function resync(): Promise<void> {
  await reporter.sync(makeCall({ jail: 'nobody' }), [])
}

function reported(): number {
  return new Set(service.reports.map(({ ip }) => ip)).size
}

function refusals(): number {
  return service.seen.filter(({ status }) => status !== 200).length
}

test('bans of a burst are two calls: one report, and one bulk report after it', async () => {
  for (let n = 1; n <= 100; n++) {
    await ban(n)
    clock.turn(1400)
  }
  clock.turn(10_000)
  await resync()
  assert.deepEqual(
    service.seen.map(({ path }) => path),
    ['/api/v2/report', '/api/v2/bulk-report'],
  )
  assert.equal(reported(), 100)
})

test('bans without a pause for ten minutes: no 429, nothing lost', async () => {
  for (let n = 1; n <= 100; n++) {
    await ban(n)
    clock.turn(6000)
  }
  clock.turn(10_000)
  await resync()
  assert.equal(reported(), 100)
  assert.equal(refusals(), 0)
})

test('ten bursts in a day, of bans that are over long before: five bulk reports, nothing lost', async () => {
  for (let burst = 0; burst < 10; burst++) {
    for (let i = 0; i < 20; i++) await ban(burst * 20 + i + 1)
    clock.turn(10_000)
    await resync().catch((error: Error) => assert.match(error.message, /used up|next try/))
    clock.turn(HOUR)
  }
  for (let minute = 0; minute < 120 && reported() < 200; minute++) {
    clock.turn(60_000)
    await resync().catch((error: Error) => assert.match(error.message, /used up|next try/))
  }
  assert.equal(reported(), 200)
  assert.equal(service.reports.length, 200)
  assert.equal(service.seen.filter(({ path }) => path.endsWith('/bulk-report')).length, 5)
  assert.equal(refusals(), 0)
})

test('never more than six calls a minute, and no address twice in 15 minutes', async () => {
  for (let n = 0; n < 120; n++) {
    await ban((n % 30) + 1, 60)
    clock.turn(10_000)
  }
  assert.equal(refusals(), 0)
  for (const { at } of service.seen) {
    const minute = service.seen.filter((other) => other.at >= at && other.at < at + 60_000)
    assert.ok(minute.length <= 6)
  }
  const again = service.reports.filter(({ ip, at }) =>
    service.reports.some((other) => other.ip === ip && other.at > at && other.at - at < 900_000),
  )
  assert.deepEqual(again, [])
})

test('an address that comes back after its ban and the 15 minutes is reported again', async () => {
  await ban(1, 600)
  clock.turn(800_000)
  await ban(1, 600)
  assert.equal(service.reports.length, 1)
  clock.turn(HOUR)
  await ban(1, 600)
  assert.equal(service.reports.length, 2)
})

test('a bulk report that is too long is split', async () => {
  service.faults.most = 300
  const leases = Array.from({ length: 1000 }, (_, i) =>
    makeLease(publicAddress(i + 1), 'sshd', reporter.seconds() + 86_400),
  )
  for (let day = 0; day < 3 && reported() < 1000; day++) {
    await reporter.sync(makeCall(), leases).catch(() => {})
    clock.turn(8 * HOUR)
  }
  assert.ok(reported() >= 500, `${reported()} reported`)
  assert.equal(service.seen.filter(({ status }) => status === 429).length, 0)
})
