import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import * as v from 'valibot'
import { EXIT, type ExitCode, Failure, ioFailure } from '../failure.ts'

/** Time, in milliseconds; tests bring their own. */
export interface Clock {
  now(): number
  /** @throws the signal's reason if it fires before the time is over */
  wait(ms: number, signal: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  now: Date.now,
  wait: (ms, signal) => sleep(ms, undefined, { signal }),
}

/** What a service counts together: so many calls in any so many seconds. */
export interface Bucket {
  name: string
  limits: { calls: number; seconds: number }[]
}

/** A burst is over after so long without a ban: six such gaps make the minute of six calls. */
const GATHER = 10_000

/** Even a burst that does not end is reported after so long: half of Fail2Ban's usual ban. */
const LONGEST_GATHER = 300_000

export const FIRST_RETRY = 60_000
const LONGEST_RETRY = 3_600_000

/** By so much a process may be late that was to report what is kept, before another is started. */
const LATE = 30_000

const moment = v.pipe(v.number(), v.minValue(0))
const track = v.object({ changed: moment, dueSince: moment })
const shape = v.object({
  /** When calls were made, and since when and before when none may be made, by bucket. */
  buckets: v.record(
    v.string(),
    v.object({ calls: v.array(moment), since: v.optional(moment, 0), until: moment }),
  ),
  /** Addresses per call by route: what a 413 taught, and how far a bad one is narrowed down. */
  sizes: v.record(v.string(), moment),
  probes: v.record(v.string(), moment),
  /** When something to tell came last, and since when something of it waits; 0 = nothing does. */
  tracks: v.object({ report: track, withdrawal: track }),
  /** When the process that waits to report what is kept looks again; long past if none does. */
  awake: v.optional(moment, 0),
  /** Failures in a row, before when not to try again, and what went wrong. */
  failures: moment,
  until: moment,
  code: v.number(),
  reason: v.string(),
})

/**
 * What the processes of one machine must know of each other to share a service's budget. Read and
 * written under a lock. Times are epoch milliseconds.
 */
export type Pace = v.InferOutput<typeof shape>

/** What a service is told: that an address is banned, or that it no longer is. */
export type Kind = keyof Pace['tracks']

/** Reads it; a file that is missing or damaged costs at most a 429, so it is no error. */
export function readPace(path: string): Pace {
  const fresh: Pace = {
    buckets: {},
    sizes: {},
    probes: {},
    tracks: {
      report: { changed: 0, dueSince: 0 },
      withdrawal: { changed: 0, dueSince: 0 },
    },
    awake: 0,
    failures: 0,
    until: 0,
    code: 0,
    reason: '',
  }
  try {
    const read = v.safeParse(shape, JSON.parse(readFileSync(path, 'utf8')))
    return read.success ? read.output : fresh
  } catch {
    return fresh
  }
}

/**
 * Replaces it, without waiting for the disk: what a power cut takes is stale by then.
 *
 * @throws Failure 75
 */
export function writePace(path: string, pace: Pace): void {
  try {
    writeFileSync(`${path}.new`, `${JSON.stringify(pace)}\n`, { mode: 0o600 })
    renameSync(`${path}.new`, path)
  } catch (error) {
    throw ioFailure(`write "${path}"`, error)
  }
}

/** Milliseconds until the bucket allows one more call. */
export function waitFor(pace: Pace, bucket: Bucket, now: number): number {
  const { calls, since, until } = spent(pace, bucket)
  const waits = bucket.limits.map((limit) => {
    const window = limit.seconds * 1000
    // A call in the future was made before somebody turned the clock back.
    const recent = calls.filter((at) => at > now - window && at <= now)
    if (recent.length < limit.calls) return 0
    const oldest = recent.at(-limit.calls)
    return oldest === undefined ? window : oldest + window - now
  })
  // Asked for in the future: the clock was turned back, and how much of it is over nobody knows.
  return Math.max(0, since > now ? 0 : until - now, ...waits)
}

/** Notes a call that is about to be made. */
export function spend(pace: Pace, bucket: Bucket, now: number): void {
  const longest = Math.max(...bucket.limits.map(({ seconds }) => seconds)) * 1000
  const before = spent(pace, bucket)
  const kept = before.calls.filter((at) => at > now - longest && at <= now)
  pace.buckets[bucket.name] = { ...before, calls: [...kept, now] }
}

/** Dates the last call at its end: the service may have counted it that late. */
export function returned(pace: Pace, bucket: Bucket, now: number): void {
  const { calls } = spent(pace, bucket)
  if (calls.length > 0) calls[calls.length - 1] = now
}

/** The service asked for a pause of so many seconds. */
export function pause(pace: Pace, bucket: Bucket, now: number, seconds: number): void {
  const until = now + seconds * 1000
  pace.buckets[bucket.name] = { ...spent(pace, bucket), since: now, until }
}

/**
 * Notes that there is something to tell, and says whether to do so now: at once if nothing of its
 * kind came just before, else when the burst is over, so that a thousand bans are not a thousand
 * calls.
 */
export function isTime(pace: Pace, kind: Kind, now: number): boolean {
  const track = pace.tracks[kind]
  const quiet = now - track.changed >= GATHER || track.changed > now
  const overdue = track.dueSince > 0 && now - track.dueSince >= LONGEST_GATHER
  track.changed = now
  track.dueSince ||= now
  return quiet || overdue
}

/**
 * Milliseconds until the bursts are over, and the breaker is closed. Notes that the caller waits for
 * that, and will then look again.
 *
 * @param least what to wait at least
 */
export function waitForQuiet(pace: Pace, now: number, least: number): number {
  const bursts = Object.values(pace.tracks).map(({ changed, dueSince }) => {
    if (changed > now || dueSince > now) return GATHER
    return Math.min(changed + GATHER, (dueSince || now) + LONGEST_GATHER) - now
  })
  const wait = Math.max(least, isOpen(pace, now) ? pace.until - now : 0, ...bursts)
  pace.awake = wait > 0 ? now + wait : 0
  return wait
}

/** True if nobody waits to report what is kept; the caller then sees to it that a process does. */
export function isForgotten(pace: Pace, now: number): boolean {
  const waits = pace.awake + LATE > now && pace.awake <= now + LONGEST_RETRY
  if (!waits) pace.awake = now + GATHER
  return !waits
}

/** The breaker: after a failure nobody calls for a minute, then two, then four, up to an hour. */
export function trip(pace: Pace, now: number, failure: Failure): void {
  pace.failures++
  pace.until = now + retryTime(pace)
  pace.code = failure.code
  pace.reason = failure.message
}

/** The service works. */
export function reset(pace: Pace): void {
  Object.assign(pace, { failures: 0, until: 0, code: 0, reason: '' })
}

/** Why nobody may call now; undefined if the breaker is closed. */
export function tripped(pace: Pace, now: number): Failure | undefined {
  if (!isOpen(pace, now)) return undefined
  const code = Object.values(EXIT).find((known) => known === pace.code) ?? EXIT.temporary
  const seconds = Math.ceil((pace.until - now) / 1000)
  return new Failure(code as ExitCode, `${pace.reason}; the next try is in ${seconds} s`)
}

/** The breaker is open. Further ahead than it can be, its time says that the clock was turned back. */
function isOpen(pace: Pace, now: number): boolean {
  return pace.until > now && pace.until <= now + retryTime(pace)
}

function retryTime({ failures }: Pace): number {
  return Math.min(FIRST_RETRY * 2 ** (failures - 1), LONGEST_RETRY)
}

function spent(pace: Pace, bucket: Bucket): Pace['buckets'][string] {
  return pace.buckets[bucket.name] ?? { calls: [], since: 0, until: 0 }
}
