import { setTimeout as sleep } from 'node:timers/promises'
import { EXIT, Failure } from './failure.ts'
import type { Agent } from './http.ts'
import type { Call } from './target.ts'
import { type Connection, distrustOf, noConnection, openAgent } from './tls.ts'
import { readWhole } from './whole.ts'

/** What is needed to ask an appliance. */
export interface Appliance extends Connection {
  name: string
  url: string
  user: string
  pass: string
}

/** Its answer: the status and the body are the appliance's own, and mean what its facts say. */
export interface Reply {
  status: number
  /** Undefined if it has no body. */
  body: unknown
}

/** How often a request is tried in all, and bytes of an answer: 50,000 entries are 8 MB. */
const TRIES = 3
const LONGEST_ANSWER = 64 << 20

/**
 * Asks an appliance that speaks JSON over https with Basic authentication, as MikroTik and OPNsense
 * do. Whatever is asked must bear to be asked twice: what got no answer is sent again inside the
 * deadline. No credential and no text of an error leaves this module.
 */
export class JsonApi {
  readonly #appliance: Appliance
  readonly #setup: string
  readonly #authorization: string
  readonly #pass: string
  #agent: Agent | undefined
  #connected = false

  /** @param kind the word of `f2b-setup` for it */
  constructor(kind: string, appliance: Appliance) {
    const { user, pass } = appliance
    this.#appliance = appliance
    this.#setup = `f2b-setup ${kind}`
    this.#authorization = `Basic ${Buffer.from(`${user}:${pass}`).toString('base64')}`
    this.#pass = pass
  }

  /** @throws Failure 69, 75, 76, or 77 for its certificate */
  async ask(
    call: Pick<Call, 'signal' | 'say'>,
    method: Method,
    path: string,
    body?: object,
  ): Promise<Reply> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#send(call, method, path, body)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        const worth = error.code === EXIT.temporary || error.code === EXIT.unreachable
        if (!worth || attempt >= TRIES || call.signal.aborted) throw error
        await sleep(100 * 2 ** attempt, undefined, { signal: call.signal }).catch(() => {})
      }
    }
  }

  /** What an appliance said, for a message: one short line, and none of our credentials. */
  harmless(text: string): string {
    const secret = [this.#pass, this.#authorization.slice(6)].some((one) => text.includes(one))
    return secret ? 'something that is not for a log' : text.replace(/[^ -~]+/g, ' ').slice(0, 120)
  }

  async close(): Promise<void> {
    await this.#agent?.destroy()
    this.#agent = undefined
  }

  async #send(
    call: Pick<Call, 'signal' | 'say'>,
    method: Method,
    path: string,
    body?: object,
  ): Promise<Reply> {
    const { name, url, deadline } = this.#appliance
    const { request } = await import('./http.ts')
    this.#agent ??= await openAgent(this.#appliance, () => {
      this.#connected = true
    })
    call.say(`${name}: ${method} ${path}`)
    const signal = AbortSignal.any([call.signal, AbortSignal.timeout(deadline * 1000)])
    try {
      const answer = await request(url + path, {
        method,
        headers: {
          authorization: this.#authorization,
          accept: 'application/json',
          ...(body && { 'content-type': 'application/json' }),
        },
        ...(body && { body: JSON.stringify(body) }),
        dispatcher: this.#agent,
        signal,
      })
      const text = await readWhole(answer.body, LONGEST_ANSWER)
      if (text === undefined) throw new Failure(EXIT.unexpected, 'answered without end')
      return { status: answer.statusCode, body: readBody(text, answer.statusCode) }
    } catch (error) {
      if (error instanceof Failure) throw error
      throw this.#explain(error, signal.aborted)
    }
  }

  /** Errors of the connection; none of their texts is passed on, only their codes. */
  #explain(error: unknown, late: boolean): Failure {
    const code = String((error as NodeJS.ErrnoException).code ?? (error as Error).name)
    const distrust = distrustOf(code, this.#setup)
    if (distrust !== undefined) return new Failure(EXIT.refused, distrust)
    if (/^(EPROTO|ERR_SSL)/.test(code)) {
      return new Failure(EXIT.unexpected, `does not speak TLS (${code}): check url`)
    }
    if (this.#connected) {
      const why = late ? 'no answer in time' : `connection lost (${code})`
      return new Failure(EXIT.temporary, why)
    }
    const why = late ? 'no answer in time' : noConnection(code)
    return new Failure(EXIT.unreachable, `cannot connect: ${why}`)
  }
}

export type Method = 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE'

/** @throws Failure 75 for what a proxy or a box that starts says, 76 for what is not JSON */
function readBody(text: string, status: number): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch {
    const answered = `answered HTTP ${status} and no JSON`
    if (status === 429 || status >= 500) throw new Failure(EXIT.temporary, answered)
    if (status === 401 || status === 403) throw new Failure(EXIT.refused, answered)
    throw new Failure(EXIT.unexpected, `${answered}: check url`)
  }
}
