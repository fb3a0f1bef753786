import { randomBytes } from 'node:crypto'
import * as v from 'valibot'
import { EXIT, Failure } from '../failure.ts'
import type { AbuseIpDb } from '../settings/abuseipdb.ts'
import type { Answer, Ask } from './http.ts'
import type { Bucket } from './pace.ts'
import type { Section } from './section.ts'
import { type Due, judgeFailure, type Route, type Service, SLACK, type Verdict } from './service.ts'

export type Settings = Section<AbuseIpDb>

const DAY = 86400

/** One address may be reported once in 15 minutes: https://docs.abuseipdb.com/#report-endpoint */
const AGAIN = 900

/** A bulk report is worth one of the few in a day from here on; it takes 10,000 lines and 2 MB. */
const BULK_FROM = 6
const BULK_MOST = 9_999

/** The service counts days only. Six a minute is our own manners, as at Threat Jammer. */
const CALLS: Bucket = { name: 'calls', limits: [{ calls: 6, seconds: 60 }] }

/** How AbuseIPDB is told: https://docs.abuseipdb.com/. It keeps reports and has no expiry. */
export function makeService(settings: Settings): Service {
  return {
    name: 'abuseipdb',
    key: settings.key,
    reports: [single(settings), bulk(settings)],
    // What happened has happened, also if the ban was over before there was a call left for it.
    late: DAY,
    until: (due, _, now) => (due.until === 0 ? 0 : Math.max(due.until, now + AGAIN)),
    owed(end, known, now) {
      if (known === 0 || (end !== 0 && end <= known + SLACK)) return 'nothing'
      return known > now ? 'covered' : 'report'
    },
  }
}

/** A question or command: a GET or DELETE with everything in the query but the key. */
export function question(settings: Settings, method: 'GET' | 'DELETE', path: string): Ask {
  return { method, url: `${settings.url}${path}`, headers: headersOf(settings) }
}

function single(settings: Settings): Route {
  return {
    name: 'report',
    buckets: [CALLS, quota('report', settings.reports_per_day)],
    most: 1,
    from: 1,
    ask([due]) {
      const { address = '', jails = [] } = due ?? {}
      const form = new URLSearchParams({
        ip: address,
        categories: categoriesOf(settings, jails),
        comment: settings.comment,
      })
      return post(settings, '/report', 'application/x-www-form-urlencoded', String(form))
    },
    judge: judgeSingle,
  }
}

function bulk(settings: Settings): Route {
  return {
    name: 'bulk-report',
    buckets: [CALLS, quota('bulk-report', settings.bulk_reports_per_day)],
    most: BULK_MOST,
    from: BULK_FROM,
    ask(batch, now) {
      const boundary = `f2b-${randomBytes(12).toString('hex')}`
      const body = multipart(boundary, csvOf(settings, batch, now))
      return post(settings, '/bulk-report', `multipart/form-data; boundary=${boundary}`, body)
    },
    judge: judgeBulk,
  }
}

const faults = v.object({
  errors: v.array(v.object({ source: v.optional(v.object({ parameter: v.string() })) })),
})

/** An answer that is about the address (`ip`), not about us, settles that address. */
function judgeSingle(answer: Answer, batch: Due[]): Verdict {
  const { status } = answer
  if (status === 200) return { kind: 'done' }
  const read = v.safeParse(faults, parseJson(answer))
  const aboutIp =
    read.success && read.output.errors.some(({ source }) => source?.parameter === 'ip')
  if (aboutIp && status === 429) return { kind: 'done' }
  if (aboutIp && status === 422) return { kind: 'done', refused: batch.map((due) => due.address) }
  return judgeFailure(answer, '"categories"')
}

const saved = v.object({
  data: v.object({
    savedReports: v.number(),
    invalidReports: v.array(v.object({ error: v.optional(v.string(), ''), rowNumber: v.number() })),
  }),
})

function judgeBulk(answer: Answer, batch: Due[]): Verdict {
  if (answer.status !== 200) return judgeFailure(answer, '"categories"')
  const read = v.safeParse(saved, parseJson(answer))
  if (!read.success) throw new Failure(EXIT.unexpected, 'the answer could not be read')
  const { savedReports, invalidReports } = read.output.data
  const known = invalidReports.filter(({ error }) => /duplicate ip/i.test(error))
  if (savedReports + known.length === 0) {
    throw new Failure(EXIT.unexpected, `none of ${batch.length} addresses was taken`)
  }
  // Row 1 is the line of column names. What is known there was reported a while ago: all is well.
  const others = invalidReports.filter((row) => !known.includes(row))
  const refused = others.flatMap(({ rowNumber }) => batch[rowNumber - 2]?.address ?? [])
  return { kind: 'done', refused }
}

function csvOf(settings: Settings, batch: Due[], now: number): string {
  const date = new Date(now * 1000).toISOString()
  const comment = settings.comment.replaceAll('"', '""')
  const rows = batch.map(
    ({ address, jails }) => `${address},"${categoriesOf(settings, jails)}",${date},"${comment}"`,
  )
  return ['IP,Categories,ReportDate,Comment', ...rows, ''].join('\n')
}

function multipart(boundary: string, csv: string): string {
  return [
    `--${boundary}`,
    'Content-Disposition: form-data; name="csv"; filename="report.csv"',
    'Content-Type: text/csv',
    '',
    csv,
    `--${boundary}--`,
    '',
  ].join('\r\n')
}

function categoriesOf({ categories, jail_categories }: Settings, jails: string[]): string {
  const all = jails.flatMap((jail) => jail_categories[jail] ?? categories)
  return [...new Set(all)].sort((a, b) => a - b).join(',')
}

function quota(name: string, calls: number): Bucket {
  return { name, limits: [{ calls, seconds: DAY }] }
}

function post(settings: Settings, path: string, type: string, body: string): Ask {
  const headers = { ...headersOf(settings), 'content-type': type }
  return { method: 'POST', url: `${settings.url}${path}`, headers, body }
}

function headersOf({ key }: Settings): Record<string, string> {
  return { accept: 'application/json', key }
}

function parseJson({ text }: Answer): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
