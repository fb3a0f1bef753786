import { isIP } from 'node:net'
import { parseAddress } from '../../scripts/lib/address.ts'
import { isPublic } from '../../scripts/lib/reporter/public.ts'
import { type Faults, Quota, type Reply, type Seen, startHost } from './service.ts'

// AbuseIPDB's APIv2 with a free account: https://docs.abuseipdb.com/, facts/peers.md section 6.

export interface Report {
  ip: string
  categories: number[]
  comment: string
  at: number
}

export interface AbuseIpDbFaults extends Faults {
  /** Lines that a bulk report may have: one more is 413. */
  most?: number
  /** Addresses that are refused one by one. */
  disliked?: string[]
}

export interface AbuseIpDbSimulator {
  url: string
  seen: Seen[]
  faults: AbuseIpDbFaults
  reports: Report[]
  close(): Promise<void>
}

const DAY = 86_400_000
const AGAIN = 900_000
const PREFIX = '/api/v2'

/** Calls that a free account has in a day. */
const PLAN = { report: 1000, 'bulk-report': 5, check: 1000, 'clear-address': 5 }

interface Account {
  reports: Report[]
  faults: AbuseIpDbFaults
  now: () => number
}

/** Starts the service with one account. */
export async function startAbuseIpDb(
  key: string,
  now: () => number = Date.now,
): Promise<AbuseIpDbSimulator> {
  const seen: Seen[] = []
  const account: Account = { reports: [], faults: {}, now }
  const quotas = Object.entries(PLAN).map(([name, calls]) => [name, new Quota(calls, DAY)] as const)
  const endpoints = new Map(quotas)
  const host = await startHost(seen, account.faults, now, (call) => {
    const url = new URL(call.path, 'http://x')
    const name = url.pathname.slice(PREFIX.length + 1)
    const quota = endpoints.get(name)
    if (!url.pathname.startsWith(`${PREFIX}/`) || !quota) return fault(404, 'Not found')
    if (call.headers.key !== key) return fault(401, 'Authentication failed')
    if (call.headers.accept !== 'application/json') return fault(422, 'Accept')
    const wait = quota.take(now())
    const headers = { 'x-ratelimit-remaining': `${quota.left}` }
    if (wait > 0) {
      const reply = fault(429, 'Daily rate limit exceeded')
      return { ...reply, headers: { ...headers, 'retry-after': `${wait}` } }
    }
    return { headers, ...serve(account, call, name, url.searchParams) }
  })
  return {
    url: `${host.url}${PREFIX}`,
    seen,
    faults: account.faults,
    reports: account.reports,
    close: host.close,
  }
}

function serve(account: Account, call: Seen, name: string, query: URLSearchParams): Reply {
  const words = `${call.method} ${name}`
  if (words === 'POST report') return single(account, call)
  if (words === 'POST bulk-report') return bulk(account, call)
  if (words === 'GET check') return check(query)
  if (words === 'DELETE clear-address') return clear(account, query)
  return fault(405, 'Method')
}

function check(query: URLSearchParams): Reply {
  const ipAddress = query.get('ipAddress') ?? ''
  if (isIP(ipAddress) === 0) return fault(422, 'ipAddress', 'ipAddress')
  return data({ ipAddress, abuseConfidenceScore: 0 })
}

function clear(account: Account, query: URLSearchParams): Reply {
  const ip = query.get('ipAddress')
  const kept = account.reports.filter((report) => report.ip !== ip)
  const numReportsDeleted = account.reports.length - kept.length
  account.reports.splice(0, account.reports.length, ...kept)
  return data({ numReportsDeleted })
}

function single(account: Account, call: Seen): Reply {
  if (call.headers['content-type'] !== 'application/x-www-form-urlencoded') {
    return fault(422, 'Content-Type')
  }
  const form = new URLSearchParams(call.body)
  const ip = form.get('ip') ?? ''
  const known = ['ip', 'categories', 'comment', 'timestamp']
  if ([...form.keys()].some((name) => !known.includes(name))) return fault(422, 'unknown', 'x')
  const categories = readCategories(form.get('categories') ?? '')
  if (!categories) return fault(422, 'categories', 'categories')
  const trouble = refusal(account, ip)
  if (trouble) return fault(trouble === 'Duplicate IP' ? 429 : 422, trouble, 'ip')
  account.reports.push({ ip, categories, comment: form.get('comment') ?? '', at: account.now() })
  return data({ ipAddress: ip, abuseConfidenceScore: 52 })
}

function bulk(account: Account, call: Seen): Reply {
  const csv = readMultipart(call)
  if (csv === undefined) return fault(422, 'The csv field is required.', 'csv')
  const [head, ...rows] = csv.replace(/\n$/, '').split('\n')
  if (head !== 'IP,Categories,ReportDate,Comment') return fault(422, 'columns', 'csv')
  if (rows.length + 1 > (account.faults.most ?? 10_000)) return fault(413, 'Too large')
  if (Buffer.byteLength(csv) > 2_000_000) return fault(413, 'Too large')
  const invalidReports = rows.flatMap((row, i) => {
    const error = enter(account, row)
    return error ? [{ error, input: row.split(',')[0], rowNumber: i + 2 }] : []
  })
  return data({ savedReports: rows.length - invalidReports.length, invalidReports })
}

/** Enters a row, or says why not. */
function enter(account: Account, row: string): string | undefined {
  const [, ip = '', words = '', date = '', comment = ''] =
    /^([^,"]+),"([\d,]+)",([^,"]+),"((?:[^"]|"")*)"$/.exec(row) ?? []
  const categories = readCategories(words)
  if (!categories) return 'Invalid Category'
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(date)) return 'Invalid Date'
  if (Math.abs(Date.parse(date) - account.now()) > DAY) return 'Invalid Date'
  const trouble = refusal(account, ip)
  if (!trouble) account.reports.push({ ip, categories, comment, at: account.now() })
  return trouble
}

function refusal(account: Account, ip: string): string | undefined {
  if (isIP(ip) === 0 || !isPublic(parseAddress(ip))) return 'Invalid IP'
  if (account.faults.disliked?.includes(ip)) return 'Invalid IP'
  const again = account.reports.some(
    (report) => report.ip === ip && account.now() - report.at < AGAIN,
  )
  return again ? 'Duplicate IP' : undefined
}

function readCategories(text: string): number[] | undefined {
  const numbers = text.split(',').map(Number)
  const right = numbers.length <= 30 && numbers.every((n) => Number.isInteger(n) && n > 0 && n < 24)
  return right ? numbers : undefined
}

function readMultipart(call: Seen): string | undefined {
  const [, boundary] =
    /^multipart\/form-data; boundary=([\w-]+)$/.exec(call.headers['content-type'] ?? '') ?? []
  const start =
    `--${boundary}\r\nContent-Disposition: form-data; name="csv"; filename="report.csv"\r\n` +
    'Content-Type: text/csv\r\n\r\n'
  const end = `\r\n--${boundary}--\r\n`
  if (!boundary || !call.body.startsWith(start) || !call.body.endsWith(end)) return undefined
  return call.body.slice(start.length, -end.length)
}

function data(value: object): Reply {
  return { status: 200, body: JSON.stringify({ data: value }) }
}

function fault(status: number, detail: string, parameter?: string): Reply {
  const source = parameter === undefined ? {} : { source: { parameter } }
  return { status, body: JSON.stringify({ errors: [{ detail, status, ...source }] }) }
}
