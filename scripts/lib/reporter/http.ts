import type { Agent } from 'undici'
import { EXIT, Failure } from '../failure.ts'

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
  UND_ERR_CONNECT_TIMEOUT: 'no connection in time',
}

/** A connection to one service, opened with the first request. */
export class Http {
  readonly #key: string
  #agent: Agent | undefined

  /** @param key is struck out of every answer, whatever a service may echo */
  constructor(key: string) {
    this.#key = key
  }

  /**
   * Sends a request and reads the whole answer. Redirects are not followed: the key would be, too.
   *
   * @throws Failure 69 if no connection came about, 75 if it broke or took too long, 76 if the
   * answer is too long, 77 if the certificate is not one we trust
   */
  async send(ask: Ask, signal: AbortSignal): Promise<Answer> {
    // 60 ms to load: only a process that really calls pays for it.
    const { Agent, request } = await import('undici')
    this.#agent ??= new Agent({ connect: { timeout: CONNECT }, maxResponseSize: LONGEST_ANSWER })
    try {
      const answer = await request(ask.url, {
        dispatcher: this.#agent,
        method: ask.method,
        headers: ask.headers,
        ...(ask.body !== undefined && { body: ask.body }),
        signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST)]),
      })
      const text = (await answer.body.text()).replaceAll(this.#key, '***')
      const headers = Object.entries(answer.headers).map(([name, value]) => [name, String(value)])
      return { status: answer.statusCode, headers: Object.fromEntries(headers), text }
    } catch (error) {
      throw sendFailure(error)
    }
  }

  /** Lets the process end; the next request opens it again. */
  async close(): Promise<void> {
    await this.#agent?.destroy()
    this.#agent = undefined
  }
}

/** Never the library's own words: they may quote what was sent. */
function sendFailure(error: unknown): Failure {
  const { code = '', name = '' } = (error ?? {}) as { code?: string; name?: string }
  const never = NEVER_CONNECTED[code]
  if (never) return new Failure(EXIT.unreachable, `cannot connect: ${never}`)
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL/.test(code)) {
    return new Failure(EXIT.refused, `its certificate is not one we trust (${code})`)
  }
  if (code === 'UND_ERR_RES_EXCEEDED_MAX_SIZE') {
    return new Failure(EXIT.unexpected, 'the answer is too long')
  }
  if (name === 'AbortError' || name === 'TimeoutError' || /TIMEOUT/.test(code)) {
    return new Failure(EXIT.temporary, 'no answer in time')
  }
  return new Failure(EXIT.temporary, `the connection broke (${code || 'unknown'})`)
}
