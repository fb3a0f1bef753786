/**
 * A Sophos firewall's XML API, as strict as facts/sophos.md section 10 says: one global queue, the
 * quirks of real boxes, and a switch for each way it can fail. Tests and the demo talk to it over
 * real TLS.
 */
import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { type Faults, NO_FAULTS } from './sophosxg/faults.ts'
import { handle } from './sophosxg/protocol.ts'
import { readRequestXml } from './sophosxg/requests.ts'
import { type Box, seedBox } from './sophosxg/state.ts'

const FIXTURES = join(import.meta.dirname, '../fixtures/sophosxg')

/** What the simulator was asked, for tables of requests and bytes. */
export interface Logged {
  verb: string
  kind: string
  /** Objects named in the request. */
  names: string[]
  /** True if the request changed something. */
  wrote: boolean
  /** Bytes of the request's URL and body, and of the answer's body. */
  sent: number
  received: number
  /** The request line: a secret in it would be in the box's web log. */
  line: string
}

export interface Options {
  user?: string
  pass?: string
  /** Seconds on a real box that one second here stands for; 0 answers at once. */
  scale?: number
  certificate?: 'box' | 'other'
}

export class SophosSimulator {
  readonly box: Box
  readonly log: Logged[] = []
  /** When requests came, those that a fault swallows included: milliseconds that only grow. */
  readonly arrived: number[] = []
  faults: Faults = { ...NO_FAULTS }
  readonly #server: Server
  readonly #options: Required<Options>
  readonly #sockets = new Set<Duplex>()
  #queue: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(options: Options = {}) {
    this.#options = { user: 'apiuser', pass: 'secret', scale: 0, certificate: 'box', ...options }
    this.box = seedBox(this.#options)
    const file = join(FIXTURES, this.#options.certificate)
    const tls = { key: readFileSync(`${file}.key`), cert: readFileSync(`${file}.pem`) }
    this.#server = createServer(tls, (request, response) => void this.#receive(request, response))
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
      if (this.faults.resetConnections) socket.destroy()
    })
    this.#server.on('tlsClientError', () => {})
  }

  /** The path of the certificate, for `ca`. */
  get ca(): string {
    return join(FIXTURES, `${this.#options.certificate}.pem`)
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get url(): string {
    return `https://127.0.0.1:${this.port}/webconsole/APIController`
  }

  async listen(port = 0, address = '127.0.0.1'): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(port, address, resolve))
    return this
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  /** Requests that changed something since a mark in the log. */
  writes(from = 0): Logged[] {
    return this.log.slice(from).filter((entry) => entry.wrote)
  }

  async #receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    // One request after the other, however many arrive at once: quirk 4.
    const turn = this.#queue.then(() => this.#serve(request, body, response))
    this.#queue = turn.catch(() => {})
    await turn.catch(() => response.destroy())
  }

  async #serve(request: IncomingMessage, body: Buffer, response: ServerResponse): Promise<void> {
    const { pathname } = new URL(request.url ?? '/', 'https://box')
    if (pathname !== '/webconsole/APIController') {
      response.writeHead(404, { 'content-type': 'text/html' }).end('<html>not found</html>')
      return
    }
    this.arrived.push(performance.now())
    const faults = this.#due()
    if (faults.refuseBefore) return void this.#misbehave(faults, response)
    const xml = readRequestXml(request, body)
    const result = handle(this.box, xml, faults)
    const entry = {
      ...result,
      sent: body.length + (request.url ?? '').length,
      line: `${request.method} ${request.url}`,
    }
    const { verb, kind, names, wrote, sent, line } = entry
    this.log.push({ verb, kind, names, wrote, sent, received: result.xml.length, line })
    await this.#wait(wrote ? 6 : 1)
    if (faults.refuseAfter) return void this.#misbehave(faults, response)
    response.writeHead(200, { 'content-type': 'text/xml' }).end(faults.mangle(result.xml))
  }

  /** The faults for this request; a switch may be limited to a number of requests. */
  #due(): Faults {
    if (this.faults.skip > 0) {
      this.faults.skip--
      return NO_FAULTS
    }
    if (this.faults.times <= 0) return NO_FAULTS
    this.faults.times--
    return this.faults
  }

  #misbehave(faults: Faults, response: ServerResponse): void {
    const how = faults.refuseBefore ?? faults.refuseAfter
    if (how === 'reset') response.socket?.resetAndDestroy()
    else if (how === 'cut') {
      response.writeHead(200, { 'content-type': 'text/xml', 'content-length': '5000' })
      response.write('<?xml version="1.0"?><Response><Login>')
      setTimeout(() => response.socket?.destroy(), 20)
    } else if (how !== 'hang') {
      const retry = faults.retryAfter && { 'retry-after': faults.retryAfter }
      response.writeHead(Number(how), { 'content-type': 'text/html', ...retry })
      response.end('<html><body>Authentication Successful</body></html>')
    }
  }

  async #wait(seconds: number): Promise<void> {
    if (this.#options.scale === 0 || this.#closed) return
    await new Promise((resolve) => setTimeout(resolve, (seconds * 1000) / this.#options.scale))
  }
}
