import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import * as http from 'node:http'
import * as https from 'node:https'
import { createSecureContext } from 'node:tls'
import { handedOver } from '../config.ts'
import { EXIT, Failure, ioFailure, messageOf } from '../failure.ts'
import { type Answer, answer, NOSNIFF, type Site } from './routes.ts'
import { limitConnections } from './source.ts'
import { span } from './status.ts'

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
/** How long TLS may take to begin; Node's own limit is two minutes. */
const HANDSHAKE_MS = 5_000
const WEEK_MS = 7 * 86_400_000
/** How long a sender may go on after we have answered. */
const LINGER_MS = 1_000

/** What `serve` has started. */
export interface Served {
  server: http.Server
  /** Takes up a renewed certificate, if there is one. @returns what is wrong with the one there is */
  renew(): string | undefined
}

/** Starts the server. @throws Failure 75 or 78 */
export async function serve(site: Site): Promise<Served> {
  const { listen, user, cert_file } = site.settings
  if (!isLoopback(listen.host) && user === undefined) {
    const text = `Cannot listen on "${listen.host}" without a login: set "user" and "pass_file"`
    throw new Failure(EXIT.config, text)
  }
  const server = makeServer(site)
  server.maxRequestsPerSocket = 1_000
  server.setTimeout(IDLE_MS)
  server.on('connection', limitConnections(site.proxies))
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(ioFailure(`listen on ${listen.host}:${listen.port}`, error)),
    )
    server.listen(listen.port, listen.host, resolve)
  })
  if (!isLoopback(listen.host) && !cert_file) {
    site.log('warning: the login crosses the network in the clear: set "cert_file" and "key_file"')
  }
  return { server, renew: renewal(server, site) }
}

function renewal(server: http.Server, { settings, log }: Site): () => string | undefined {
  const { cert_file, key_file } = settings
  if (!(server instanceof https.Server) || !cert_file) return () => undefined
  const read = (): string[] =>
    [cert_file, key_file ?? []].flat().map((path) => readFileSync(handedOver(path), 'utf8'))
  let used: (string | undefined)[] = [...read(), settings.key].slice(0, 2)
  return () => {
    try {
      const [cert = '', key = settings.key] = read()
      if (cert !== used[0] || key !== used[1]) {
        createSecureContext({ cert, key }) // or the server would be left without one
        server.setSecureContext({ cert, key })
        log(`took up the renewed certificate "${cert_file}"`)
        used = [cert, key]
      }
      const { validFrom, validTo } = new X509Certificate(cert)
      const [begin, end] = [Date.parse(validFrom), Date.parse(validTo)]
      // Some live for days only.
      const isLate = end - Date.now() < Math.min(WEEK_MS, (end - begin) / 4)
      if (!isLate) return undefined
      return `Certificate "${cert_file}" ends in ${span((end - Date.now()) / 1000)}: renew it.`
    } catch (error) {
      return `Cannot use certificate "${cert_file}", the one before is used: ${messageOf(error)}`
    }
  }
}

function makeServer(site: Site): http.Server {
  const { cert_file, key } = site.settings
  const handler: http.RequestListener = (request, response) => void handle(site, request, response)
  if (!cert_file || key === undefined) return http.createServer(LIMITS, handler)
  try {
    const cert = readFileSync(handedOver(cert_file))
    return https.createServer({ ...LIMITS, handshakeTimeout: HANDSHAKE_MS, cert, key }, handler)
  } catch (error) {
    throw new Failure(EXIT.config, `Cannot use certificate "${cert_file}": ${messageOf(error)}`)
  }
}

async function handle(
  site: Site,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  try {
    const made = answer(site, request)
    send(request, response, made instanceof Promise ? await made : made)
  } catch (error) {
    if (request.socket.destroyed) return
    const temporary = error instanceof Failure
    if (!temporary) site.log(`bug, please report it: ${messageOf(error)}`)
    send(request, response, { status: temporary ? 503 : 500 })
  }
}

function send(request: http.IncomingMessage, response: http.ServerResponse, made: Answer): void {
  const { status, headers, body } = made
  response.writeHead(status, Array.isArray(headers) ? headers : complete(made, headers))
  response.end(request.method === 'HEAD' ? undefined : body)
  if (request.method === 'POST' && !request.complete) cutOff(request)
}

function complete(
  { status, body }: Answer,
  headers: http.OutgoingHttpHeaders | undefined,
): http.OutgoingHttpHeaders {
  const length = body === undefined ? 0 : Buffer.byteLength(body)
  const bare = status === 204 || status === 304
  return { ...NOSNIFF, ...(!bare && { 'content-length': length }), ...headers }
}

/** Ends a body that we will not read; not at once, or our answer might not arrive. */
function cutOff(request: http.IncomingMessage): void {
  request.resume()
  setTimeout(() => request.complete || request.socket.destroy(), LINGER_MS).unref()
}

function isLoopback(host: string): boolean {
  return host === '::1' || host.startsWith('127.')
}
