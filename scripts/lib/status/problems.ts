import type { Rejection } from '../delivery/rejected.ts'
import { sentenceOf } from '../delivery/truth.ts'
import { EXIT } from '../failure.ts'
import { alive } from '../lease.ts'
import { isDrifting } from './looks.ts'
import type { Survey, TargetSurvey } from './survey.ts'
import { count, plain, span } from './words.ts'

/** Something that is not as it should be, with the exit code that it gives. */
export interface Problem {
  name: string
  code: number
  text: string
}

/** Seconds for which something may be queued before it is a problem. */
const TOO_LONG = 120

/** Seconds for which what was rejected is a problem although it is over by now. */
const NEWS = 86_400

/** Everything that is wrong, each with its exit code. */
export function problemsIn(survey: Survey): Problem[] {
  const { fail2ban, unclear, jails, deliverer, rejected, targets } = survey
  return [
    ...jails,
    ...unclear.map((one) => ({ name: 'Fail2Ban', code: one.code, text: sentenceOf(one) })),
    ...(fail2ban ? [{ name: 'Fail2Ban', ...fail2ban }] : []).map(({ name, code, message }) => ({
      ...{ name, code },
      text: `${message}; drift is unknown`,
    })),
    ...(deliverer.trouble ? [{ name: 'f2b-deliver', ...deliverer.trouble }] : []).map(
      ({ name, code, message }) => ({ name, code, text: message }),
    ),
    ...configOf(survey),
    ...lateIn(survey),
    ...[...new Set(rejected.map(({ sibling }) => sibling))].flatMap((name) => {
      const own = rejected.filter(({ sibling }) => sibling === name).map((one) => one.rejection)
      return rejectedIn(name, own, survey.at)
    }),
    ...targets.flatMap((one) => problemsOf(one, survey.at)),
  ]
}

/** What a monitoring system is told: 0, or the worst code of what is wrong. */
export function codeOfSurvey(survey: Survey): number {
  return Math.max(EXIT.done, ...problemsIn(survey).map(({ code }) => code))
}

/** `firewall/edge1`; a service or a file, of which there is but one, has no name of its own. */
export function nameOf({ sibling, target }: { sibling: string; target: string }): string {
  const only = sibling === target || target.startsWith('/')
  return plain(only ? sibling : `${sibling}/${target}`)
}

/** True if nobody has acknowledged it, and it is in force or was a short while ago. */
export function isUnseen({ acknowledged, expires, at }: Rejection, now: number): boolean {
  return !acknowledged && (alive(expires, now) || at > now - NEWS)
}

function problemsOf(one: TargetSurvey, at: number): Problem[] {
  const { trouble, complaint, drift, state } = one
  const name = nameOf(one)
  const problems = rejectedIn(name, state.rejected, at)
  if (trouble) problems.unshift({ name, code: trouble.code, text: trouble.message })
  if (complaint) problems.push({ name, code: EXIT.input, text: plain(complaint) })
  if (state.clock) problems.push({ name, code: EXIT.temporary, text: plain(state.clock) })
  if (!drift || !isDrifting(drift)) return problems
  const parts = [
    ...(drift.missing > 0 ? [`${drift.missing} missing`] : []),
    ...(drift.extra > 0 ? [`${drift.extra} extra`] : []),
    ...(drift.wrong_expiry > 0 ? [`${drift.wrong_expiry} with another end`] : []),
  ]
  const text = `${parts.join(', ')}: f2b-sync repairs it (--dry-run shows it)`
  return [...problems, { name, code: EXIT.temporary, text }]
}

function rejectedIn(name: string, all: readonly Rejection[], at: number): Problem[] {
  const unseen = all.filter((one) => isUnseen(one, at)).length
  if (unseen === 0) return []
  const text = `${count(unseen, 'change')} rejected, see below: --acknowledge says that you know`
  return [{ name, code: EXIT.refused, text }]
}

/** A deliverer that works with another configuration than the one that we have read. */
function configOf({ at, deliverer: { config } }: Survey): Problem[] {
  if (!config?.error) return []
  const since = span(at - config.since)
  const text = `works with the configuration of ${since} ago, for the one of now is no use to it`
  return [{ name: 'f2b-deliver', code: EXIT.config, text: `${text}: ${config.error}` }]
}

function lateIn({ at, deliverer, targets }: Survey): Problem[] {
  const late = targets.filter(
    ({ queue }) => queue && queue.oldest > 0 && at - queue.oldest > TOO_LONG,
  )
  const waits = ({ queue }: TargetSurvey): string => {
    const queued = queue?.queued ?? 0
    const since = span(at - (queue?.oldest ?? at))
    return `${count(queued, 'change')} ${queued === 1 ? 'waits' : 'wait'} for ${since}`
  }
  const code = EXIT.temporary
  if (deliverer.running) return late.map((one) => ({ name: nameOf(one), code, text: waits(one) }))
  const [first] = late.sort((a, b) => (b.queue?.queued ?? 0) - (a.queue?.queued ?? 0))
  if (!first) return []
  const text = `does not run, and ${waits(first)}: start it (f2b-deliver --follow)`
  return [{ name: 'f2b-deliver', code, text }]
}
