/** What simulated appliances with a JSON API over TLS share: one queue, latency, and how answers get lost. */
import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'

const FIXTURES = join(import.meta.dirname, '../fixtures/sophosxg')

/** How an answer can be lost: the connection resets, hangs, is cut, or a page comes instead. */
export type Mishap =
  | 'reset'
  | 'hang'
  | 'cut'
  | 'html'
  | 'empty'
  | '401'
  | '403'
  | '429'
  | '500'
  | '503'

/** What may go wrong with any appliance. */
export interface Mishaps {
  /** Requests that are served well before the faults begin, and how many then suffer. */
  skip: number
  times: number
  resetConnections: boolean
  /** Goes wrong before or after the request is carried out. */
  before?: Mishap | undefined
  after?: Mishap | undefined
  /** Each answer that is no success repeats the request's credentials. */
  echo: boolean
}

export const NO_MISHAPS: Mishaps = {
  skip: 0,
  times: Number.POSITIVE_INFINITY,
  resetConnections: false,
  echo: false,
}

export interface Asked {
  method: string
  /** Path and query. */
  path: string
  headers: IncomingMessage['headers']
  body: string
}

export interface Answer {
  status: number
  body?: unknown
  /** Seconds that the appliance works on it. */
  seconds: number
  /** It changed something. */
  wrote?: boolean
}

/** A request as the appliance's log has it. */
export interface Logged {
  method: string
  path: string
  body: string
  status: number
  wrote: boolean
  seconds: number
}

export abstract class ApplianceSimulator<Faults extends Mishaps> {
  readonly log: Logged[] = []
  abstract faults: Faults
  /** Seconds of the appliance that one second here stands for; 0 answers at once. */
  scale = 0
  readonly #server: Server
  readonly #certificate: string
  readonly #sockets = new Set<Duplex>()
  #queue: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(certificate: 'box' | 'other' = 'box') {
    this.#certificate = join(FIXTURES, certificate)
    const tls = {
      key: readFileSync(`${this.#certificate}.key`),
      cert: readFileSync(`${this.#certificate}.pem`),
    }
    this.#server = createServer(tls, (request, response) => void this.#receive(request, response))
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
      if (this.faults.resetConnections) socket.destroy()
    })
    this.#server.on('tlsClientError', () => {})
  }

  /** What the appliance does with a request; it is asked one at a time. */
  protected abstract answer(asked: Asked, faults: Faults): Answer

  /** The path of the certificate, for `ca`. */
  get ca(): string {
    return `${this.#certificate}.pem`
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Seconds that it has worked since a mark in the log. */
  worked(from = 0): number {
    return this.log.slice(from).reduce((sum, { seconds }) => sum + seconds, 0)
  }

  writes(from = 0): Logged[] {
    return this.log.slice(from).filter(({ wrote }) => wrote)
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

  async #receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const { method = '', url: path = '', headers } = request
    const asked = { method, path, headers, body: Buffer.concat(chunks).toString() }
    const turn = this.#queue.then(() => this.#serve(asked, response))
    this.#queue = turn.catch(() => {})
    await turn.catch(() => response.destroy())
  }

  async #serve(asked: Asked, response: ServerResponse): Promise<void> {
    const isDue = this.faults.skip-- <= 0 && this.faults.times-- > 0
    const { before, after, echo } = isDue ? this.faults : NO_MISHAPS
    if (before) return misbehave(before, response)
    const faults = isDue ? this.faults : { ...this.faults, ...this.healthy() }
    const { status, body, seconds, wrote = false } = this.answer(asked, faults)
    const { method, path } = asked
    this.log.push({ method, path, body: asked.body, status, wrote, seconds })
    if (this.scale > 0 && !this.#closed) {
      await new Promise((resolve) => setTimeout(resolve, (seconds * 1000) / this.scale))
    }
    if (after) return misbehave(after, response)
    const said =
      echo && status >= 300 ? { ...(body as object), detail: asked.headers.authorization } : body
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(said === undefined ? undefined : JSON.stringify(said))
  }

  /** The switches of this appliance as they are when nothing is wrong. */
  protected abstract healthy(): Faults
}

function misbehave(how: Mishap, response: ServerResponse): void {
  if (how === 'reset') response.socket?.resetAndDestroy()
  else if (how === 'cut') {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': '5000' })
    response.write('[{".id":"*1",')
    setTimeout(() => response.socket?.destroy(), 20)
  } else if (how === 'empty') response.writeHead(200).end()
  else if (how !== 'hang') {
    response.writeHead(how === 'html' ? 200 : Number(how), { 'content-type': 'text/html' })
    response.end('<html><body>Login succeeded</body></html>')
  }
}
