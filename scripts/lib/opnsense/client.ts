import { EXIT, Failure } from '../failure.ts'
import { JsonApi } from '../json-api.ts'
import type { Opnsense } from '../settings/opnsense.ts'
import { type Call, Refusal } from '../target.ts'

/** The pf table of an alias, over OPNsense's API (controller alias_util): one address a call. */
export class Table {
  readonly #api: JsonApi
  readonly #alias: string

  constructor(settings: Opnsense, alias: string) {
    this.#api = new JsonApi('opnsense', settings)
    this.#alias = alias
  }

  /**
   * What is in the table, as pf prints it. A GET, and a POST without rowCount, ends after 9,999.
   *
   * @param phrase only what holds this text
   */
  async list(call: Call, phrase = ''): Promise<Set<string>> {
    const body = await this.#ask(call, 'list', { rowCount: -1, current: 1, searchPhrase: phrase })
    const { rows, total } = body
    const texts = Array.isArray(rows) ? rows.map((row) => (row as { ip?: unknown } | null)?.ip) : []
    if (
      !Array.isArray(rows) ||
      texts.length !== total ||
      texts.some((ip) => typeof ip !== 'string')
    ) {
      throw new Failure(EXIT.unexpected, 'answered no whole list of its table')
    }
    return new Set(texts as string[])
  }

  /** Says nothing of whether it is there then: the answer is `done`, too, when the table is full. */
  async add(call: Call, address: string): Promise<void> {
    await this.#write(call, 'add', address)
  }

  /** Says nothing either: `done` is the answer, too, when nothing was spelled like this. */
  async remove(call: Call, address: string): Promise<void> {
    await this.#write(call, 'delete', address)
  }

  async close(): Promise<void> {
    await this.#api.close()
  }

  /** Every failure comes with HTTP 200. */
  async #write(call: Call, verb: 'add' | 'delete', address: string): Promise<void> {
    const { status, status_msg } = await this.#ask(call, verb, { address })
    if (status === 'done') return
    if (status === 'not_an_address') throw new Refusal(EXIT.refused, 'takes it for no address')
    if (/nonexistent alias/.test(String(status_msg))) {
      const how = 'make it in Firewall > Aliases, type "External (advanced)"'
      throw new Failure(EXIT.temporary, `has no alias "${this.#alias}": ${how}`)
    }
    throw new Failure(EXIT.unexpected, `answered ${this.#api.harmless(String(status))}`)
  }

  async #ask(call: Call, verb: string, body: object): Promise<Record<string, unknown>> {
    const path = `/api/firewall/alias_util/${verb}/${this.#alias}`
    const reply = await this.#api.ask(call, 'POST', path, body)
    const { status } = reply
    const refusal = refusalOf(status)
    if (refusal) throw refusal
    const answered = `answered HTTP ${status}`
    if (status === 429 || status >= 500) throw new Failure(EXIT.temporary, answered)
    if (status === 200 && typeof reply.body === 'object' && reply.body !== null) {
      return reply.body as Record<string, unknown>
    }
    throw new Failure(EXIT.unexpected, `${answered}: check url`)
  }
}

/** Why the key may not ask anything about tables. */
export function refusalOf(status: number): Failure | undefined {
  if (status === 401) return new Failure(EXIT.refused, 'key refused (HTTP 401): check key_file')
  if (status !== 403) return undefined
  const privilege = '"Diagnostics: PF Table IP addresses"'
  return new Failure(EXIT.refused, `the key's user lacks the privilege ${privilege} (HTTP 403)`)
}
