import { EXIT, Failure } from '../failure.ts'
import type { Call } from '../target.ts'
import type { Book } from './book.ts'
import { send } from './http.ts'
import {
  type Kind,
  type Pace,
  pause,
  reset,
  returned,
  spend,
  trip,
  tripped,
  waitFor,
} from './pace.ts'
import type { Reporter } from './reporter.ts'
import type { Due, Route, Service, Verdict } from './service.ts'

/** The next call to make, and the milliseconds to wait before it may be made. */
interface Step {
  route: Route
  batch: Due[]
  /** Addresses that are due in all. */
  due: number
  wait: number
  /** Epoch seconds that the call speaks of. */
  at: number
}

/** What one push is about: what was due when it began, or a burst would keep it calling. */
interface Round {
  only: Kind | undefined
  addresses: Set<string> | undefined
}

const KINDS: Kind[] = ['report', 'withdrawal']

interface PushOptions {
  /** Milliseconds that may be spent waiting. */
  patience: number
  /**
   * For a single ban or unban: what to tell. The other kind may be gathering. What cannot be sent
   * now is safe in the ledger, and that will do.
   */
  only?: Kind
}

/** Milliseconds that a long verb waits for another process that is sending. */
const LONGEST_TURN = 60_000

/**
 * Tells the service everything that is due, in as few calls as it allows. Only one process sends;
 * what the others have entered by then goes along, the rest stays due.
 *
 * @returns false if something stays due
 * @throws Failure 69, 75, 76 or 77 for what went wrong with a call of this very process; without
 * `only`, 75 also if something stays due
 */
export async function push(reporter: Reporter, call: Call, options: PushOptions): Promise<boolean> {
  const enough = options.only !== undefined
  const done = await reporter.sender(enough ? 0 : LONGEST_TURN)
  if (!done) return putOff(call, enough, busy())
  try {
    const stopped = await reporter.locked(call, (_, pace) => tripped(pace, reporter.clock.now()))
    if (stopped) return putOff(call, enough, stopped)
    return await pushAll(reporter, call, options)
  } finally {
    done()
  }
}

async function pushAll(
  reporter: Reporter,
  call: Call,
  { patience, only }: PushOptions,
): Promise<boolean> {
  const round: Round = { only, addresses: undefined }
  const next = (book: Book, pace: Pace) => nextStep(reporter, book, pace, round)
  let left = patience
  let sent = 0
  let later = false
  let step = await reporter.locked(call, next)
  while (step) {
    if (step.wait > left) return putOff(call, Boolean(only) && !later, exhausted(step, later))
    if (step.wait > 0) {
      left -= step.wait
      await waitTurn(reporter, call, step.wait)
      step = await reporter.locked(call, next)
      continue
    }
    const made = step
    const verdict = await tell(reporter, call, made)
    later = verdict.kind === 'later'
    if (verdict.kind === 'done') sent += made.batch.length
    if (!only) call.progress(sent, sent + made.due - made.batch.length)
    step = await reporter.locked(call, (book, pace) => {
      settle(reporter, book, pace, made, verdict)
      return next(book, pace)
    })
  }
  return true
}

/** Which call comes next; it is counted from here on. Undefined if nothing of the round is due. */
function nextStep(reporter: Reporter, book: Book, pace: Pace, round: Round): Step | undefined {
  const now = reporter.clock.now()
  const at = reporter.seconds()
  const steps = jobs(reporter.service, book, at, round).map(({ route, due }) => ({
    route,
    batch: due.slice(0, sizeOf(pace, route)),
    due: due.length,
    wait: Math.max(...route.buckets.map((bucket) => waitFor(pace, bucket, now))),
    at,
  }))
  const [step] = steps.sort((a, b) => a.wait - b.wait)
  if (!step) {
    for (const kind of round.only ? [round.only] : KINDS) pace.tracks[kind].dueSince = 0
    pace.probes = {}
    book.tidy(at)
  } else if (step.wait === 0) {
    for (const bucket of step.route.buckets) spend(pace, bucket, now)
  }
  return step
}

/** What could be sent, best first: an address freed too late harms more than one listed too late. */
function jobs(service: Service, book: Book, at: number, round: Round) {
  const found: { route: Route; due: Due[] }[] = []
  const ended = round.only === 'report' ? [] : book.toWithdraw(at)
  const fresh = round.only === 'withdrawal' ? [] : book.toReport(at)
  round.addresses ??= new Set([...ended, ...fresh].map(({ address }) => address))
  const over = ended.filter(({ address }) => round.addresses?.has(address))
  const due = fresh.filter(({ address }) => round.addresses?.has(address))
  if (service.withdrawal && over.length > 0) found.push({ route: service.withdrawal, due: over })
  const fit = service.reports.filter(({ from }) => due.length >= from)
  for (const route of fit.sort((a, b) => b.from - a.from)) found.push({ route, due })
  return found
}

function sizeOf(pace: Pace, { name, most }: Route): number {
  return Math.min(most, pace.sizes[name] ?? most, pace.probes[name] ?? most)
}

/** Makes the call. @throws Failure, after which nobody calls for a while */
async function tell(reporter: Reporter, call: Call, step: Step): Promise<Verdict> {
  const { route, batch } = step
  const ask = route.ask(batch, step.at)
  call.say(`${ask.method} ${ask.url} (${batch.length})`)
  try {
    const answer = await send(reporter.service.key, ask, call.signal)
    const verdict = route.judge(answer, batch)
    if (verdict.kind !== 'split' || batch.length > 1) return verdict
    if (verdict.why === 'bad') return { kind: 'done', refused: batch.map((due) => due.address) }
    throw new Failure(EXIT.unexpected, 'the list is too long even with one address (413)')
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    await reporter.locked(call, (_, pace) => {
      for (const bucket of route.buckets) returned(pace, bucket, reporter.clock.now())
      trip(pace, reporter.clock.now(), error)
    })
    throw new Failure(error.code, `${error.message}; it is kept and tried again later`)
  }
}

/** Notes what came of a call. */
function settle(reporter: Reporter, book: Book, pace: Pace, step: Step, verdict: Verdict): void {
  const now = reporter.clock.now()
  const { route, batch } = step
  for (const bucket of route.buckets) returned(pace, bucket, now)
  reset(pace)
  const own = route.buckets.at(-1)
  if (verdict.kind === 'later' && own) pause(pace, own, now, verdict.seconds)
  if (verdict.kind === 'split') {
    const sizes = verdict.why === 'long' ? pace.sizes : pace.probes
    sizes[route.name] = Math.ceil(batch.length / 2)
  }
  if (verdict.kind !== 'done') return
  if (route === reporter.service.withdrawal) book.withdrawn(batch)
  else book.reported(batch, verdict.refused ?? [], step.at)
  // The one that spoiled the list was found: the rest may go in one call again.
  if (verdict.refused?.length) delete pace.probes[route.name]
}

/** Waits so many milliseconds. @throws Failure 75 if the verb must be over before that */
export async function waitTurn(reporter: Reporter, call: Call, ms: number): Promise<void> {
  call.say(`waiting ${Math.ceil(ms / 1000)} s for the next call`)
  try {
    await reporter.clock.wait(ms, call.signal)
  } catch (error) {
    if (!call.signal.aborted) throw error
    throw new Failure(EXIT.temporary, 'no time is left to wait for the next call')
  }
}

/** What is due stays in the ledger. That is enough for a ban, and too little for a sync. */
function putOff(call: Call, enough: boolean, why: Failure): false {
  if (!enough) throw why
  call.say(`kept for later: ${why.message}`)
  return false
}

function exhausted(step: Step, later: boolean): Failure {
  const seconds = Math.ceil(step.wait / 1000)
  const why = later ? 'too many calls (429)' : 'the calls of this period are used up'
  return new Failure(EXIT.temporary, `${why}, ${step.due} kept, the next try is in ${seconds} s`)
}

function busy(): Failure {
  return new Failure(EXIT.temporary, 'another process is reporting')
}
