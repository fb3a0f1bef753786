/**
 * An OPNsense firewall's API for the pf tables of aliases, as strict as facts/vendors/opnsense.md says:
 * failures come with HTTP 200, `done` proves nothing, a list ends after 9,999 rows unless it is asked for
 * all of them, and the configuration lock serves one call after the other.
 */
import {
  type Answer,
  ApplianceSimulator,
  type Asked,
  type Mishaps,
  NO_MISHAPS,
} from './appliance.ts'

export interface OpnsenseFaults extends Mishaps {
  /** The key's user lacks the privilege for tables. */
  forbidden: boolean
  /** Lacks "Firewall: Alias: Edit". */
  noAliasEdit: boolean
  /** Says done, and does nothing. */
  pretend: boolean
  /** pf's own limit: what is more is lost without a word. */
  most: number
  /** A list lacks its last rows though it counts them. */
  cutList: boolean
  /** `searchPhrase` is not looked at. */
  ignoreSearch: boolean
}

const HEALTHY: OpnsenseFaults = {
  ...NO_MISHAPS,
  forbidden: false,
  noAliasEdit: false,
  pretend: false,
  most: Number.POSITIVE_INFINITY,
  cutList: false,
  ignoreSearch: false,
}

/** Seconds of a change, which takes the configuration lock, and of a list with so many rows. */
const COST = { write: 0.2, list: 0.1, row: 0.00005 }

/** Rows of a list that is not told how many. */
const ROWS = 9999

export class OpnsenseSimulator extends ApplianceSimulator<OpnsenseFaults> {
  faults: OpnsenseFaults = { ...HEALTHY }
  key = 'w86XNZob'
  secret = 'secret'
  /** The aliases of type external, by name. */
  readonly tables = new Map<string, Set<string>>([
    ['f2b_web1', new Set()],
    ['f2b_web2', new Set()],
  ])

  /** Names of aliases that are defined and not in use yet. */
  readonly #defined = new Set<string>()

  /** External tables are in no configuration. */
  reboot(): void {
    for (const table of this.tables.values()) table.clear()
  }

  /** What a rule with this alias blocks, but for the sentinel. */
  blocked(alias = 'f2b_web1'): string[] {
    return [...(this.tables.get(alias) ?? [])]
      .filter((ip) => !ip.startsWith('2001:db8:f2b:'))
      .sort()
  }

  protected healthy(): OpnsenseFaults {
    return HEALTHY
  }

  protected answer({ method, path, headers, body }: Asked, faults: OpnsenseFaults): Answer {
    const given = Buffer.from(
      String(headers.authorization).replace(/^Basic /, ''),
      'base64',
    ).toString()
    const fail = (status: number, message: string): Answer => ({
      status,
      body: { status, message },
      seconds: 0.01,
    })
    if (given !== `${this.key}:${this.secret}`) return fail(401, 'Authentication Failed')
    const [, controller = '', verb = '', name = ''] =
      /^\/api\/firewall\/(alias_util|alias)\/(\w+)(?:\/(\w+))?$/.exec(path) ?? []
    const isForbidden = controller === 'alias' ? faults.noAliasEdit : faults.forbidden
    if (isForbidden) return fail(403, 'Forbidden')
    if (verb === 'aliases') {
      return { status: 200, body: [...this.tables.keys()].sort(), seconds: 0.01 }
    }
    const fields = readFields(headers['content-type'], body)
    if (!fields) return fail(400, 'Invalid JSON syntax')
    if (controller === 'alias') return this.#define(method, verb, fields)
    const table = this.tables.get(name)
    if (verb === 'list')
      return this.#list(method === 'POST' ? fields : {}, table ?? new Set(), faults)
    if (verb === 'add' || verb === 'delete')
      return { ...this.#write(verb, method, fields, name, faults), status: 200 }
    return { status: 404, body: { errorMessage: 'Endpoint not found' }, seconds: 0.01 }
  }

  /** An alias is in the configuration first, and has a table once that is applied. */
  #define(method: string, verb: string, fields: Record<string, unknown>): Answer {
    const say = (body: object, wrote = true) => ({ status: 200, body, seconds: COST.write, wrote })
    if (method !== 'POST') return say({ result: 'failed' }, false)
    if (verb === 'reconfigure') {
      for (const name of this.#defined) this.tables.set(name, this.tables.get(name) ?? new Set())
      return say({ status: 'ok' })
    }
    const { name = '', type, enabled } = (fields.alias ?? {}) as Record<string, string>
    const refuse = (key: string, why: string) =>
      say({ result: 'failed', validations: { [`alias.${key}`]: why } }, false)
    if (!/^[A-Za-z_]\w{0,31}$/.test(name)) return refuse('name', 'The name is not valid.')
    if (this.tables.has(name) || this.#defined.has(name)) {
      return refuse('name', 'An alias with this name already exists.')
    }
    if (type !== 'external' || enabled !== '1') return refuse('type', 'Not of use for a table.')
    this.#defined.add(name)
    return say({ result: 'saved', uuid: '6a1ecb5f-0000-4000-8000-000000000001' })
  }

  #list(fields: Record<string, unknown>, table: Set<string>, faults: OpnsenseFaults): Answer {
    const { rowCount = ROWS, current = 1, searchPhrase = '' } = fields
    const phrase = faults.ignoreSearch ? '' : String(searchPhrase)
    const found = [...table].filter((ip) => ip.includes(phrase))
    const count = Number(rowCount) === -1 ? found.length : Number(rowCount)
    const rows = found.slice((Number(current) - 1) * count, Number(current) * count)
    const shown = faults.cutList ? rows.slice(0, -1) : rows
    return {
      status: 200,
      body: {
        total: found.length,
        rowCount: shown.length,
        current,
        rows: shown.map((ip) => ({ ip, in_block_p: 0 })),
      },
      seconds: COST.list + table.size * COST.row,
    }
  }

  #write(
    verb: 'add' | 'delete',
    method: string,
    fields: Record<string, unknown>,
    name: string,
    faults: OpnsenseFaults,
  ) {
    const { address } = fields
    const say = (status: string, more = {}) => ({ body: { status, ...more }, seconds: COST.write })
    if (method !== 'POST' || typeof address !== 'string') return say('failed')
    const table = this.tables.get(name)
    if (!table) return say('failed', { status_msg: `nonexistent alias ${name}` })
    if (verb === 'add' && /[^0-9a-f:./_]/.test(address)) return say('not_an_address')
    if (faults.pretend) return { ...say('done'), wrote: true }
    // Only what is spelled as pf prints it is found.
    if (verb === 'delete') table.delete(address)
    else if (table.size < faults.most) table.add(canonical(address))
    return { ...say('done'), wrote: true }
  }
}

/** Only two content types are parsed; JSON must not be empty. */
function readFields(type: string | undefined, body: string): Record<string, unknown> | undefined {
  if (/^application\/x-www-form-urlencoded/.test(type ?? ''))
    return Object.fromEntries(new URLSearchParams(body))
  if (!/^application\/json(;charset=utf-8)?$/.test(type ?? '')) return {}
  try {
    const parsed = JSON.parse(body)
    return typeof parsed === 'object' && parsed !== null ? parsed : {}
  } catch {
    return undefined
  }
}

/** As pf prints an address. */
function canonical(address: string): string {
  if (!address.includes(':')) return address.replace(/\/32$/, '')
  const [host = '', length] = address.split('/')
  const text = new URL(`http://[${host}]/`).hostname.slice(1, -1)
  return length === undefined || length === '128' ? text : `${text}/${length}`
}
