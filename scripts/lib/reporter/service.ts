import { EXIT, Failure } from '../failure.ts'
import { readRetryAfter } from '../retry-after.ts'
import type { Answer, Ask } from './http.ts'
import type { Bucket } from './pace.ts'

/** An address that a service must hear about. */
export interface Due {
  address: string
  /** The jails that ban it. */
  jails: string[]
  /** Epoch seconds at which the last of these bans ends; 0 = never. */
  until: number
}

/** What an answer means for the addresses of a call. */
export type Verdict =
  /** Settled. `refused` are addresses that the service will never take: they are set aside. */
  | { kind: 'done'; refused?: string[] }
  /** Too long a list (`long`), or an address in it that the service does not like (`bad`). */
  | { kind: 'split'; why: 'long' | 'bad' }
  /** Nothing was taken; ask again after so many seconds. */
  | { kind: 'later'; seconds: number }

/** One way to tell a service about addresses. */
export interface Route {
  /** Names what is remembered about it; unique within a service. */
  name: string
  /** What the service counts its calls in; a 429 is about the last. */
  buckets: Bucket[]
  /** Addresses that one call can carry at most. */
  most: number
  /** Addresses from which it is worth a call. */
  from: number
  ask(batch: Due[], now: number): Ask
  /** @throws Failure if the service answered anything that time or a smaller list cannot cure */
  judge(answer: Answer, batch: Due[]): Verdict
}

/** All in which two services that bans are reported to differ. Times are epoch seconds. */
export interface Service {
  /** Names its files in `state_dir`. */
  name: string
  /** The key, so that no text that leaves us can hold it. */
  key: string
  reports: Route[]
  /** How an entry is withdrawn; a service without keeps what it was told. */
  withdrawal?: Route
  /** Seconds after its end in which a ban is still worth reporting. */
  late: number
  /** Until when an address of a batch that was just reported counts as reported; 0 = for ever. */
  until(due: Due, batch: Due[], now: number): number
  /**
   * What is owed for an address that is banned until `until` and counts as reported until `known`
   * (0 = for ever; long past if it never was). `covered`: nothing, the old report will do.
   */
  owed(until: number, known: number, now: number): 'report' | 'covered' | 'nothing'
}

/**
 * Seconds that a ban may outlast its report without being owed another: what Fail2Ban tells an
 * action and what it answers when asked differ by a fraction of a second.
 */
export const SLACK = 60

/** Seconds after which to ask again where a 429 does not say. */
const WAIT = 60

/** A day: no service's quota needs longer to come back. */
const LONGEST_WAIT = 86400

/**
 * What an answer means that is not the service's own word for success.
 *
 * @param check what the operator should look at after a 422
 * @throws Failure 75, 76 or 77
 */
export function judgeFailure(answer: Answer, check: string): Verdict {
  const { status } = answer
  if (status === 400) return { kind: 'split', why: 'bad' }
  if (status === 413) return { kind: 'split', why: 'long' }
  if (status === 429) return { kind: 'later', seconds: retryAfter(answer) }
  if (status === 401) throw new Failure(EXIT.refused, 'the key was refused (401)')
  if (status === 403) throw new Failure(EXIT.refused, 'the account may not do this (403)')
  if (status === 422) {
    throw new Failure(EXIT.unexpected, `it was not understood (422): check ${check}`)
  }
  if (status === 408 || status >= 500) {
    throw new Failure(EXIT.temporary, `the service is out of order (${status})`)
  }
  throw new Failure(EXIT.unexpected, `unexpected answer (${status})`)
}

/** A question's answer: any 2xx. @throws Failure 75, 76, 77 */
export function expectSuccess(answer: Answer): Answer {
  if (answer.status >= 200 && answer.status < 300) return answer
  judgeFailure(answer, 'the filters')
  throw new Failure(EXIT.unexpected, `unexpected answer (${answer.status})`)
}

/** Whole seconds to wait after a 429. */
export function retryAfter(answer: Answer, now = Date.now()): number {
  return Math.min(readRetryAfter(answer.headers['retry-after'], now) ?? WAIT, LONGEST_WAIT)
}
