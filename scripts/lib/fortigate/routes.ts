import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import { now } from '../lease.ts'
import type { Feed as FeedSettings } from '../settings/fortigate.ts'
import type { Activity } from './activity.ts'
import type { Feed } from './feed.ts'
import { isUnchanged, lastModified, wantsGzip } from './negotiate.ts'
import { FAVICON, page, SECURITY } from './page.ts'
import type { Receiver } from './receiver.ts'
import type { Part } from './render.ts'
import { sameSecret } from './secret.ts'
import { metrics, type Status } from './status.ts'

/** What the routes need. */
export interface Site {
  settings: FeedSettings
  /** Shown as the page's heading: whose list this is. */
  owner: string
  feed: Feed
  receiver: Receiver
  activity: Activity
  status(): Promise<Status>
  log(line: string): void
}

/** What is sent; `content-length` is added. */
export type Answer = { status: number; headers?: OutgoingHttpHeaders; body?: Uint8Array | string }

const TEXT = { 'content-type': 'text/plain; charset=utf-8' }

const PARTS = new Map<string, Part>([
  ['/blocked-ips', 'all'],
  ['/blocked-ips/ipv4', 'ipv4'],
  ['/blocked-ips/ipv6', 'ipv6'],
])

/** Answers whatever is asked. @throws Failure 75 if the list is missing or unreadable */
export async function answer(site: Site, request: IncomingMessage): Promise<Answer> {
  const [path = '', query = ''] = (request.url ?? '').split('?', 2)
  if (path === '/receive-logs') {
    if (request.method !== 'POST') return { status: 405, headers: { allow: 'POST' } }
    return { status: await site.receiver.receive(request) }
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return { status: 405, headers: { allow: 'GET, HEAD' } }
  }
  if (path === '/healthz') return health(site)
  if (!isLoggedIn(site.settings, request.headers.authorization)) return loginWanted()
  const part = PARTS.get(path.replace(/\/$/, ''))
  if (part) return list(site, part, request)
  if (path === '/') return statusPage(site, new URLSearchParams(query))
  if (path === '/metrics') return metricsText(site)
  if (path === '/favicon.svg') return FAVICON
  return { status: 404, headers: TEXT, body: 'There is no such page\n' }
}

async function list(site: Site, part: Part, request: IncomingMessage): Promise<Answer> {
  const gzipped = wantsGzip(request.headers['accept-encoding'])
  const { bytes, etag, modified } = await site.feed.serve(part, gzipped)
  const headers = {
    ...TEXT,
    etag,
    'last-modified': lastModified(modified),
    'cache-control': 'no-cache',
    vary: 'accept-encoding',
    ...(gzipped && { 'content-encoding': 'gzip' }),
  }
  const status = isUnchanged(request.headers, etag, modified) ? 304 : 200
  const { remoteAddress = '' } = request.socket
  site.activity.pulled(remoteAddress, request.headers['user-agent'] ?? '', status, now())
  return status === 304 ? { status, headers } : { status, headers, body: bytes }
}

async function health({ feed }: Site): Promise<Answer> {
  await feed.snapshot()
  return { status: 200, headers: TEXT, body: 'ok\n' }
}

async function statusPage(site: Site, query: URLSearchParams): Promise<Answer> {
  const words = (query.get('q') ?? '').slice(0, 80)
  const status = await site.status()
  const found = status.snapshot ? await site.feed.search(words, 200) : undefined
  const view = { ...site, status, found, words, refresh: query.has('refresh') }
  return { status: 200, headers: SECURITY, body: page(view) }
}

async function metricsText(site: Site): Promise<Answer> {
  const text = metrics(await site.status(), site.activity, site.settings.stale_after)
  return { status: 200, headers: { 'content-type': 'text/plain; version=0.0.4' }, body: text }
}

function loginWanted(): Answer {
  const challenge = 'Basic realm="fail2ban-perimeter", charset="UTF-8"'
  return { status: 401, headers: { 'www-authenticate': challenge } }
}

function isLoggedIn({ user, pass }: FeedSettings, header = ''): boolean {
  if (user === undefined) return true
  const [, credentials = ''] = /^Basic ([A-Za-z0-9+/=]{1,512})$/i.exec(header) ?? []
  return sameSecret(Buffer.from(credentials, 'base64').toString(), `${user}:${pass}`)
}
