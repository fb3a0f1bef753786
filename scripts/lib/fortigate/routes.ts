import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import type { Address } from '../address.ts'
import { now } from '../lease.ts'
import type { Feed as FeedSettings } from '../settings/fortigate.ts'
import type { Activity } from './activity.ts'
import type { Feed, Served } from './feed.ts'
import type { Guesses } from './guesses.ts'
import { isUnchanged, lastModified, wantsGzip } from './negotiate.ts'
import { FAVICON, page, SECURITY } from './page.ts'
import type { Receiver } from './receiver.ts'
import type { Part } from './render.ts'
import { sameSecret } from './secret.ts'
import { askerOf, sourceOf } from './source.ts'
import { metrics, type Status } from './status.ts'

/** What the routes need. */
export interface Site {
  settings: FeedSettings
  /** Those whose X-Forwarded-For is believed. */
  proxies: readonly Address[]
  /** Shown as the page's heading: whose list this is. */
  owner: string
  feed: Feed
  receiver: Receiver
  activity: Activity
  guesses: Guesses
  status(): Promise<Status>
  log(line: string): void
}

/** What is sent. Headers in a list, name and value in turns, are complete; else some are added. */
export type Answer = {
  status: number
  headers?: OutgoingHttpHeaders | string[]
  body?: Uint8Array | string
}

/** Nobody shall guess a type that we did not say. */
export const NOSNIFF = { 'x-content-type-options': 'nosniff' }
const TEXT = { 'content-type': 'text/plain; charset=utf-8' }

const LOGIN_WANTED: Answer = {
  status: 401,
  headers: { 'www-authenticate': 'Basic realm="fail2ban-perimeter", charset="UTF-8"' },
}
const TOO_MANY: Answer = { status: 429, headers: { 'retry-after': '10', connection: 'close' } }

const PARTS = new Map<string, Part>([
  ['/blocked-ips', 'all'],
  ['/blocked-ips/ipv4', 'ipv4'],
  ['/blocked-ips/ipv6', 'ipv6'],
])

/**
 * Answers whatever is asked; with a promise only where something has to be waited for.
 *
 * @throws Failure 75 if the list is missing or unreadable
 */
export function answer(site: Site, request: IncomingMessage): Answer | Promise<Answer> {
  // A proxy may name the whole URL (RFC 9112, 3.2.2).
  const [path = '', query = ''] = (request.url ?? '')
    .replace(/^https?:\/\/[^/?]*/i, '')
    .split('?', 2)
  if (path === '/receive-logs') {
    if (request.method !== 'POST') return { status: 405, headers: { allow: 'POST' } }
    return site.receiver.receive(request).then((status) => ({ status }))
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return { status: 405, headers: { allow: 'GET, HEAD' } }
  }
  if (path === '/healthz') return health(site)
  const right = isLoggedIn(site.settings, request.headers.authorization)
  // A browser's first question has no login, and is no guess.
  if (!right && request.headers.authorization === undefined) return LOGIN_WANTED
  const from = sourceOf(askerOf(request, site.proxies))
  const wait = site.guesses.judge(from, right)
  if (wait === undefined) return TOO_MANY
  if (wait === 0) return content(site, request, path, query)
  return wait.then(() => (right ? content(site, request, path, query) : LOGIN_WANTED))
}

/** What only those get who have logged in. */
function content(
  site: Site,
  request: IncomingMessage,
  path: string,
  query: string,
): Answer | Promise<Answer> {
  const part = PARTS.get(path.replace(/\/$/, ''))
  if (part) return list(site, part, request)
  if (path === '/' || path === '') return statusPage(site, new URLSearchParams(query))
  if (path === '/metrics') return metricsText(site)
  if (path === '/favicon.svg') return FAVICON
  return { status: 404, headers: TEXT, body: 'There is no such page\n' }
}

function list(site: Site, part: Part, request: IncomingMessage): Answer | Promise<Answer> {
  const served = site.feed.serve(part, wantsGzip(request.headers['accept-encoding']))
  if (!(served instanceof Promise)) return pulled(site, request, served)
  return served.then((made) => pulled(site, request, made))
}

/** The whole list, or that it is unchanged; either way somebody has fetched it. */
function pulled(site: Site, request: IncomingMessage, served: Served): Answer {
  const { unchanged, whole } = answersOf(served)
  const known = isUnchanged(request.headers, served.etag, served.modified)
  const made = known ? unchanged : whole
  const asker = askerOf(request, site.proxies)
  site.activity.pulled(asker, request.headers['user-agent'] ?? '', made.status, now())
  return made
}

/** The two answers about one content, made once for all who ask. */
interface Answers {
  modified: number
  unchanged: Answer
  whole: Answer
}

const prepared = new WeakMap<Served, Answers>()

function answersOf(served: Served): Answers {
  const modified = lastModified(served.modified)
  const known = prepared.get(served)
  if (known?.modified === modified) return known
  const { bytes, etag, gzipped } = served
  const headers = Object.entries({
    ...NOSNIFF,
    ...TEXT,
    etag,
    'last-modified': new Date(modified * 1000).toUTCString(),
    'cache-control': 'no-cache',
    vary: 'accept-encoding',
    ...(gzipped && { 'content-encoding': 'gzip' }),
  }).flat()
  const length = ['content-length', String(bytes.length)]
  const answers = {
    modified,
    unchanged: { status: 304, headers },
    whole: { status: 200, headers: [...headers, ...length], body: bytes },
  }
  prepared.set(served, answers)
  return answers
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

function isLoggedIn({ user, pass }: FeedSettings, header = ''): boolean {
  if (user === undefined) return true
  const [, credentials = ''] = /^Basic ([A-Za-z0-9+/=]{1,512})$/i.exec(header) ?? []
  return sameSecret(Buffer.from(credentials, 'base64').toString(), `${user}:${pass}`)
}
