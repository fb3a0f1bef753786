import { type Lease, NO_JAIL } from '../lease.ts'
import type { About, Place } from './about.ts'
import { detailsOf, hanging, headOf } from './about-report.ts'
import type { Freedom, Outcome } from './free.ts'
import { nameOf } from './problems.ts'
import type { Paper } from './table.ts'
import { plain } from './words.ts'

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
  const others = places.some((place) => place.others.length > 0)
  const stored = bans.some((ban) => !ban.live && ban.address.text === address.text)
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
