import { readFileSync } from 'node:fs'
import { parseAddress } from '../address.ts'
import { EXIT, type ExitCode, Failure, ioFailure, messageOf } from '../failure.ts'
import { Agent, request } from '../http.ts'
import { quote } from '../lease.ts'
import type { Push } from '../settings/fortigate.ts'
import { readWhole } from '../whole.ts'

const CONNECT_MS = 3_000
const REQUEST_MS = 20_000

/** Bytes: 131,072 entries are 16 MB at most. */
const LONGEST_ANSWER = 32 << 20

/**
 * A FortiGate connector with `update-method push` (FortiOS 7.2.1 and later), spoken to through the
 * device's REST API: `POST .../external-resource/dynamic` changes it, `GET .../entry-list` reads it
 * back. What is documented of both is in facts/peers.md 2.2.
 */
export class Device {
  readonly name: string
  readonly #push: Push
  readonly #agent: Agent

  constructor(push: Push) {
    this.name = new URL(push.url).host
    this.#push = push
    const ca = push.ca === undefined ? {} : { ca: readCertificate(push.ca) }
    this.#agent = new Agent({ connect: { timeout: CONNECT_MS, ...ca } })
  }

  /** Adds or removes some addresses; the device takes "already there" and "not there" as success. */
  async change(command: 'add' | 'remove', entries: string[], signal: AbortSignal): Promise<void> {
    await this.#command(command, entries, signal)
  }

  /** Makes the connector's entries exactly these. */
  async replace(entries: string[], signal: AbortSignal): Promise<void> {
    await this.#command('snapshot', entries, signal)
  }

  /** The connector's valid entries, in our canonical form where we can read them. */
  async entries(signal: AbortSignal): Promise<string[]> {
    const query = new URLSearchParams({ mkey: this.#push.name, include_notes: 'false' })
    const answer = await this.#ask('GET', `entry-list?${query}`, undefined, signal)
    const list = (answer.results as { entries?: unknown } | undefined)?.entries
    if (!Array.isArray(list)) throw unexpected('an answer without a list of entries')
    return list.filter((item) => item?.valid !== false).map((item) => canonical(item?.entry))
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }

  async #command(command: string, entries: string[], signal: AbortSignal): Promise<void> {
    const body = JSON.stringify({ commands: [{ name: this.#push.name, command, entries }] })
    await this.#ask('POST', 'dynamic', body, signal)
  }

  async #ask(method: 'GET' | 'POST', path: string, body: string | undefined, signal: AbortSignal) {
    const url = new URL(`/api/v2/monitor/system/external-resource/${path}`, this.#push.url)
    if (this.#push.vdom) url.searchParams.set('vdom', this.#push.vdom)
    try {
      const response = await request(url, {
        method,
        body: body ?? null,
        headers: {
          authorization: `Bearer ${this.#push.token ?? ''}`,
          accept: 'application/json',
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        dispatcher: this.#agent,
        signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_MS)]),
      })
      const text = await readWhole(response.body, LONGEST_ANSWER)
      if (text === undefined) throw unexpected('an answer without end')
      return readAnswer(response.statusCode, text)
    } catch (error) {
      throw error instanceof Failure ? error : transportFailure(error)
    }
  }
}

function readAnswer(status: number, text: string): Record<string, unknown> {
  const code = codeFor(status)
  if (code !== EXIT.done) throw new Failure(code, `the device answered ${status}`)
  let answer: unknown
  try {
    answer = JSON.parse(text)
  } catch {
    throw unexpected('an answer that is not JSON')
  }
  const { status: word } = (answer ?? {}) as { status?: unknown }
  if (word !== 'success') throw unexpected(`status ${quote(String(word))}`)
  return answer as Record<string, unknown>
}

function codeFor(status: number): ExitCode {
  if (status === 200) return EXIT.done
  if (status === 401 || status === 403) return EXIT.refused
  return status === 429 || status >= 500 ? EXIT.temporary : EXIT.unexpected
}

const NEVER_CONNECTED = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'UND_ERR_CONNECT_TIMEOUT',
])

/** Never connected, TLS included, is 69; an answer that broke off or did not come is 75. */
function transportFailure(error: unknown): Failure {
  const { code = '', name } = error as { code?: string; name?: string }
  const options = { cause: error }
  if (name === 'TimeoutError' || name === 'AbortError' || code.endsWith('_TIMEOUT')) {
    if (code !== 'UND_ERR_CONNECT_TIMEOUT') {
      return new Failure(EXIT.temporary, 'the device did not answer in time', options)
    }
  }
  const tls = /CERT|TLS|SSL|SELF_SIGNED|ISSUER|EPROTO/.test(code)
  const text = tls ? `TLS failed (${code})` : code || messageOf(error)
  const exit = tls || NEVER_CONNECTED.has(code) ? EXIT.unreachable : EXIT.temporary
  return new Failure(exit, text, options)
}

function unexpected(what: string): Failure {
  return new Failure(EXIT.unexpected, `the device sent ${what}`)
}

function readCertificate(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Failure(EXIT.config, ioFailure(`read "${path}"`, error).message)
  }
}

function canonical(entry: unknown): string {
  try {
    return parseAddress(String(entry)).text
  } catch {
    return String(entry)
  }
}
