import type { Place } from '../delivery/probe.ts'
import type { Rejection } from '../delivery/rejected.ts'
import { NO_JAIL } from '../lease.ts'
import type { Line } from '../ledger.ts'
import type { About, Ban, Freed, Freedom } from './address.ts'
import {
  differencesIn,
  isUnseen,
  nameOf,
  problemsIn,
  type Survey,
  type TargetSurvey,
} from './survey.ts'
import {
  type Column,
  count,
  ending,
  entry,
  fit,
  moment,
  type Paper,
  plain,
  span,
  tableOf,
} from './text.ts'

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
  const notes = (all: Note[]): string[] => {
    const plained = all.map(({ name, text }) => ({ name, text: plain(text) }))
    return hanging(plained, 24, paper)
  }
  const sections = [
    section('Problems', notes(problems), paper, ['bold', 'red']),
    section('Last errors', notes(errorsIn(survey)), paper),
    section('Rejected', notes(rejectedIn(survey)), paper),
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
  const name = fit(nameOf(one), paper.width)
  const failing = state.failingSince > 0
  return [
    one.trouble ? paper.style(['bold', 'red'], name) : name,
    reachable === undefined ? (one.trouble ? paper.style('red', 'no') : never) : reached,
    leases === undefined ? '?' : String(leases),
    drift ? alarming(differencesIn(drift)) : '?',
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

/** Who banned it, where it is in force, what is on its way, and why. */
export function aboutReport(about: About, paper: Paper): string {
  const lines = [aboutHead(about, paper), ...detailsOf(about, paper)]
  return `${lines.join('\n')}\n`
}

function aboutHead({ address, bans, places, troubles }: About, paper: Paper): string {
  const name = paper.style('bold', address)
  const banned = bans.filter(({ live }) => live).length
  const forced = places.filter(isBlocked).length
  const silent = places.some(({ trouble }) => trouble)
  const where = `in force on ${forced} of ${count(places.length, 'target')}`
  const nowhere = `no target${silent ? ' that answers' : ''} has it`
  if (banned > 0) return `${name} is banned in ${count(banned, 'jail')}, and ${where}.`
  if (troubles.length > 0) {
    const stored = bans.length > 0 ? ` (it has stored ${count(bans.length, 'ban')})` : ''
    const rest = forced > 0 ? `it is ${where}` : nowhere
    return `Fail2Ban cannot be asked about ${name}${stored}; ${rest}.`
  }
  return `${name} is not banned by Fail2Ban, ${forced > 0 ? `but ${where}` : `and ${nowhere}`}.`
}

/** Whether it is in force there, for us or for another server. */
function isBlocked({ leases, others }: Place): boolean {
  return leases.length + others.length > 0
}

function detailsOf(about: About, paper: Paper): string[] {
  const { bans, places } = about
  const seen = bans.filter(({ matches }) => matches.length > 0)
  return [
    ...section('Fail2Ban', bans.length > 0 ? bansTable(bans, about, paper) : [], paper),
    ...section('In force', placesTable(about, paper), paper),
    ...section('On its way', hanging(waitingIn(places), 30, paper), paper),
    ...section('Problems', hanging(troublesIn(about), 30, paper), paper, ['bold', 'red']),
    ...section(
      'What Fail2Ban saw',
      seen.flatMap(({ jail, matches }) =>
        matches.map((line) => `  ${plain(jail)}  ${plain(line)}`),
      ),
      paper,
    ),
  ]
}

function bansTable(bans: Ban[], { address, at }: About, paper: Paper): string[] {
  const ranges = bans.some((ban) => ban.address !== address)
  const columns = ['JAIL', ...(ranges ? ['ADDRESS'] : []), 'SINCE', 'UNTIL', 'TIMES']
  const rows = bans.map((ban) => [
    plain(ban.jail),
    ...(ranges ? [ban.address] : []),
    ban.live ? since(ban, at) : 'only stored',
    ending(ban.expires, at),
    String(ban.times ?? ''),
  ])
  return indentedTable(columns, rows, paper)
}

function since({ began }: Ban, at: number): string {
  return began === undefined ? '?' : `${moment(began)} (${span(at - began)} ago)`
}

function placesTable({ address, at, places }: About, paper: Paper): string[] {
  const held = places.flatMap((place) => [
    ...place.leases.map((lease) => ({ place, lease, owner: plain(lease.owner) || '(by hand)' })),
    ...place.others.map((block) => ({
      place,
      lease: { ...block, jail: block.partly ? '(part of it)' : '' },
      owner: '(another server)',
    })),
  ])
  if (held.length === 0) return []
  const ranges = held.some(({ lease }) => lease.address !== address)
  const columns = ['TARGET', 'JAIL', ...(ranges ? ['ADDRESS'] : []), 'UNTIL', 'OWNER']
  const rows = held.map(({ place, lease, owner }) => [
    nameOf(place),
    plain(lease.jail),
    ...(ranges ? [lease.address] : []),
    ending(lease.expires, at),
    owner,
  ])
  const without = places.filter((place) => !isBlocked(place) && !place.trouble)
  const missing = without.map((place) => [nameOf(place), paper.style('dim', 'not there')])
  return indentedTable(columns, [...rows, ...missing], paper)
}

function waitingIn(places: Place[]) {
  return places.flatMap((place) =>
    place.waiting.map(({ verb, address, jail }) => ({
      name: nameOf(place),
      text: plain(`${verb} ${address} in ${jail}`),
    })),
  )
}

function troublesIn({ troubles, places }: About) {
  return [
    ...troubles.map(({ code, message }) => ({ name: 'Fail2Ban', text: `${message} (${code})` })),
    ...places.flatMap((place) => {
      const { trouble } = place
      if (!trouble) return []
      return [{ name: nameOf(place), text: `${trouble.message} (${trouble.code})` }]
    }),
  ].map(({ name, text }) => ({ name, text: plain(text) }))
}

function indentedTable(titles: string[], rows: string[][], paper: Paper): string[] {
  const columns = titles.map((title) => ({ title, right: title === 'TIMES' }))
  return tableOf(columns, rows, { ...paper, width: paper.width - 2 }).map((line) => `  ${line}`)
}

/** What was freed where, and what is in force of it now. */
export function freedomReport({ fail2ban, places, after }: Freedom, paper: Paper): string {
  const jails = fail2ban.jails.map(plain).join(', ')
  const said = fail2ban.trouble
    ? bad(`not told: ${plain(fail2ban.trouble.message)} (${fail2ban.trouble.code})`, paper)
    : jails
      ? good(`freed in ${jails}`, paper)
      : 'had not banned it'
  const rows = places.map((one) => ({ name: nameOf(one), text: outcomeText(one, paper) }))
  const lines = [
    paper.style('bold', `Free ${after.address}`),
    ...hanging([{ name: 'Fail2Ban', text: said }, ...rows], 30, paper),
    '',
    aboutHead(after, paper),
    ...detailsOf({ ...after, troubles: [], places: after.places.map(untroubled) }, paper),
    ...adviceOn(after),
  ]
  return `${lines.join('\n')}\n`
}

/** Its trouble stands above already. */
function untroubled(place: Place): Place {
  return { ...place, trouble: undefined }
}

function outcomeText({ freed, trouble, queued }: Freed, paper: Paper): string {
  if (trouble) {
    const later = queued ? '; it is queued, and freed there by f2b-deliver' : ''
    return bad(`not freed: ${plain(trouble.message)} (${trouble.code})${later}`, paper)
  }
  if (freed.length === 0) return 'was not there'
  return good(`freed in ${freed.map(leaseText).join(', ')}`, paper)
}

function leaseText({ address, jail }: Line, _: number, all: readonly Line[]): string {
  const several = all.some((one) => one.address !== address)
  const name = jail === NO_JAIL ? '- (by hand)' : jail
  return several ? `${name} (${address})` : name
}

/** What remains, and what to do about it. */
function adviceOn({ address, bans, places }: About): string[] {
  const ranges = [
    ...bans.map((ban) => ban.address),
    ...places.flatMap(({ leases }) => leases.map((lease) => lease.address)),
  ].filter((text) => text !== address)
  const others = places.some((place) => place.others.length > 0)
  const stored = bans.some((ban) => !ban.live && ban.address === address)
  return [
    ...[...new Set(ranges)].map((range) => `To free all of ${range}: f2b-status --unban ${range}`),
    ...(others ? ['What another server has banned, only that server can free.'] : []),
    ...(stored ? ['Fail2Ban will ban it again when it starts: free it again then.'] : []),
  ].flatMap((line) => ['', line])
}

function good(text: string, paper: Paper): string {
  return paper.style('green', text)
}

function bad(text: string, paper: Paper): string {
  return paper.style('red', text)
}

function section(
  title: string,
  lines: string[],
  paper: Paper,
  format: Parameters<Paper['style']>[0] = 'bold',
): string[] {
  return lines.length === 0 ? [] : ['', paper.style(format, title), ...lines]
}

/** Each text behind its name, or below it if that is longer than most. */
function hanging(notes: Note[], longest: number, paper: Paper): string[] {
  const indent = Math.min(Math.max(...notes.map(({ name }) => plain(name).length), 0), longest) + 4
  return notes.flatMap(({ name, text }) => {
    const title = `  ${plain(name)}`
    if (title.length < indent || paper.width === Infinity) return entry(title, indent, text, paper)
    return [fit(title, paper.width), ...entry('', indent, text, paper)]
  })
}
