import { setTimeout as sleep } from 'node:timers/promises'
import { EXIT, Failure } from '../failure.ts'
import type { Agent } from '../http.ts'
import { readRetryAfter } from '../retry-after.ts'
import type { SophosXg } from '../settings/sophosxg.ts'
import type { Call } from '../target.ts'
import { distrustOf, noConnection, openAgent } from '../tls.ts'
import { readWhole } from '../whole.ts'
import { type Answer, describeStatus, LOGIN, readAnswer, type Status } from './answer.ts'
import {
  type Ask,
  buildRequest,
  describeAsk,
  expectedAnswers,
  type Filter,
  type Kind,
} from './request.ts'

/** The request went out and no answer came back: it may have been carried out or not. */
export class LostAnswer extends Failure {}

/** Nothing was carried out, so that trying again is harmless. */
class NotDone extends Failure {}

/** How often a request is tried in all. */
export const TRIES = 3

/** Bytes; 10,000 hosts are 4 MB. Reading this much takes some 3 s, in which nobody else is served. */
const LONGEST_ANSWER = 16 << 20

/** A kept-open connection to the XML API of one firewall. Close it, or the process lingers. */
export class Client {
  readonly #settings: SophosXg
  readonly #call: Pick<Call, 'signal' | 'say'>
  #agent: Agent | undefined
  #connected = false
  /** Milliseconds of `performance.now()` before which a busy box wants no request. */
  #restsUntil = 0
  /** Requests that were sent, for the tests and the figures of `--verbose`. */
  requests = 0

  constructor(settings: SophosXg, call: Pick<Call, 'signal' | 'say'>) {
    this.#settings = settings
    this.#call = call
  }

  /** Tests address, certificate, login and access. @throws Failure 69, 75, 76, 77 */
  async login(): Promise<void> {
    await this.#retry({ verb: 'Login' })
  }

  /** Reads objects; nothing found is an empty list. @throws Failure 69, 75, 76, 77 */
  async get(kind: Kind, filter?: Filter): Promise<Answer['found']> {
    const answer = await this.#retry({ verb: 'Get', kind, ...(filter && { filter }) })
    if (answer.found.length > 0) return answer.found
    const [status] = answer.statuses
    if (!status) throw new Failure(EXIT.unexpected, `answered nothing about ${kind}`)
    if (status.nothing) return []
    throw new Failure(EXIT.unexpected, `answered ${describeStatus(status)} when asked for ${kind}`)
  }

  /**
   * Changes objects. It is sent once: whoever calls knows how to look what became of it.
   *
   * @returns one status for each object, in order
   * @throws LostAnswer (75) if it may have been carried out; Failure 69, 76, 77
   */
  async write(ask: Ask): Promise<Status[]> {
    const { statuses } = await this.#untilTaken(() => this.#send(ask))
    const wanted = expectedAnswers(ask)
    if (statuses.length === wanted) return statuses
    throw new Failure(
      EXIT.unexpected,
      `answered ${statuses.length} of ${wanted} statuses, so nothing is known to be done`,
    )
  }

  async close(): Promise<void> {
    await this.#agent?.destroy()
    this.#agent = undefined
  }

  /** Reading may be repeated whatever happened. */
  async #retry(ask: Ask): Promise<Answer> {
    return await this.#tryAgain(() => this.#send(ask), LostAnswer)
  }

  async #untilTaken(work: () => Promise<Answer>): Promise<Answer> {
    return await this.#tryAgain(work, NotDone)
  }

  async #tryAgain(work: () => Promise<Answer>, kind: typeof Failure): Promise<Answer> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work()
      } catch (error) {
        const harmless = error instanceof NotDone || error instanceof kind
        if (!harmless || attempt >= TRIES || this.#call.signal.aborted) throw error
        await pause(attempt, this.#call.signal)
      }
    }
  }

  async #send(ask: Ask): Promise<Answer> {
    const { url, deadline } = this.#settings
    const { request } = await import('../http.ts')
    await rest(this.#restsUntil - performance.now(), this.#call.signal)
    this.#agent ??= await openAgent(this.#settings, () => {
      this.#connected = true
    })
    this.#call.say(`${this.#settings.name}: ${describeAsk(ask)}`)
    this.requests++
    const signal = AbortSignal.any([this.#call.signal, AbortSignal.timeout(deadline * 1000)])
    try {
      const { statusCode, headers, body } = await request(url, {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        // A form, so that a raw "&" cannot cut the request and nothing stands in the URL.
        body: new URLSearchParams({ reqxml: buildRequest(this.#settings, ask) }).toString(),
        dispatcher: this.#agent,
        signal,
      })
      const text = await readWhole(body, LONGEST_ANSWER)
      if (text === undefined) throw new Failure(EXIT.unexpected, 'answered without end')
      this.#checkHttp(statusCode, readRetryAfter(headers['retry-after']?.toString()))
      return readAnswer(text, ask.verb === 'Login' ? undefined : ask.kind, this.#settings.pass)
    } catch (error) {
      if (error instanceof Failure) throw error
      throw this.#explain(error, signal.aborted)
    }
  }

  /** @param wait seconds that the box asks us to wait */
  #checkHttp(status: number, wait: number | undefined): void {
    if (status === 200) return
    const answered = `answered HTTP ${status}`
    if (status === 401 || status === 403) throw new Failure(EXIT.refused, `${LOGIN} (${answered})`)
    if (wait !== undefined && (status === 429 || status === 503)) {
      if (wait > this.#settings.deadline) {
        throw new Failure(EXIT.temporary, `${answered}, it wants to be asked again in ${wait} s`)
      }
      this.#restsUntil = performance.now() + wait * 1000
    }
    if (status === 429) throw new NotDone(EXIT.temporary, answered)
    if (status >= 500) throw new LostAnswer(EXIT.temporary, answered)
    throw new Failure(EXIT.unexpected, `${answered}: check url`)
  }

  /** Errors of the connection; none of their texts is passed on, only their codes. */
  #explain(error: unknown, late: boolean): Failure {
    const code = String((error as NodeJS.ErrnoException).code ?? (error as Error).name)
    const distrust = distrustOf(code, 'f2b-setup sophosxg')
    if (distrust !== undefined) return new Failure(EXIT.refused, distrust)
    if (this.#connected) {
      const why = late ? 'no answer in time' : `connection lost (${code})`
      return new LostAnswer(EXIT.temporary, why)
    }
    if (/^(EPROTO|ERR_SSL)/.test(code)) {
      return new Failure(EXIT.unexpected, `does not speak TLS (${code}): check url`)
    }
    const why = late ? 'no answer in time' : noConnection(code)
    return new NotDone(EXIT.unreachable, `cannot connect: ${why}`)
  }
}

/** Opens a client for a verb and closes it whatever happens. */
export async function withClient<T>(
  settings: SophosXg,
  call: Pick<Call, 'signal' | 'say'>,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const client = new Client(settings, call)
  try {
    return await work(client)
  } finally {
    await client.close()
  }
}

/** Waits before another try: 0.1 to 0.2 s, then twice as long. */
export async function pause(attempt: number, signal: AbortSignal): Promise<void> {
  await rest(100 * 2 ** (attempt - 1) * (1 + Math.random()), signal)
}

/** Waits so many milliseconds, or until the verb must be over. */
async function rest(ms: number, signal: AbortSignal): Promise<void> {
  if (ms > 0) await sleep(ms, undefined, { signal }).catch(() => {})
}
