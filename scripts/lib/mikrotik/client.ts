import { type Address, type Family, parseAddress } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { JsonApi, type Method, type Reply } from '../json-api.ts'
import type { Mikrotik } from '../settings/mikrotik.ts'
import { type Call, Refusal } from '../target.ts'

/** An entry of the address list. */
export interface Row {
  /** Holds for this run only, and may be gone a moment later. */
  id: string
  address: string
  /** Seconds that it has left; undefined: for ever. */
  seconds: number | undefined
  comment: string
  disabled: boolean
}

/** What to do: one that is there is changed, or goes, only if its comment is still the same. */
export type Write =
  | { address: Address; row?: Row | undefined; wanted: Wanted }
  | { address: Address; row: Row; wanted?: undefined }

/** What an entry of ours says. */
export interface Wanted {
  seconds: number
  comment: string
}

/** What became of it: made, not made since the entry is not what it was, or why it never will be. */
export type Written = 'done' | 'again' | Refusal

const MENU = { inet4: '/ip/firewall/address-list', inet6: '/ipv6/firewall/address-list' }

/** Writes that are sent one by one, and those of one script: an RB5009 takes 0.2 s for so many. */
const FEW = 4
const CHUNK = 100

/** RouterOS over REST (7.1 or later): its address lists. */
export class Router {
  readonly #api: JsonApi
  readonly #settings: Mikrotik
  /** `/execute` gives back what a script printed, from 7.8 on and if the user may. */
  #hasScripts = true

  constructor(settings: Mikrotik) {
    this.#settings = settings
    this.#api = new JsonApi('mikrotik', settings)
  }

  /** Both lists; a router without IPv6 has one. @throws Failure */
  async readAll(call: Call): Promise<Row[]> {
    return [...(await this.#print(call, 'inet4')), ...(await this.#print(call, 'inet6'))]
  }

  /** The entry of an address, if there is one. @throws Failure */
  async read(call: Call, address: string): Promise<Row[]> {
    const family = address.includes(':') ? 'inet6' : 'inet4'
    const full = address.includes('/') ? address : `${address}/${family === 'inet4' ? 32 : 128}`
    // A single address is kept as such or with its full prefix, as versions and families differ.
    return await this.#print(call, family, [`address=${address}`, `address=${full}`, '#|'])
  }

  async #print(call: Call, family: Family, where: string[] = []): Promise<Row[]> {
    const proplist = ['.id', 'address', 'timeout', 'comment', 'disabled']
    const query = { '.query': [`list=${this.#list(family)}`, ...where], '.proplist': proplist }
    const reply = await this.#api.ask(call, 'POST', `/rest${MENU[family]}/print`, query)
    const problem = this.#problemOf(reply)
    if (problem && family === 'inet6' && isMissing(problem)) return []
    if (problem) throw problem
    if (!Array.isArray(reply.body))
      throw new Failure(EXIT.unexpected, 'answered no list: check url')
    return reply.body.map(readRow)
  }

  /**
   * Makes changes: by script if they are many, which does not tell why an entry could not be added.
   *
   * @param attempt of changes that did not work: from the second on an addition is made alone and says
   *   why, from the fourth on every change
   * @throws Failure about the router
   */
  async write(call: Call, writes: readonly Write[], attempt = 0): Promise<Written[]> {
    const isAlone = ({ row }: Write) =>
      !this.#hasScripts || attempt > 2 || (!row && (attempt > 0 || writes.length <= FEW))
    const results: Written[] = []
    while (results.length < writes.length) {
      const rest = writes.slice(results.length, results.length + CHUNK)
      const alone = rest.findIndex(isAlone)
      const chunk = alone < 0 ? rest : rest.slice(0, alone)
      const made = chunk.length > 0 && (await this.#script(call, chunk))
      results.push(...(made || [await this.#one(call, rest[0] as Write)]))
      call.progress(results.length, writes.length)
    }
    return results
  }

  async close(): Promise<void> {
    await this.#api.close()
  }

  async #one(call: Call, write: Write): Promise<Written> {
    const { address, row, wanted } = write
    const { family, text } = address
    const menu = `/rest${MENU[family]}`
    if (!wanted) return await this.#send(call, 'DELETE', `${menu}/${row.id}`)
    const body = { timeout: `${wanted.seconds}s`, comment: wanted.comment }
    if (row)
      return await this.#send(call, 'PATCH', `${menu}/${row.id}`, { ...body, disabled: 'no' })
    return await this.#send(call, 'PUT', menu, { list: this.#list(family), address: text, ...body })
  }

  async #send(call: Call, method: Method, path: string, body?: object): Promise<Written> {
    const reply = await this.#api.ask(call, method, path, body)
    const problem = this.#problemOf(reply)
    if (!problem) {
      // Each of them answers: with the entry, or with 204 for one that is gone.
      if (method === 'DELETE' ? reply.status === 204 : reply.body) return 'done'
      throw new Failure(EXIT.unexpected, `answered nothing (HTTP ${reply.status}): check url`)
    }
    const { message } = problem
    if (/already have such entry|no such item|Not Found/.test(message)) return 'again'
    if (isMissing(problem)) return new Refusal(EXIT.refused, 'it has no IPv6')
    if (/failure:|invalid value|does not match/.test(message))
      return new Refusal(EXIT.refused, message)
    throw problem
  }

  /** Runs changes as one script, which names those that failed. Undefined if the router runs none. */
  async #script(call: Call, writes: Write[]): Promise<Written[] | undefined> {
    const lines = writes.map((w, i) => `:do {${this.#command(w)}} on-error={:put "again ${i}"}`)
    const script = [...lines, `:put "done ${writes.length}"`].join('\n')
    const reply = await this.#api.ask(call, 'POST', '/rest/execute', { script, 'as-string': '' })
    const problem = this.#problemOf(reply)
    const temporary = problem?.code === EXIT.temporary
    if (temporary) throw problem
    const printed = String((reply.body as { ret?: unknown } | undefined)?.ret).split(/\s*\n/)
    if (problem || !printed.includes(`done ${writes.length}`)) {
      this.#hasScripts = false
      return undefined
    }
    return writes.map((_, i) => (printed.includes(`again ${i}`) ? 'again' : 'done'))
  }

  /** Addresses, and comments of ours, hold nothing that would have to be quoted. */
  #command({ address, row, wanted }: Write): string {
    const menu = MENU[address.family]
    const says = wanted && `timeout=${wanted.seconds}s comment="${wanted.comment}"`
    if (!row)
      return `${menu}/add list=${this.#list(address.family)} address=${address.text} ${says}`
    const { id, comment } = row
    const change = says ? `${menu}/set ${id} ${says} disabled=no` : `${menu}/remove ${id}`
    return `:if ([${menu}/get ${id} comment]="${comment}") do={${change}} else={:error "changed"}`
  }

  #list(family: Family): string {
    return family === 'inet4' ? this.#settings.list : this.#settings.list_v6
  }

  /** What counts is what the body says, whatever the status is. */
  #problemOf({ status, body }: Reply): Failure | undefined {
    const { error, message, detail } = (body ?? {}) as Record<string, unknown>
    if (status < 300 && error === undefined) return undefined
    const text = this.#api.harmless(String(detail ?? message ?? ''))
    const code = Number(error ?? status)
    if (code === 401) {
      return new Failure(
        EXIT.refused,
        'user or password refused, or not from this address (HTTP 401)',
      )
    }
    if (code === 403 || /not enough permissions/.test(text)) {
      return new Failure(
        EXIT.refused,
        'the user may not do that: its group needs read, write and rest-api',
      )
    }
    const isBusy = code === 429 || code >= 500 || /session closed|timeout|busy/i.test(text)
    return new Failure(isBusy ? EXIT.temporary : EXIT.unexpected, `answered HTTP ${code}: ${text}`)
  }
}

function isMissing({ message }: Failure): boolean {
  return /no such command/.test(message)
}

function readRow(entry: Record<string, unknown>): Row {
  const { '.id': id, address, timeout, comment, disabled } = entry
  if (typeof id !== 'string' || typeof address !== 'string') {
    throw new Failure(EXIT.unexpected, 'answered entries without id or address')
  }
  return {
    id,
    address: readAddress(address),
    seconds: timeout === undefined ? undefined : readDuration(String(timeout)),
    comment: String(comment ?? ''),
    disabled: disabled === 'true',
  }
}

/** As we write it; what is no address, such as a name or `a-b`, stays as it is. */
function readAddress(text: string): string {
  try {
    return parseAddress(text).text
  } catch {
    return text
  }
}

const UNITS: Record<string, number> = { w: 604800, d: 86400, h: 3600, m: 60, s: 1 }

/** Reads `1w2d3h4m5s`. @throws Failure 76 */
function readDuration(text: string): number {
  if (!/^(\d+[wdhms])+$/.test(text)) throw new Failure(EXIT.unexpected, 'answered no timeout')
  const parts = [...text.matchAll(/(\d+)(.)/g)]
  return parts.reduce((sum, [, count, unit = 's']) => sum + Number(count) * (UNITS[unit] ?? 0), 0)
}
