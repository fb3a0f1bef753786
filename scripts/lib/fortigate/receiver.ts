import { closeSync, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { type Address, overlaps, parseAddress } from '../address.ts'
import { ioFailure, messageOf } from '../failure.ts'
import { now } from '../lease.ts'
import { neverBan } from '../never.ts'
import type { Webhook } from '../settings/fortigate.ts'
import { type Activity, NO_DEVICE } from './activity.ts'
import { type Fields, Refused, readBody, UNCLEAR } from './body.ts'
import { judge, type Verdict } from './event.ts'
import { sameSecret } from './secret.ts'
import { askerOf } from './source.ts'

/** The largest body: a FortiOS message field alone may have 4 KiB. */
const MAX_BODY = 64 * 1024
/** How long the list of protected addresses is good: it asks the system for its addresses. */
const NEVER_SECONDS = 60

/** Takes the logs that devices post and writes a line for each failed login. */
export class Receiver {
  readonly #settings: Webhook
  readonly #protected: readonly string[]
  readonly #activity: Activity
  readonly #allowed: Address[]
  readonly #proxies: readonly Address[]
  #never: { list: Address[]; until: number } = { list: [], until: 0 }

  /** Why the last line could not be written, if it could not. */
  trouble: string | undefined

  constructor(
    settings: Webhook,
    proxies: readonly Address[],
    neverBanned: readonly string[],
    activity: Activity,
  ) {
    this.#settings = settings
    this.#proxies = proxies
    this.#protected = neverBanned
    this.#activity = activity
    this.#allowed = settings.allow_from.map(parseAddress)
  }

  /** Answers a POST with an HTTP status. */
  async receive(request: IncomingMessage): Promise<number> {
    const refusal = this.#refusal(request)
    if (refusal !== undefined) return this.#note(NO_DEVICE, refusal)
    const body = await readWhole(request)
    if (!body) return this.#note('refused too large', 413)
    let fields: Fields
    try {
      if (request.headers['content-encoding']) throw new Refused('a compressed body')
      fields = readBody(body, request.headers['content-type'] ?? '')
      const verdict = judge(fields, this.#settings, this.#neverBanned(), new Date())
      return this.#act(verdict, fields.get('user') === UNCLEAR ? ', unclear name' : '')
    } catch (error) {
      if (error instanceof Refused) return this.#note(`refused ${error.message}`, 422)
      throw error
    }
  }

  #refusal(request: IncomingMessage): number | undefined {
    const { secret, header } = this.#settings
    if (!secret || !this.#isAllowed(askerOf(request, this.#proxies))) return 403
    const given = request.headers[header.toLowerCase()]
    return typeof given === 'string' && sameSecret(given, secret) ? undefined : 401
  }

  #isAllowed(asker: string): boolean {
    if (this.#allowed.length === 0) return true
    const address = parseAddress(asker)
    return this.#allowed.some((entry) => overlaps(entry, address))
  }

  #act(verdict: Verdict, remark: string): number {
    if ('ignore' in verdict) return this.#note(`ignored ${verdict.ignore}${remark}`, 204)
    try {
      append(this.#settings.log_file, `${verdict.write}\n`)
    } catch (error) {
      this.trouble = messageOf(ioFailure(`write "${this.#settings.log_file}"`, error))
      return this.#note('lost log not writable', 503)
    }
    this.trouble = undefined
    return this.#note(`written ${verdict.decoy ? 'decoy' : verdict.kind}${remark}`, 204)
  }

  #note(what: string, status: number): number {
    this.#activity.receivedLog(what, now())
    return status
  }

  #neverBanned(): Address[] {
    if (now() >= this.#never.until) {
      this.#never = { list: neverBan(this.#protected), until: now() + NEVER_SECONDS }
    }
    return this.#never.list
  }
}

/**
 * A line is one write to a file opened for appending: whole, whoever else writes or rotates. A disk
 * that is full in the middle of it takes a part; that is taken back, or it would spoil the next line.
 */
function append(path: string, line: string): void {
  const fd = openSync(path, 'a', 0o640)
  try {
    const before = fstatSync(fd).size
    if (writeSync(fd, line) === Buffer.byteLength(line)) return
    ftruncateSync(fd, before)
    throw Object.assign(new Error('the disk is full'), { code: 'ENOSPC' })
  } finally {
    closeSync(fd)
  }
}

/** The body; undefined as soon as it is known to be too large. */
async function readWhole(request: IncomingMessage): Promise<Buffer | undefined> {
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY) return undefined
  const chunks: Buffer[] = []
  let size = 0
  return new Promise((resolve, reject) => {
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > MAX_BODY) resolve(undefined)
      else chunks.push(chunk)
    })
    request.on('end', () => resolve(Buffer.concat(chunks)))
    request.on('error', reject)
  })
}
