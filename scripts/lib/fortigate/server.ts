import { readFileSync } from 'node:fs'
import * as http from 'node:http'
import * as https from 'node:https'
import type { Socket } from 'node:net'
import { handedOver } from '../config.ts'
import { EXIT, Failure, ioFailure, messageOf } from '../failure.ts'
import { now } from '../lease.ts'
import type { Feed as FeedSettings } from '../settings/fortigate.ts'
import type { Activity } from './activity.ts'
import type { Feed } from './feed.ts'
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

type Answer = { status: number; headers?: http.OutgoingHttpHeaders; body?: Uint8Array | string }

const TEXT = { 'content-type': 'text/plain; charset=utf-8' }

const PARTS: Record<string, Part> = {
  '/blocked-ips': 'all',
  '/blocked-ips/ipv4': 'ipv4',
  '/blocked-ips/ipv6': 'ipv6',
}

// Node's own limits are a minute or more, and without the checking interval they bite up to 30 s
// late (measured, facts/security-broker.md section 6).
const LIMITS = {
  headersTimeout: 5_000,
  requestTimeout: 10_000,
  connectionsCheckingInterval: 1_000,
  keepAliveTimeout: 5_000,
  maxHeaderSize: 16 * 1024,
}
const IDLE_MS = 30_000
const MAX_CONNECTIONS = 512
const MAX_PER_SOURCE = 64
/** How long a sender may go on after we have answered. */
const LINGER_MS = 1_000

/** Starts the server. @throws Failure 75 or 78 */
export async function serve(site: Site): Promise<http.Server> {
  const { listen, user, cert_file } = site.settings
  if (!isLoopback(listen.host) && user === undefined) {
    const text = `Cannot listen on "${listen.host}" without a login: set "user" and "pass_file"`
    throw new Failure(EXIT.config, text)
  }
  const server = makeServer(site)
  server.maxConnections = MAX_CONNECTIONS
  server.maxRequestsPerSocket = 1_000
  server.setTimeout(IDLE_MS)
  server.on('connection', perSource())
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(ioFailure(`listen on ${listen.host}:${listen.port}`, error)),
    )
    server.listen(listen.port, listen.host, resolve)
  })
  if (!isLoopback(listen.host) && !cert_file) {
    site.log('warning: the login crosses the network in the clear: set "cert_file" and "key_file"')
  }
  return server
}

function makeServer(site: Site): http.Server {
  const { cert_file, key } = site.settings
  const handler: http.RequestListener = (request, response) => void handle(site, request, response)
  if (!cert_file || key === undefined) return http.createServer(LIMITS, handler)
  try {
    return https.createServer(
      { ...LIMITS, cert: readFileSync(handedOver(cert_file)), key },
      handler,
    )
  } catch (error) {
    throw new Failure(EXIT.config, `Cannot use certificate "${cert_file}": ${messageOf(error)}`)
  }
}

/** Keeps one address from taking every connection. */
function perSource(): (socket: Socket) => void {
  const open = new Map<string, number>()
  return (socket) => {
    const from = socket.remoteAddress ?? ''
    const count = (open.get(from) ?? 0) + 1
    open.set(from, count)
    if (count > MAX_PER_SOURCE) socket.destroy()
    socket.once('close', () => {
      const left = (open.get(from) ?? 1) - 1
      if (left > 0) open.set(from, left)
      else open.delete(from)
    })
  }
}

async function handle(
  site: Site,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  try {
    send(request, response, await answer(site, request))
  } catch (error) {
    if (request.socket.destroyed) return
    const temporary = error instanceof Failure
    if (!temporary) site.log(`bug, please report it: ${messageOf(error)}`)
    send(request, response, { status: temporary ? 503 : 500 })
  }
}

function send(request: http.IncomingMessage, response: http.ServerResponse, made: Answer): void {
  const { status, headers, body } = made
  response.writeHead(status, {
    'x-content-type-options': 'nosniff',
    ...(body === undefined && status !== 204 && status !== 304 && { 'content-length': 0 }),
    ...(body !== undefined && { 'content-length': Buffer.byteLength(body) }),
    ...headers,
  })
  response.end(request.method === 'HEAD' ? undefined : body)
  if (request.method === 'POST' && !request.complete) cutOff(request)
}

/** Ends a body that we will not read; not at once, or our answer might not arrive. */
function cutOff(request: http.IncomingMessage): void {
  request.resume()
  setTimeout(() => request.complete || request.socket.destroy(), LINGER_MS).unref()
}

async function answer(site: Site, request: http.IncomingMessage): Promise<Answer> {
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
  const part = PARTS[path.replace(/\/$/, '')]
  if (part) return list(site, part, request)
  if (path === '/') return statusPage(site, new URLSearchParams(query))
  if (path === '/metrics') return metricsText(site)
  if (path === '/favicon.svg') return FAVICON
  return { status: 404, headers: TEXT, body: 'There is no such page\n' }
}

async function list(site: Site, part: Part, request: http.IncomingMessage): Promise<Answer> {
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

/**
 * The list may change again within the second that is the present one. Until it is over, the time
 * before is given, so that nobody who asks by time alone is told "unchanged" about the second change.
 */
function lastModified(modified: number): string {
  return new Date(Math.min(modified, now() - 1) * 1000).toUTCString()
}

/** If-None-Match decides if it is there (RFC 9110, 13.1.3), else If-Modified-Since. */
function isUnchanged(headers: http.IncomingHttpHeaders, etag: string, modified: number): boolean {
  const tags = headers['if-none-match']
  if (tags !== undefined) {
    return tags.split(',').some((tag) => ['*', etag].includes(tag.trim().replace(/^W\//, '')))
  }
  const since = Date.parse(headers['if-modified-since'] ?? '')
  return modified * 1000 <= since
}

/** `gzip` or `*` with a weight above zero. */
function wantsGzip(header: string | string[] | undefined): boolean {
  return String(header ?? '')
    .split(',')
    .some((item) => /^\s*(x-)?gzip\s*(;\s*q=(1|0?\.0*[1-9]).*)?$/i.test(item))
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

function isLoopback(host: string): boolean {
  return host === '::1' || host.startsWith('127.')
}
