import { isIP } from 'node:net'
import { parseAddress } from '../../scripts/lib/address.ts'
import { isPublic } from '../../scripts/lib/reporter/public.ts'
import { type Faults, type Host, Quota, type Reply, type Seen, startHost } from './service.ts'

// Threat Jammer as its documentation and its OpenAPI 1.2.27 describe it: facts/peers.md section 6.

/** What the service keeps about an address; times are epoch milliseconds, as it gives them. */
export interface Entry {
  last_report: number
  expiry: number
  total_reports: number
  dataset: string
  tags: string[]
}

export interface ThreatJammerFaults extends Faults {
  /** Addresses that a list may have: one more is 413. */
  most?: number
  /** Addresses that are answered with 400. */
  disliked?: string[]
}

export interface ThreatJammerSimulator {
  reportUrl: string
  apiUrl: string
  /** Everything that either host was asked. */
  seen: Seen[]
  faults: ThreatJammerFaults
  /** The account's addresses that have not ended. */
  entries(): Map<string, Entry>
  /** Drops an address, as the service's own web page can. */
  remove(address: string): void
  close(): Promise<void>
}

const MINUTE = 60_000
const REPORTED = '/v1/denylist/reported/ip'

/** Starts both hosts of the service, with one account. */
export async function startThreatJammer(
  key: string,
  now: () => number = Date.now,
): Promise<ThreatJammerSimulator> {
  const seen: Seen[] = []
  const faults: ThreatJammerFaults = {}
  const account = new Map<string, Entry>()
  const quotas = { report: new Quota(6, MINUTE), api: new Quota(10, MINUTE) }
  const living = () => new Map([...account].filter(([, entry]) => entry.expiry > now()))
  const hosts: Host[] = [
    await startHost(
      seen,
      faults,
      now,
      (call) => guard(call, key, quotas.report, false, now) ?? report(call, account, faults, now()),
    ),
    await startHost(
      seen,
      faults,
      now,
      (call) => guard(call, key, quotas.api, true, now) ?? ask(call, living(), account),
    ),
  ]
  return {
    reportUrl: hosts[0]?.url ?? '',
    apiUrl: hosts[1]?.url ?? '',
    seen,
    faults,
    entries: living,
    remove: (address) => void account.delete(address),
    close: async () => void (await Promise.all(hosts.map((host) => host.close()))),
  }
}

/** What every endpoint asks for first: the key, and a call that is left. */
function guard(
  call: Seen,
  key: string,
  quota: Quota,
  tells: boolean,
  now: () => number,
): Reply | undefined {
  if (call.headers.authorization !== `Bearer ${key}`) return { status: 401, body: '{}' }
  if (call.headers.accept !== 'application/json') return { status: 422, body: '{}' }
  const wait = quota.take(now())
  // Only the User API says how long to wait.
  if (wait > 0) return { status: 429, ...(tells && { headers: { 'retry-after': `${wait}` } }) }
  return undefined
}

function report(
  call: Seen,
  account: Map<string, Entry>,
  faults: ThreatJammerFaults,
  now: number,
): Reply {
  if (call.method !== 'POST') return { status: 405 }
  if (call.path !== '/v1/ip' && call.path !== '/v1/unban/ip') return { status: 404 }
  const body = readBody(call)
  if (!body) return { status: 422, body: '{"detail":[]}' }
  const { addresses } = body
  if (addresses.length > (faults.most ?? 10_000)) return { status: 413 }
  if (!addresses.every((text) => isWelcome(text, faults))) return { status: 400 }
  for (const address of addresses) {
    if (call.path === '/v1/unban/ip') account.delete(address)
    else account.set(address, entryOf(body, account.get(address), now))
  }
  return { status: 202 }
}

interface Body {
  addresses: string[]
  ttl: number
  type: string
  tags: string[]
}

function readBody(call: Seen): Body | undefined {
  if (!call.headers['content-type']?.startsWith('application/json')) return undefined
  try {
    const { addresses, ttl = 86400, type = 'ABUSE', tags = [], ...rest } = JSON.parse(call.body)
    const right =
      Array.isArray(addresses) &&
      addresses.length > 0 &&
      new Set(addresses).size === addresses.length &&
      addresses.every((text) => typeof text === 'string' && isIP(text) > 0) &&
      Number.isInteger(ttl) &&
      ttl > 0 &&
      /^[A-Z0-9_]+$/.test(type) &&
      Array.isArray(tags) &&
      tags.every((tag) => typeof tag === 'string' && /^[A-Z0-9_-]+$/.test(tag)) &&
      Object.keys(rest).length === 0
    return right ? { addresses, ttl, type, tags } : undefined
  } catch {
    return undefined
  }
}

function isWelcome(text: string, faults: ThreatJammerFaults): boolean {
  return isPublic(parseAddress(text)) && !faults.disliked?.includes(text)
}

function entryOf(body: Body, known: Entry | undefined, now: number): Entry {
  return {
    last_report: now,
    expiry: now + body.ttl * 1000,
    total_reports: (known?.total_reports ?? 0) + 1,
    dataset: body.type,
    tags: body.tags,
  }
}

function ask(call: Seen, living: Map<string, Entry>, account: Map<string, Entry>): Reply {
  const url = new URL(call.path, 'http://x')
  if (call.method === 'DELETE' && url.pathname === `${REPORTED}/all`) {
    account.clear()
    return { status: 204 }
  }
  if (call.method !== 'GET' || url.pathname !== REPORTED) return { status: 404, body: '{}' }
  const query = url.searchParams
  const known = [...Object.keys(TESTS), 'output_format']
  if ([...query.keys()].some((name) => !known.includes(name))) return { status: 422, body: '{}' }
  const kept = [...living].filter(([address, entry]) =>
    Object.entries(TESTS).every(([name, test]) => {
      const value = query.get(name)
      return value === null || test(entry, value, address)
    }),
  )
  return { status: 200, ...write(kept, query) }
}

const TESTS: Record<string, (entry: Entry, value: string, address: string) => boolean> = {
  dataset: (entry, value) => entry.dataset === value,
  reported_before: (entry, value) => entry.last_report < Number(value) * 1000,
  reported_after: (entry, value) => entry.last_report > Number(value) * 1000,
  expires_before: (entry, value) => entry.expiry < Number(value) * 1000,
  expires_after: (entry, value) => entry.expiry > Number(value) * 1000,
  greater_than: (entry, value) => entry.total_reports > Number(value),
  less_than: (entry, value) => entry.total_reports < Number(value),
  ip_protocol_version: (_, value, address) => value === 'ALL' || value === `IPV${isIP(address)}`,
}

function write(kept: [string, Entry][], query: URLSearchParams): { body: string } {
  const format = query.get('output_format') ?? 'JSON'
  const width = (text: string) => (isIP(text) === 4 ? 32 : 128)
  if (format === 'CSV') {
    const rows = kept.map(([text, e]) => `${text},${e.last_report},${e.expiry},${e.dataset}`)
    return { body: `${['address,last_report,expiry,dataset', ...rows].join('\r\n')}\r\n` }
  }
  if (format === 'AWS-WAF') {
    return { body: JSON.stringify({ Addresses: kept.map(([text]) => `${text}/${width(text)}`) }) }
  }
  const addresses = kept.map(([text, entry]) => ({
    self: `${REPORTED}/${text}`,
    ...entry,
    dataset: `/v1/dataset/ip/${entry.dataset}`,
    protocol: `IPV${isIP(text)}`,
  }))
  return { body: JSON.stringify({ self: REPORTED, addresses }) }
}
