import type { Aside } from '../delivery/state.ts'
import { isDrifting } from './looks.ts'
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
  { title: 'ASIDE', right: true },
  { title: 'SUCCESS', right: true },
  { title: 'ERROR', right: true },
]

/** Columns that all but the first take, with the gaps between them. */
const OTHERS = 7 + 6 + 5 + 6 + 6 + 5 + 7 + 6 + 8 * 2

/** So much of what was set aside is shown, per target; --json has it all. */
const FEW = 5

/** What stands below the table, under a title of its own. */
interface Note {
  name: string
  text: string
}

/** The table, and below it whatever needs more words than fit in there. */
export function reportOf(survey: Survey, paper: Paper): string {
  const rows = survey.targets.map((one) => rowOf(one, survey, paper))
  const sections = [
    section('Problems', problemsIn(survey), 'red', paper),
    section('Last errors', errorsIn(survey), 'bold', paper),
    section('Set aside', asideIn(survey), 'bold', paper),
  ]
  const lines = [headOf(survey, paper), '', ...tableOf(COLUMNS, rows, paper), ...sections.flat()]
  return `${lines.join('\n')}\n`
}

/** `firewall/edge1`; a service or a file, of which there is but one, has no name of its own. */
export function nameOf({ sibling, target }: { sibling: string; target: string }): string {
  const only = sibling === target || target.startsWith('/')
  return plain(only ? sibling : `${sibling}/${target}`)
}

function headOf({ owner, bans, deliverer, targets }: Survey, paper: Paper): string {
  const parts = [
    bans === undefined ? 'Fail2Ban does not answer' : `${count(bans, 'ban')} in Fail2Ban`,
    count(targets.length, 'target'),
    ...(deliverer.running ? ['f2b-deliver runs'] : []),
  ]
  return `${paper.style('bold', owner)}: ${parts.join(', ')}`
}

function rowOf(one: TargetSurvey, { at }: Survey, paper: Paper): string[] {
  const { reachable, leases, drift, queue, state } = one
  const never = paper.style('dim', '-')
  const alarming = (value: number, text = String(value)): string =>
    value > 0 ? paper.style('red', text) : text
  const age = (moment: number): string => (moment > 0 ? span(at - moment) : never)
  const aside = state.aside.length
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
    queue || aside > 0 ? alarming(aside) : never,
    age(state.lastSuccess),
    failing ? paper.style('red', age(state.lastError?.at ?? 0)) : age(state.lastError?.at ?? 0),
  ]
}

function problemsIn({ at, fail2ban, deliverer, targets }: Survey): Note[] {
  const notes: Note[] = []
  if (fail2ban) notes.push({ name: 'Fail2Ban', text: `${fail2ban.message}; drift is unknown` })
  if (deliverer.trouble) notes.push({ name: 'f2b-deliver', text: deliverer.trouble.message })
  for (const one of targets) {
    const { trouble, drift } = one
    const name = nameOf(one)
    if (trouble) notes.push({ name, text: `${trouble.message} (${trouble.code})` })
    if (!drift || !isDrifting(drift)) continue
    const parts = [
      ...(drift.missing > 0 ? [`${drift.missing} missing`] : []),
      ...(drift.extra > 0 ? [`${drift.extra} extra`] : []),
      ...(drift.wrong_expiry > 0 ? [`${drift.wrong_expiry} with another end`] : []),
    ]
    notes.push({ name, text: `${parts.join(', ')}: f2b-sync repairs it (--dry-run shows it)` })
  }
  const waiting = targets.filter(({ queue }) => queue && queue.queued > 0)
  if (!deliverer.running && waiting.length > 0) {
    const most = Math.max(...waiting.map(({ queue }) => queue?.queued ?? 0))
    const since = Math.min(...waiting.map(({ queue }) => queue?.oldest || at))
    const long = since < at ? ` for ${span(at - since)}` : ''
    const text = `does not run, and ${count(most, 'change')} ${most === 1 ? 'waits' : 'wait'}${long}`
    notes.push({ name: 'f2b-deliver', text: `${text}: start it (f2b-deliver --follow)` })
  }
  return notes
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

function asideIn({ at, aside, targets }: Survey): Note[] {
  const siblings = [...new Set(aside.map(({ sibling }) => sibling))]
  const bySibling = siblings.map((name) => ({
    name,
    all: aside.filter(({ sibling }) => sibling === name).map((one) => one.aside),
  }))
  const byTarget = targets.map((one) => ({ name: nameOf(one), all: one.state.aside }))
  return [...bySibling, ...byTarget].flatMap(({ name, all }) => {
    const shown = all.slice(-FEW).map((one) => ({ name, text: asideText(one, at) }))
    const more = all.length - shown.length
    return more > 0 ? [...shown, { name, text: `and ${more} more, see --json` }] : shown
  })
}

function asideText({ at, code, reason, line }: Aside, now: number): string {
  const words = line.replace(/\|\.$/, '').replaceAll('|', ' ')
  return `${span(now - at)} ago, ${words}: ${reason} (${code})`
}

function section(title: string, notes: Note[], format: 'red' | 'bold', paper: Paper): string[] {
  if (notes.length === 0) return []
  const indent = Math.min(Math.max(...notes.map(({ name }) => plain(name).length)), 24) + 4
  const lines = notes.flatMap(({ name, text }) =>
    entry(`  ${fit(plain(name), 24)}`, indent, plain(text), paper),
  )
  return ['', paper.style(format === 'red' ? ['bold', 'red'] : 'bold', title), ...lines]
}
