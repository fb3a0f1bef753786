import type { ClientRequest, IncomingMessage } from 'node:http'
import { EXIT, Failure } from '../failure.ts'
import { readWhole } from '../whole.ts'

/** A request; the key stands in its headers and nowhere else. */
export interface Ask {
  method: 'GET' | 'POST' | 'DELETE'
  url: string
  headers: Record<string, string>
  body?: string
}

export interface Answer {
  status: number
  /** Names in lower case. */
  headers: Record<string, string>
  text: string
}

/** Milliseconds: to connect, and for one request in all. */
const CONNECT = 3_000
const REQUEST = 20_000

/** Bytes of an answer: the longest list that is worth reading. */
const LONGEST_ANSWER = 64 * 1024 * 1024

/** Why no connection came about; what is not here broke after it did. */
const NEVER_CONNECTED: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'its name cannot be looked up now',
  EHOSTUNREACH: 'no route to it',
  ENETUNREACH: 'no route to it',
  ETIMEDOUT: 'no connection in time',
}

/**
 * Sends a request and reads the whole answer. Redirects are not followed: the key would be, too.
 *
 * Node's own client: undici costs 90 ms of processor time to load, curl's whole call costs 10
 * (measured), and a process makes one call.
 *
 * @param key is struck out of the answer, whatever a service may echo
 * @throws Failure 69 if no connection came about, 75 if it broke or took too long, 76 if the
 * answer is too long, 77 if the certificate is not one we trust
 */
export async function send(key: string, ask: Ask, signal: AbortSignal): Promise<Answer> {
  const secure = ask.url.startsWith('https:')
  const { request } = secure ? await import('node:https') : await import('node:http')
  try {
    const call = request(ask.url, {
      method: ask.method,
      headers: ask.headers,
      agent: false,
      signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST)]),
    })
    limitConnect(call, secure ? 'secureConnect' : 'connect')
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      call.on('response', resolve).on('error', reject).end(ask.body)
    })
    const headers = Object.entries(answer.headers).map(([name, value]) => [name, String(value)])
    const text = await readWhole(answer, LONGEST_ANSWER)
    if (text === undefined) throw new Failure(EXIT.unexpected, 'the answer is too long')
    const told = { status: answer.statusCode ?? 0, headers: Object.fromEntries(headers) }
    return { ...told, text: text.replaceAll(key, '***') }
  } catch (error) {
    throw error instanceof Failure ? error : sendFailure(error)
  }
}

/** Gives up if the connection is not there in time. */
function limitConnect(call: ClientRequest, connected: string): void {
  const late = Object.assign(new Error('late'), { code: 'ETIMEDOUT' })
  const timer = setTimeout(() => call.destroy(late), CONNECT)
  call.on('socket', (socket) => socket.once(connected, () => clearTimeout(timer)))
  call.on('close', () => clearTimeout(timer))
}

/** Never the library's own words: they may quote what was sent. */
function sendFailure(error: unknown): Failure {
  const { code = '', name = '' } = (error ?? {}) as { code?: string; name?: string }
  const never = NEVER_CONNECTED[code]
  if (never) return new Failure(EXIT.unreachable, `cannot connect: ${never}`)
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL/.test(code)) {
    return new Failure(EXIT.refused, `its certificate is not one we trust (${code})`)
  }
  if (name === 'AbortError' || name === 'TimeoutError') {
    return new Failure(EXIT.temporary, 'no answer in time')
  }
  return new Failure(EXIT.temporary, `the connection broke (${code || 'unknown'})`)
}
