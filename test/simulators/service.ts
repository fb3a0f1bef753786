import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A request as it arrived, and what it was answered with. */
export interface Seen {
  at: number
  method: string
  /** Path and query. */
  path: string
  headers: Record<string, string>
  body: string
  status: number
}

export interface Reply {
  status: number
  headers?: Record<string, string>
  body?: string
}

/** What may go wrong with a service that has nothing to do with what it is for. */
export interface Faults {
  /** Answers everything with this status. */
  status?: number
  /** `Retry-After` of every 429. */
  retryAfter?: string
  /** Accepts the request and never answers. */
  hang?: boolean
  /** Breaks the connection in place of an answer. */
  reset?: boolean
  /** Does what was asked, and then breaks the connection. */
  lost?: boolean
  /** Puts the caller's headers into the body of every answer that is not a success. */
  echo?: boolean
  /** Answers with this body in place of the right one. */
  garbage?: string
  /** Answers with a redirect to here. */
  redirect?: string
}

/** Serves one host of a service on the loopback address. */
export interface Host {
  url: string
  close(): Promise<void>
}

/**
 * Starts a host. Every request is recorded in `seen`, also those that a fault swallows.
 *
 * @param answer what the service does; its faults are looked at first
 */
export async function startHost(
  seen: Seen[],
  faults: Faults,
  now: () => number,
  answer: (request: Seen) => Reply,
): Promise<Host> {
  const server = createServer(async (request, response) => {
    const call = await readRequest(request, now())
    seen.push(call)
    if (faults.hang) return
    if (faults.reset) return void request.socket.destroy()
    const reply = faulty(faults, call) ?? answer(call)
    call.status = reply.status
    if (faults.lost) return void request.socket.destroy()
    send(response, faults, call, reply)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** A count of calls in any so many milliseconds, as a service keeps it. */
export class Quota {
  readonly #calls: number
  readonly #window: number
  #at: number[] = []

  constructor(calls: number, window: number) {
    this.#calls = calls
    this.#window = window
  }

  /** Seconds to wait, or 0 if the call is allowed (and counted). */
  take(now: number): number {
    this.#at = this.#at.filter((at) => at > now - this.#window)
    const oldest = this.#at[0]
    if (this.#at.length >= this.#calls) {
      return Math.ceil(((oldest ?? now) + this.#window - now) / 1000)
    }
    this.#at.push(now)
    return 0
  }

  get left(): number {
    return this.#calls - this.#at.length
  }
}

function faulty(faults: Faults, call: Seen): Reply | undefined {
  if (faults.redirect) return { status: 307, headers: { location: faults.redirect + call.path } }
  if (faults.status !== undefined) return { status: faults.status, body: '{}' }
  return undefined
}

function send(response: ServerResponse, faults: Faults, call: Seen, reply: Reply): void {
  const retry = reply.status === 429 && faults.retryAfter !== undefined
  const headers = { ...reply.headers, ...(retry && { 'retry-after': faults.retryAfter }) }
  const echo = faults.echo && reply.status >= 300 ? JSON.stringify(call.headers) : undefined
  response.writeHead(reply.status, headers as Record<string, string>)
  response.end(faults.garbage ?? echo ?? reply.body ?? '')
}

async function readRequest(request: IncomingMessage, at: number): Promise<Seen> {
  const parts: Buffer[] = []
  for await (const part of request) parts.push(part as Buffer)
  const headers = Object.entries(request.headers).map(([name, value]) => [name, String(value)])
  return {
    at,
    method: request.method ?? '',
    path: request.url ?? '',
    headers: Object.fromEntries(headers),
    body: Buffer.concat(parts).toString('utf8'),
    status: 0,
  }
}

/** Public addresses as mere text for tests: documentation ranges are never reported. */
export function publicAddress(n: number): string {
  return `1.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`
}
