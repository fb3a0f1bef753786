import { type Lease, NO_JAIL } from '../lease.ts'
import type { About, Place } from './about.ts'
import type { Ban } from './bans.ts'
import type { Freedom, Outcome } from './free.ts'
import { nameOf } from './report.ts'
import { entry, type Paper, tableOf } from './table.ts'
import { count, ending, moment, plain, span } from './words.ts'

/** Who banned it, where it is in force, what is on its way, and why. */
export function aboutReport(about: About, paper: Paper): string {
  const lines = [headOf(about, paper), ...detailsOf(about, paper)]
  return `${lines.join('\n')}\n`
}

/** What was freed where, and what is in force of it now. */
export function freedomReport({ fail2ban, places, after }: Freedom, paper: Paper): string {
  const jails = fail2ban.jails.map(plain).join(', ')
  const said = fail2ban.trouble
    ? bad(`not told: ${fail2ban.trouble.message} (${fail2ban.trouble.code})`, paper)
    : jails
      ? good(`freed in ${jails}`, paper)
      : 'had not banned it'
  const rows = places.map((one) => ({ name: nameOf(one), text: outcomeText(one, paper) }))
  const lines = [
    paper.style('bold', `Free ${after.address.text}`),
    ...hanging([{ name: 'Fail2Ban', text: said }, ...rows], paper),
    '',
    headOf(after, paper),
    ...detailsOf({ ...after, troubles: [], places: after.places.map(untroubled) }, paper),
    ...adviceOn(after),
  ]
  return `${lines.join('\n')}\n`
}

function headOf({ address, bans, places, troubles }: About, paper: Paper): string {
  const name = paper.style('bold', address.text)
  const banned = bans.filter(({ live }) => live).length
  const forced = places.filter(({ leases }) => leases.length > 0).length
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

function detailsOf(about: About, paper: Paper): string[] {
  const { bans, places } = about
  const seen = bans.filter(({ matches }) => matches.length > 0)
  return [
    ...titled('Fail2Ban', bans.length > 0 ? bansTable(bans, about, paper) : [], paper),
    ...titled('In force', placesTable(about, paper), paper),
    ...titled('On its way', hanging(waitingIn(places), paper), paper),
    ...titled('Problems', hanging(problemsIn(about), paper), paper, 'red'),
    ...titled(
      'What Fail2Ban saw',
      seen.flatMap(({ jail, matches }) =>
        matches.map((line) => `  ${plain(jail)}  ${plain(line)}`),
      ),
      paper,
    ),
  ]
}

function bansTable(bans: Ban[], { address, at }: About, paper: Paper): string[] {
  const ranges = bans.some((ban) => ban.address.text !== address.text)
  const columns = ['JAIL', ...(ranges ? ['ADDRESS'] : []), 'SINCE', 'UNTIL', 'TIMES']
  const rows = bans.map((ban) => [
    plain(ban.jail),
    ...(ranges ? [ban.address.text] : []),
    ban.live ? `${moment(ban.began)} (${span(at - ban.began)} ago)` : 'only stored',
    ending(ban.expires, at),
    String(ban.times ?? ''),
  ])
  return indented(tableOf(columns.map(columnOf), rows, paper))
}

function placesTable({ address, at, places }: About, paper: Paper): string[] {
  const held = places.flatMap((place) => place.leases.map((lease) => ({ place, lease })))
  if (held.length === 0) return []
  const ranges = held.some(({ lease }) => lease.address.text !== address.text)
  const columns = ['TARGET', 'JAIL', ...(ranges ? ['ADDRESS'] : []), 'UNTIL', 'OWNER']
  const rows = held.map(({ place, lease }) => [
    nameOf(place),
    plain(lease.jail),
    ...(ranges ? [lease.address.text] : []),
    ending(lease.expires, at),
    plain(lease.owner) || '(by hand)',
  ])
  const without = places.filter(({ leases, trouble }) => leases.length === 0 && !trouble)
  const missing = without.map((place) => [nameOf(place), paper.style('dim', 'not there')])
  return indented(tableOf(columns.map(columnOf), [...rows, ...missing], paper))
}

function waitingIn(places: Place[]) {
  return places.flatMap((place) =>
    place.waiting.map(({ verb, address, jail }) => ({
      name: nameOf(place),
      text: plain(`${verb} ${address} in ${jail}`),
    })),
  )
}

function problemsIn({ troubles, places }: About) {
  return [
    ...troubles.map(({ code, message }) => ({ name: 'Fail2Ban', text: `${message} (${code})` })),
    ...places.flatMap((place) => {
      const { trouble } = place
      if (!trouble) return []
      return [{ name: nameOf(place), text: `${trouble.message} (${trouble.code})` }]
    }),
  ].map(({ name, text }) => ({ name, text: plain(text) }))
}

/** Its trouble stands above already. */
function untroubled(place: Place): Place {
  return { ...place, trouble: undefined }
}

function outcomeText({ freed, trouble, queued }: Outcome, paper: Paper): string {
  if (trouble) {
    const later = queued ? '; it is queued, and freed there by f2b-deliver' : ''
    return bad(`not freed: ${plain(trouble.message)} (${trouble.code})${later}`, paper)
  }
  if (freed.length === 0) return 'was not there'
  return good(`freed in ${freed.map(leaseText).join(', ')}`, paper)
}

function leaseText({ address, jail }: Lease, _: number, all: readonly Lease[]): string {
  const several = all.some((one) => one.address.text !== address.text)
  const name = jail === NO_JAIL ? '- (by hand)' : jail
  return several ? `${name} (${address.text})` : name
}

/** What remains, and what to do about it. */
function adviceOn({ address, bans, places }: About): string[] {
  const ranges = [
    ...bans.map((ban) => ban.address.text),
    ...places.flatMap(({ leases }) => leases.map((lease) => lease.address.text)),
  ].filter((text) => text !== address.text)
  const stored = bans.some((ban) => !ban.live && ban.address.text === address.text)
  return [
    ...[...new Set(ranges)].map((range) => `To free all of ${range}: f2b-status --unban ${range}`),
    ...(stored ? ['Fail2Ban will ban it again when it starts: free it again then.'] : []),
  ].flatMap((line) => ['', line])
}

function titled(title: string, lines: string[], paper: Paper, format: 'bold' | 'red' = 'bold') {
  if (lines.length === 0) return []
  return ['', paper.style(format === 'red' ? ['bold', 'red'] : 'bold', title), ...lines]
}

function hanging(notes: { name: string; text: string }[], paper: Paper): string[] {
  const indent = Math.min(Math.max(...notes.map(({ name }) => name.length), 0), 30) + 4
  return notes.flatMap(({ name, text }) => entry(`  ${name}`, indent, text, paper))
}

function indented(lines: string[]): string[] {
  return lines.map((line) => `  ${line}`)
}

function columnOf(title: string) {
  return { title, right: title === 'TIMES' }
}

function good(text: string, paper: Paper): string {
  return paper.style('green', text)
}

function bad(text: string, paper: Paper): string {
  return paper.style('red', text)
}
