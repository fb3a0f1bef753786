import type { About, Place } from './about.ts'
import type { Ban } from './bans.ts'
import { nameOf } from './problems.ts'
import { entry, type Paper, tableOf } from './table.ts'
import { count, ending, moment, plain, span } from './words.ts'

/** Who banned it, where it is in force, what is on its way, and why. */
export function aboutReport(about: About, paper: Paper): string {
  const lines = [headOf(about, paper), ...detailsOf(about, paper)]
  return `${lines.join('\n')}\n`
}

export function headOf({ address, bans, places, troubles }: About, paper: Paper): string {
  const name = paper.style('bold', address.text)
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

/** Whether it is in force there, whoever banned it. */
function isBlocked({ leases, others }: Place): boolean {
  return leases.length + others.length > 0
}

export function detailsOf(about: About, paper: Paper): string[] {
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
    ban.live ? since(ban, at) : 'only stored',
    ending(ban.expires, at),
    String(ban.times ?? ''),
  ])
  return indented(tableOf(columns.map(columnOf), rows, paper))
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
  const ranges = held.some(({ lease }) => lease.address.text !== address.text)
  const columns = ['TARGET', 'JAIL', ...(ranges ? ['ADDRESS'] : []), 'UNTIL', 'OWNER']
  const rows = held.map(({ place, lease, owner }) => [
    nameOf(place),
    plain(lease.jail),
    ...(ranges ? [lease.address.text] : []),
    ending(lease.expires, at),
    owner,
  ])
  const without = places.filter((place) => !isBlocked(place) && !place.trouble)
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

function titled(title: string, lines: string[], paper: Paper, format: 'bold' | 'red' = 'bold') {
  if (lines.length === 0) return []
  return ['', paper.style(format === 'red' ? ['bold', 'red'] : 'bold', title), ...lines]
}

export function hanging(notes: { name: string; text: string }[], paper: Paper): string[] {
  const indent = Math.min(Math.max(...notes.map(({ name }) => name.length), 0), 30) + 4
  return notes.flatMap(({ name, text }) => entry(`  ${name}`, indent, text, paper))
}

function indented(lines: string[]): string[] {
  return lines.map((line) => `  ${line}`)
}

function columnOf(title: string) {
  return { title, right: title === 'TIMES' }
}
