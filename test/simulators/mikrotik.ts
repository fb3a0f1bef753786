/**
 * A MikroTik router's REST API, as strict as facts/vendors/mikrotik.md says: everything is a string, a
 * duplicate is refused and refreshes nothing, timed entries go by themselves and with a reboot, a
 * search takes as long as the list is, and no request lives longer than 60 s.
 */
import {
  type Answer,
  ApplianceSimulator,
  type Asked,
  type Mishaps,
  NO_MISHAPS,
} from './appliance.ts'

export interface MikrotikFaults extends Mishaps {
  /** The group of the user lacks this policy. */
  lacks?: 'read' | 'write' | 'rest-api' | 'script' | undefined
  /** The router has no package or no support for IPv6. */
  noIpv6: boolean
  /** RouterOS before 7.8 knows no `as-string`: a script runs in the background. */
  scripts: 'as-string' | 'background' | 'unknown' | 'nothing'
  /** A failure comes with HTTP 200 and stands in the body only. */
  failWith200: boolean
  /** Says that it was done, and does nothing. */
  pretend: boolean
  /** Each entry of ours that a list shows is gone before the next request. */
  vanish: boolean
  /** Refuses any address list that is longer. */
  most: number
}

const HEALTHY: MikrotikFaults = {
  ...NO_MISHAPS,
  noIpv6: false,
  scripts: 'as-string',
  failWith200: false,
  pretend: false,
  vanish: false,
  most: Number.POSITIVE_INFINITY,
}

/** Seconds of an RB5009: for a request, an add that searches nothing, and a row that is searched. */
const COST = { request: 0.002, add: 0.00125, remove: 0.0029, row: 0.000014, longest: 60 }

/** What `timeout` takes at most: 35w3d13h13m56s. */
const LONGEST = 21_474_836

export interface Entry {
  id: string
  menu: 'ip' | 'ipv6'
  list: string
  address: string
  /** Epoch milliseconds; undefined is for ever, on flash. */
  until?: number | undefined
  comment?: string
  disabled: boolean
}

/** Thrown by a command that fails, with what the console says. */
class Trap extends Error {}

export class MikrotikSimulator extends ApplianceSimulator<MikrotikFaults> {
  faults: MikrotikFaults = { ...HEALTHY }
  entries = new Map<string, Entry>()
  user = 'f2b'
  pass = 'secret'
  /** Milliseconds by which the router's own time differs: tests let time pass. */
  ahead = 0
  readonly #ids = new Map<string, Entry>()
  #next = 1
  #seconds = 0
  #wrote = false

  /** All that is timed lives in RAM. */
  reboot(): void {
    for (const [key, { until }] of this.entries) if (until !== undefined) this.entries.delete(key)
  }

  /** Puts an entry there as a person does. */
  enter(entry: Partial<Entry> & { address: string }): Entry {
    const menu = entry.address.includes(':') ? 'ipv6' : 'ip'
    const full = {
      id: `*${(this.#next++).toString(16).toUpperCase()}`,
      menu,
      list: 'f2b',
      disabled: false,
      ...entry,
    } as Entry
    this.entries.set(keyOf(full), full)
    this.#ids.set(full.id, full)
    return full
  }

  /** What a rule with this list drops: addresses in order. */
  blocked(list = 'f2b'): string[] {
    const now = Date.now() + this.ahead
    const all = [...this.entries.values()].filter(
      (e) => e.list === list && !e.disabled && !e.address.startsWith('0.'),
    )
    return all
      .filter(({ until }) => until === undefined || until > now)
      .map(({ address }) => address.replace(/\/128$/, ''))
      .sort()
  }

  protected healthy(): MikrotikFaults {
    return HEALTHY
  }

  protected answer({ method, path, headers, body }: Asked, faults: MikrotikFaults): Answer {
    this.#seconds = COST.request
    this.#wrote = false
    const given = Buffer.from(
      String(headers.authorization).replace(/^Basic /, ''),
      'base64',
    ).toString()
    const fail = (status: number, message: string, detail?: string): Answer => ({
      status: faults.failWith200 ? 200 : status,
      body: { error: status, message, ...(detail && { detail }) },
      seconds: this.#seconds,
    })
    if (given !== `${this.user}:${this.pass}`) return fail(401, 'Unauthorized')
    if (faults.lacks === 'rest-api') return fail(403, 'Forbidden', 'not enough permissions (9)')
    try {
      const [status, answer] = this.#route(
        method,
        path,
        body === '' ? {} : JSON.parse(body),
        faults,
      )
      if (this.#seconds > COST.longest) return fail(400, 'Bad Request', 'Session closed')
      return { status, body: answer, seconds: this.#seconds, wrote: this.#wrote }
    } catch (error) {
      if (!(error instanceof Trap)) throw error
      if (error.message === '404') return fail(404, 'Not Found')
      if (/not enough/.test(error.message)) return fail(500, 'Internal Server Error', error.message)
      return fail(400, 'Bad Request', error.message)
    }
  }

  #route(
    method: string,
    path: string,
    body: Record<string, unknown>,
    faults: MikrotikFaults,
  ): [number, unknown] {
    const [, menu, rest = ''] = /^\/rest\/(ip|ipv6)\/firewall\/address-list(.*)$/.exec(path) ?? []
    if (path === '/rest/execute' && method === 'POST') return [200, this.#execute(body, faults)]
    if (menu !== 'ip' && menu !== 'ipv6') throw new Trap('no such command or directory (x)')
    if (menu === 'ipv6' && faults.noIpv6) throw new Trap('no such command or directory (ipv6)')
    const id = /^\/(\*[0-9A-F]+)$/.exec(rest)?.[1]
    if (method === 'POST' && rest === '/print') return [200, this.#print(menu, body, faults)]
    if (method === 'PUT' && rest === '') {
      const entry = this.#add(menu, body as Record<string, string>, faults)
      return [201, entry && shown(entry, Date.now() + this.ahead)]
    }
    if (method === 'PATCH' && id)
      return [200, this.#set(menu, id, body as Record<string, string>, faults)]
    if (method === 'DELETE' && id) return [204, this.#remove(menu, id, faults)]
    throw new Trap('404')
  }

  #print(menu: Entry['menu'], body: Record<string, unknown>, faults: MikrotikFaults): object[] {
    if (faults.lacks === 'read') throw new Trap('not enough permissions (9)')
    const now = Date.now() + this.ahead
    for (const key of [...this.entries.keys()]) this.#alive(key)
    const all = [...this.entries.values()].filter((entry) => entry.menu === menu)
    this.#seconds += all.length * COST.row
    const query = (body['.query'] ?? []) as string[]
    const found = all.filter((entry) => isMatch(query, shown(entry, now)))
    const properties = body['.proplist'] as string[] | undefined
    const rows = found.map((entry) => pick(shown(entry, now), properties))
    if (faults.vanish)
      for (const entry of found) if (entry.until !== undefined) this.entries.delete(keyOf(entry))
    return rows
  }

  #add(
    menu: Entry['menu'],
    given: Record<string, string>,
    faults: MikrotikFaults,
  ): Entry | undefined {
    this.#mayWrite(faults)
    this.#seconds += COST.add
    const { list, address, timeout, comment, ...rest } = given
    const [unknown] = Object.keys(rest)
    if (unknown) throw new Trap(`unknown parameter ${unknown}`)
    if (!list || !address) throw new Trap('missing value(s) of argument(s) list address')
    const entry = {
      menu,
      list,
      address: stored(menu, address),
      until: this.#until(timeout),
      comment: comment ?? '',
      disabled: false,
    }
    if (this.#alive(keyOf(entry))) throw new Trap('failure: already have such entry')
    if (this.entries.size >= faults.most) throw new Trap('failure: can not add more entries')
    this.#wrote = true
    return faults.pretend ? undefined : this.enter(entry)
  }

  #set(
    menu: Entry['menu'],
    id: string,
    given: Record<string, string>,
    faults: MikrotikFaults,
  ): object {
    this.#mayWrite(faults)
    const entry = this.#byId(menu, id)
    this.#seconds += COST.add
    this.#wrote = true
    const { timeout, comment, disabled, ...rest } = given
    const [unknown] = Object.keys(rest)
    if (unknown) throw new Trap(`unknown parameter ${unknown}`)
    if (faults.pretend) return {}
    if (timeout !== undefined) entry.until = this.#until(timeout)
    if (comment !== undefined) entry.comment = comment
    if (disabled !== undefined) entry.disabled = disabled === 'yes' || disabled === 'true'
    return shown(entry, Date.now() + this.ahead)
  }

  #remove(menu: Entry['menu'], id: string, faults: MikrotikFaults): undefined {
    this.#mayWrite(faults)
    const entry = this.#byId(menu, id)
    this.#seconds += COST.remove
    this.#wrote = true
    if (!faults.pretend) this.entries.delete(keyOf(entry))
    return undefined
  }

  /** Runs the lines that f2b-mikrotik writes; each other line is a syntax error, as in the console. */
  #execute(body: Record<string, unknown>, faults: MikrotikFaults): object {
    if (faults.lacks === 'script') throw new Trap('not enough permissions (9)')
    const isTold = 'as-string' in body
    if (isTold && faults.scripts === 'unknown') throw new Trap('unknown parameter as-string')
    if (faults.scripts === 'nothing') return { ret: '' }
    const printed: string[] = []
    for (const line of String(body.script).split('\n')) {
      const put = /^:put "([^"$\\]*)"$/.exec(line)
      const guarded = /^:do \{(.*)\} on-error=\{:put "([^"$\\]*)"\}$/.exec(line)
      if (put) printed.push(put[1] ?? '')
      else if (guarded) {
        try {
          this.#line(guarded[1] ?? '', faults)
        } catch (error) {
          if (!(error instanceof Trap)) throw error
          printed.push(guarded[2] ?? '')
        }
      } else throw new Trap('syntax error (line 1 column 1)')
    }
    return {
      ret: faults.scripts === 'background' ? '*2A' : printed.map((text) => `${text}\r\n`).join(''),
    }
  }

  #line(line: string, faults: MikrotikFaults): void {
    const condition =
      /^:if \(\[(\S+)\/get (\S+) comment\]="([^"$\\]*)"\) do=\{(.*)\} else=\{:error "[^"]*"\}$/.exec(
        line,
      )
    if (condition) {
      const [, menu = '', id = '', comment, then = ''] = condition
      if (this.#byId(menuOf(menu, faults), id).comment !== comment) throw new Trap('changed')
      this.#line(then, faults)
      return
    }
    const [, menu = '', verb, rest = ''] = /^(\/\S+)\/(add|set|remove) (.*)$/.exec(line) ?? []
    const [, id = '', words = rest] = /^(\*[0-9A-F]+) ?(.*)$/.exec(rest) ?? []
    const given = Object.fromEntries(
      [...words.matchAll(/([a-z]+)=(?:"([^"$\\]*)"|(\S+))/g)].map(([, key, quoted, bare]) => [
        key,
        quoted ?? bare,
      ]),
    )
    const where = menuOf(menu, faults)
    if (verb === 'add') this.#add(where, given, faults)
    else if (verb === 'set') this.#set(where, id, given, faults)
    else if (verb === 'remove') this.#remove(where, id, faults)
    else throw new Trap('syntax error')
  }

  #byId(menu: Entry['menu'], id: string): Entry {
    const entry = this.#ids.get(id)
    const known = entry && this.#alive(keyOf(entry))
    if (!known || known.id !== id || known.menu !== menu) throw new Trap('no such item')
    return known
  }

  #mayWrite(faults: MikrotikFaults): void {
    if (faults.lacks === 'write') throw new Trap('not enough permissions (9)')
  }

  #until(timeout: string | undefined): number | undefined {
    if (!timeout) return undefined
    const seconds = Number(/^(\d+)s$/.exec(timeout)?.[1] ?? Number.NaN)
    if (Number.isNaN(seconds)) throw new Trap('invalid value for argument timeout')
    if (seconds > LONGEST)
      throw new Trap('value of timeout out of range (00:00:00..35w3d13h13m56s)')
    return Date.now() + this.ahead + seconds * 1000
  }

  /** The entry, unless its time is over. */
  #alive(key: string): Entry | undefined {
    const entry = this.entries.get(key)
    if (entry?.until === undefined || entry.until > Date.now() + this.ahead) return entry
    this.entries.delete(key)
    return undefined
  }
}

function keyOf({ menu, list, address }: Pick<Entry, 'menu' | 'list' | 'address'>): string {
  return `${menu} ${list} ${address}`
}

function menuOf(path: string, faults: MikrotikFaults): Entry['menu'] {
  const menu = /^\/(ip|ipv6)\/firewall\/address-list$/.exec(path)?.[1]
  if (menu === undefined || (menu === 'ipv6' && faults.noIpv6))
    throw new Trap('no such command or directory')
  return menu as Entry['menu']
}

function stored(menu: Entry['menu'], address: string): string {
  if (menu === 'ip' && !/^\d+\.\d+\.\d+\.\d+(\/\d+)?$/.test(address))
    throw new Trap('invalid value for argument address')
  if (menu === 'ipv6' && !/^[0-9a-f:]+(\/\d+)?$/.test(address))
    throw new Trap('invalid value for argument address')
  if (menu === 'ip') return address.replace(/\/32$/, '')
  return address.includes('/') ? address : `${address}/128`
}

function shown(entry: Entry, now: number): Record<string, string> {
  const { id, list, address, until, comment, disabled } = entry
  const left = until === undefined ? {} : { timeout: durationOf(Math.ceil((until - now) / 1000)) }
  const said = comment ? { comment } : {}
  return {
    '.id': id,
    list,
    address,
    ...left,
    ...said,
    disabled: `${disabled}`,
    dynamic: `${until !== undefined}`,
  }
}

/** `1w2d3h4m5s`, as the router prints it. */
function durationOf(seconds: number): string {
  const units: [string, number][] = [
    ['w', 604800],
    ['d', 86400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ]
  let left = seconds
  const parts = units.map(([unit, size]) => {
    const count = Math.floor(left / size)
    left -= count * size
    return count > 0 ? `${count}${unit}` : ''
  })
  return parts.join('') || '0s'
}

/** A query of the API: conditions on a stack, `#|` for or; all that is left at the end must hold. */
function isMatch(query: string[], entry: Record<string, string>): boolean {
  const stack: boolean[] = []
  for (const word of query) {
    if (word === '#|') {
      const [a, b] = [stack.pop(), stack.pop()]
      stack.push(Boolean(a || b))
    } else stack.push(entry[word.slice(0, word.indexOf('='))] === word.slice(word.indexOf('=') + 1))
  }
  return stack.every(Boolean)
}

function pick(
  entry: Record<string, string>,
  properties: string[] | undefined,
): Record<string, string> {
  if (!properties) return entry
  return Object.fromEntries(Object.entries(entry).filter(([key]) => properties.includes(key)))
}
