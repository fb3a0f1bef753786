import type { Rejection } from '../delivery/rejected.ts'
import { isUnseen, nameOf, problemsIn } from './problems.ts'
import type { Survey, TargetSurvey } from './survey.ts'
import { type Column, entry, fit, type Paper, tableOf } from './table.ts'
import { count, plain, span } from './words.ts'

const COLUMNS: Column[] = [
  { title: 'TARGET' },
  { title: 'REACHED' },
  { title: 'LEASES', right: true },
  { title: 'DRIFT', right: true },
  { title: 'QUEUED', right: true },
  { title: 'OLDEST', right: true },
  { title: 'REJECTED', right: true },
  { title: 'SUCCESS', right: true },
  { title: 'ERROR', right: true },
]

/** Columns that all but the first take, with the gaps between them. */
const OTHERS = 7 + 6 + 5 + 6 + 6 + 8 + 7 + 6 + 8 * 2

/** So much of what was rejected is shown, per target; --json has it all. */
const FEW = 5

/** What stands below the table, under a title of its own. */
interface Note {
  name: string
  text: string
}

/** The table, and below it whatever needs more words than fit in there. */
export function reportOf(survey: Survey, paper: Paper): string {
  const rows = survey.targets.map((one) => rowOf(one, survey, paper))
  const problems = problemsIn(survey).map(({ name, code, text }) => ({
    name,
    text: `${text} (${code})`,
  }))
  const sections = [
    section('Problems', problems, 'red', paper),
    section('Last errors', errorsIn(survey), 'bold', paper),
    section('Rejected', rejectedIn(survey), 'bold', paper),
  ]
  const lines = [headOf(survey, paper), '', ...tableOf(COLUMNS, rows, paper), ...sections.flat()]
  return `${lines.join('\n')}\n`
}

function headOf({ owner, bans, deliverer, targets }: Survey, paper: Paper): string {
  const queued = targets.some(({ queue }) => queue !== undefined)
  const parts = [
    bans === undefined ? 'Fail2Ban does not answer' : `${count(bans, 'ban')} in Fail2Ban`,
    count(targets.length, 'target'),
    ...(deliverer.running ? ['f2b-deliver runs'] : queued ? ['f2b-deliver does not run'] : []),
  ]
  return `${paper.style('bold', owner)}: ${parts.join(', ')}`
}

function rowOf(one: TargetSurvey, survey: Survey, paper: Paper): string[] {
  const { at } = survey
  const { reachable, leases, drift, queue, state } = one
  const never = paper.style('dim', '-')
  const alarming = (value: number, text = String(value)): string =>
    value > 0 ? paper.style('red', text) : text
  const age = (moment: number): string => (moment > 0 ? span(at - moment) : never)
  // A line that no target of the sibling can be told is rejected for each of them.
  const lines = survey.rejected.filter(({ sibling }) => sibling === one.sibling)
  const refusals = [...lines.map(({ rejection }) => rejection), ...state.rejected]
  const rejected = refusals.filter((refusal) => isUnseen(refusal, at)).length
  const reached = reachable ? paper.style('green', 'yes') : paper.style(['bold', 'red'], 'no')
  const name = fit(nameOf(one), Math.max(paper.width - OTHERS, 12))
  const failing = state.failingSince > 0
  return [
    one.trouble ? paper.style(['bold', 'red'], name) : name,
    reachable === undefined ? (one.trouble ? paper.style('red', 'no') : never) : reached,
    leases === undefined ? '?' : String(leases),
    drift ? alarming(drift.missing + drift.extra + drift.wrong_expiry) : '?',
    queue ? String(queue.queued) : never,
    queue ? age(queue.oldest) : never,
    queue || rejected > 0 ? alarming(rejected) : never,
    age(state.lastSuccess),
    failing ? paper.style('red', age(state.lastError?.at ?? 0)) : age(state.lastError?.at ?? 0),
  ]
}

function errorsIn({ at, targets }: Survey): Note[] {
  return targets.flatMap((one) => {
    const { lastError, failingSince, lastSuccess } = one.state
    if (!lastError) return []
    const { code, message } = lastError
    const still = failingSince > 0 ? `failing for ${span(at - failingSince)}` : ''
    const over = failingSince === 0 && lastSuccess > 0 ? 'works again' : ''
    const state = still || over ? `, ${still || over}` : ''
    return [
      { name: nameOf(one), text: `${span(at - lastError.at)} ago${state}: ${message} (${code})` },
    ]
  })
}

function rejectedIn({ at, rejected, targets }: Survey): Note[] {
  const siblings = [...new Set(rejected.map(({ sibling }) => sibling))]
  const bySibling = siblings.map((name) => ({
    name,
    all: rejected.filter(({ sibling }) => sibling === name).map((one) => one.rejection),
  }))
  const byTarget = targets.map((one) => ({ name: nameOf(one), all: one.state.rejected }))
  return [...bySibling, ...byTarget].flatMap(({ name, all }) => {
    const unseen = all.filter((one) => isUnseen(one, at))
    const shown = unseen.slice(-FEW).map((one) => ({ name, text: rejectionText(one, at) }))
    const more = unseen.length - shown.length
    return more > 0 ? [...shown, { name, text: `and ${more} more, see --json` }] : shown
  })
}

function rejectionText({ id, at, code, reason, change }: Rejection, now: number): string {
  return `${id}, ${span(now - at)} ago, ${change}: ${reason} (${code})`
}

function section(title: string, notes: Note[], format: 'red' | 'bold', paper: Paper): string[] {
  if (notes.length === 0) return []
  const indent = Math.min(Math.max(...notes.map(({ name }) => plain(name).length)), 24) + 4
  const lines = notes.flatMap(({ name, text }) =>
    entry(`  ${fit(plain(name), 24)}`, indent, plain(text), paper),
  )
  return ['', paper.style(format === 'red' ? ['bold', 'red'] : 'bold', title), ...lines]
}
