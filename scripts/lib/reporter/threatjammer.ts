import { later, NO_JAIL } from '../lease.ts'
import { RELEASED } from '../ledger.ts'
import type { ThreatJammer } from '../settings/threatjammer.ts'
import type { Ask } from './http.ts'
import type { Section } from './section.ts'
import { type Due, judgeFailure, type Route, type Service, SLACK } from './service.ts'

export type Settings = Section<ThreatJammer>

/** The Report API takes 6 calls a minute from a key. */
const REPORTS = { name: 'report', limits: [{ calls: 6, seconds: 60 }] }

/** Addresses in a call. The service's own limit is not documented; a 413 teaches a smaller one. */
const MOST = 10_000

/** How Threat Jammer is told: https://threatjammer.com/docs/introduction-threat-jammer-report-api */
export function makeService(settings: Settings): Service {
  const { key, max_ttl } = settings
  return {
    name: 'threatjammer',
    key,
    reports: [route(settings, '/v1/ip', (batch, now) => reportOf(settings, batch, now))],
    withdrawal: route(settings, '/v1/unban/ip', (batch) => ({ addresses: textsOf(batch) })),
    late: 0,
    until: (_, batch, now) => endOf(settings, batch, now),
    owed(end, known, now) {
      const last = (end || Number.POSITIVE_INFINITY) - SLACK
      // What the service cannot keep as long as we want is renewed when half of it is over.
      const enough = known > now && known >= Math.min(last, now + max_ttl / 2)
      return enough ? 'nothing' : 'report'
    },
  }
}

function route(
  settings: Settings,
  path: string,
  body: (batch: Due[], now: number) => object,
): Route {
  return {
    name: path,
    buckets: [REPORTS],
    most: MOST,
    from: 1,
    ask: (batch, now) => post(settings, path, body(batch, now)),
    judge: (answer) =>
      answer.status === 202 ? { kind: 'done' } : judgeFailure(answer, '"type" and "tags"'),
  }
}

/** One time and one list of tags for all: the longest ban, and every jail. */
function reportOf(settings: Settings, batch: Due[], now: number): object {
  const jails = batch.flatMap((due) => due.jails).flatMap(tagOf)
  return {
    addresses: textsOf(batch),
    ttl: endOf(settings, batch, now) - now,
    type: settings.type,
    tags: [...new Set([...settings.tags, ...jails])],
  }
}

/** When the service drops what this call carries. */
function endOf({ max_ttl }: Settings, batch: Due[], now: number): number {
  const end = batch.map((due) => due.until).reduce(later, RELEASED)
  return end === 0 ? now + max_ttl : Math.min(end, now + max_ttl)
}

function textsOf(batch: Due[]): string[] {
  return batch.map((due) => due.address)
}

function post(settings: Settings, path: string, body: object): Ask {
  const headers = { ...headersOf(settings), 'content-type': 'application/json' }
  return {
    method: 'POST',
    url: `${settings.report_url}${path}`,
    headers,
    body: JSON.stringify(body),
  }
}

/** A call of the User API. */
export function question(settings: Settings, method: 'GET' | 'DELETE', path: string): Ask {
  return { method, url: `${settings.api_url}${path}`, headers: headersOf(settings) }
}

function headersOf({ key }: Settings): Record<string, string> {
  return { accept: 'application/json', authorization: `Bearer ${key}` }
}

/** A jail as a tag: capitals, digits and hyphens are what the service's own samples show. */
function tagOf(jail: string): string[] {
  return jail === NO_JAIL ? [] : [jail.toUpperCase().replace(/[^A-Z0-9-]/g, '-')]
}
