import { messageOf } from '../failure.ts'
import { now } from '../lease.ts'
import type { Fortigate } from '../settings/fortigate.ts'
import { type Activity, isStale } from './activity.ts'
import type { Feed } from './feed.ts'
import { type Content, PARTS, type Part, type Snapshot } from './render.ts'

/** How things stand, for the page, the metrics, the log and `/healthz`. */
export interface Status {
  at: number
  /** Undefined if the list cannot be read. */
  snapshot: Snapshot | undefined
  /** What somebody should look at, worst first. */
  alarms: string[]
}

/** @param logTrouble why the last failed login could not be written, if it could not */
export async function statusOf(
  settings: Fortigate,
  feed: Feed,
  activity: Activity,
  logTrouble?: string,
): Promise<Status> {
  const at = now()
  const alarms: string[] = []
  let snapshot: Snapshot | undefined
  try {
    snapshot = await feed.snapshot()
  } catch (error) {
    alarms.push(`${messageOf(error)}. Devices are answered 503 and keep what they have.`)
  }
  if (logTrouble) alarms.push(`${logTrouble}. Failed logins are lost until it can be written.`)
  if (snapshot) alarms.push(...listAlarms(snapshot, settings))
  alarms.push(...pullAlarms(activity, settings.feed.stale_after, at))
  return { at, snapshot, alarms }
}

function listAlarms({ parts, refused, unreadable }: Snapshot, settings: Fortigate): string[] {
  const full = PARTS.filter((part) => parts[part].dropped > 0).map(
    (part) => `${routeOf(part)} holds ${settings.feed.max_entries} addresses, its limit: the
      ${parts[part].dropped} oldest are not served. Raise max_entries, or let the device fetch
      /blocked-ips/ipv4 and /blocked-ips/ipv6.`,
  )
  const alarms = full.map((text) => text.replace(/\s+/g, ' '))
  if (refused > 0) {
    const [which, whom] =
      refused === 1
        ? ['1 address of the list is', 'it']
        : [`${refused} addresses of the list are`, 'them']
    alarms.push(`${which} not served: never_ban or min_prefix protects ${whom}.`)
  }
  if (unreadable.length > 0) {
    alarms.push(`Lines of the list that nobody can read, not served: ${unreadable.join(', ')}`)
  }
  return alarms
}

function pullAlarms(activity: Activity, staleAfter: number, at: number): string[] {
  const stale = activity.clients(at).filter((client) => isStale(client, staleAfter, at))
  if (stale.length > 0) {
    return stale.map((c) => `${c.address} has not fetched the list for ${span(at - c.last)}.`)
  }
  const quiet = at - Math.max(activity.lastPull(), activity.started)
  if (quiet <= staleAfter) return []
  return [`No device has fetched the list for ${span(quiet)}.`]
}

/** What a route is called. */
export function routeOf(part: Part): string {
  return part === 'all' ? '/blocked-ips' : `/blocked-ips/${part}`
}

/** A length of time in two words at most: `45 s`, `12 min`, `3 h 5 min`, `6 d 2 h`. */
export function span(seconds: number): string {
  const s = Math.max(0, Math.round(seconds))
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  const [big, small, unit, rest] = s < 86_400 ? [3600, 60, 'h', 'min'] : [86_400, 3600, 'd', 'h']
  const part = Math.floor((s % big) / small)
  return `${Math.floor(s / big)} ${unit}${part ? ` ${part} ${rest}` : ''}`
}

/** Prometheus text. */
export function metrics(
  { at, snapshot, alarms }: Status,
  activity: Activity,
  stale: number,
): string {
  const clients = activity.clients(at)
  const perPart = (value: (content: Content) => number): [string, number][] =>
    snapshot ? PARTS.map((part) => [`{part="${part}"}`, value(snapshot.parts[part])]) : []
  const families: [name: string, kind: string, help: string, rows: [string, number][]][] = [
    ['up', 'gauge', 'Whether the list can be read.', [['', snapshot ? 1 : 0]]],
    ['alarms', 'gauge', 'Alarms on the status page.', [['', alarms.length]]],
    ['entries', 'gauge', 'Addresses served.', perPart((c) => c.entries)],
    ['dropped', 'gauge', 'Addresses over max_entries.', perPart((c) => c.dropped)],
    ['pulls_total', 'counter', 'Fetches.', clients.map((c) => [client(c.address), c.pulls])],
    ['last_pull', 'gauge', 'Last fetch.', clients.map((c) => [client(c.address), c.last])],
    [
      'stale',
      'gauge',
      'Whether the device stopped fetching.',
      clients.map((c) => [client(c.address), isStale(c, stale, at) ? 1 : 0]),
    ],
    ['received_total', 'counter', 'Posted logs by what became of them.', received(activity)],
  ]
  return families.map(([name, kind, help, rows]) => family(name, kind, help, rows)).join('')
}

function family(name: string, kind: string, help: string, rows: [string, number][]): string {
  const full = `f2b_fortigate_${name}`
  const lines = rows.map(([labels, value]) => `${full}${labels} ${value}\n`).join('')
  return `# HELP ${full} ${help}\n# TYPE ${full} ${kind}\n${lines}`
}

function client(address: string): string {
  return `{client="${address}"}`
}

function received(activity: Activity): [string, number][] {
  return [...activity.received].map(([what, count]) => {
    const cut = what.indexOf(' ')
    return [`{result="${what.slice(0, cut)}",what="${what.slice(cut + 1)}"}`, count]
  })
}
