import {
  differencesIn,
  isUnseen,
  problemsIn,
  type Severity,
  type Survey,
  TOO_LONG,
} from './survey.ts'
import { count, plain } from './text.ts'

/** What a plug-in ends with. https://nagios-plugins.org/doc/guidelines.html */
const CODES = { ok: 0, warning: 1, critical: 2, unknown: 3 } as const

/** What is not known may be critical, and so counts more than what is known to be less. */
const ORDER: Severity[] = ['critical', 'unknown', 'warning']

/** One line for Nagios, Icinga and their like, and the exit code that goes with it. */
export function nagiosOf(survey: Survey): { code: number; line: string } {
  const problems = problemsIn(survey)
  const worst = ORDER.find((level) => problems.some(({ severity }) => severity === level))
  const first = problems.find(({ severity }) => severity === worst)
  const others = problems.length - 1
  const more = others > 0 ? ` (and ${count(others, 'more problem')})` : ''
  const { bans = 0, targets } = survey
  const said = first
    ? `${first.name}: ${first.text}${more}`
    : `${count(bans, 'ban')} in Fail2Ban, ${count(targets.length, 'target')}`
  return nagiosLine(worst ?? 'ok', said, figuresOf(survey))
}

/** For whoever could not even be asked, too: then there are no figures. */
export function nagiosLine(
  level: Severity | 'ok',
  said: string,
  figures: string[] = [],
): { code: number; line: string } {
  const text = plain(said).replaceAll('|', '/') // which would begin the figures
  const parts = [`F2B ${level.toUpperCase()}: ${text}`, figures.join(' ')].filter(Boolean)
  return { code: CODES[level], line: `${parts.join(' | ')}\n` }
}

/** `label=value[unit];warning;critical;least`; U is what is not known. */
function figuresOf({ at, bans, targets, rejected }: Survey): string[] {
  const drifts = targets.flatMap(({ drift }) => (drift ? [differencesIn(drift)] : []))
  const queues = targets.flatMap(({ queue }) => (queue ? [queue] : []))
  const oldest = queues.map((queue) => (queue.oldest > 0 ? at - queue.oldest : 0))
  const refusals = [
    ...rejected.map(({ rejection }) => rejection),
    ...targets.flatMap(({ state }) => state.rejected),
  ]
  return [
    `bans=${bans ?? 'U'};;;0`,
    `targets=${targets.length};;;0`,
    `unreached=${targets.filter(({ reachable }) => reachable === false).length};;0;0`,
    `drift=${drifts.length > 0 ? sum(drifts) : 'U'};0;;0`,
    `queued=${sum(queues.map(({ queued }) => queued))};;;0`,
    `oldest=${Math.floor(Math.max(0, ...oldest))}s;${TOO_LONG};;0`,
    `rejected=${refusals.filter((one) => isUnseen(one, at)).length};0;;0`,
  ]
}

function sum(values: number[]): number {
  return values.reduce((all, value) => all + value, 0)
}
