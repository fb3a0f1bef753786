import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { appendDurably, readFinished, replaceDurably } from '../durable.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { Unmet } from './actions.ts'
import { type Call, checkCall, jailOf, nameOf } from './call.ts'
import type { Claims } from './message.ts'
import type { Node } from './node.ts'

/** Milliseconds before a failed call is tried again: doubled each time, up to a minute. */
const RETRY = { first: 1000, most: 60_000 }

type Sent = Pick<Claims, 'jti' | 'iss' | 'iat'>

/**
 * Runs calls on the node, and what fails again and again, with back-off, until it works, until its
 * lease is over, or until a later call takes its place.
 */
export class Worker {
  readonly #node: Node
  readonly #retries: RetryQueue
  readonly #log: (line: string) => void
  /** Tries and timers of what is to be tried again, by key. */
  readonly #tries = new Map<string, { count: number; timer: NodeJS.Timeout }>()
  /** The try that is under way, by key. */
  readonly #running = new Map<string, Promise<unknown>>()
  /** What files cannot be used for, as it was told. */
  readonly #unmet = new Map<string, string>()
  #closed = false

  /** @param folder where those calls are @throws Failure 75 */
  constructor(node: Node, folder: string, log: (line: string) => void) {
    this.#node = node
    this.#log = log
    this.#retries = new RetryQueue(join(folder, 'parked'))
    for (const key of this.#retries.keys()) this.#plan(key, 0)
  }

  /**
   * Carries out a call, or keeps it to be tried again; either way it is in good hands afterwards.
   *
   * @returns false if it waits for something that this node lacks, and that is news
   * @throws Failure 65 or 78 if it can never work, 75 if it could not even be kept
   */
  async exec(
    { jti, iss, iat }: Sent,
    one: Pick<Call, 'file' | 'params'> & { action: string },
  ): Promise<boolean> {
    const call = checkCall(one.file, one.action, one.params)
    const key = keyOf(call)
    await this.replace(call.file, nameOf(call.params), call.params.ip)
    try {
      await this.#run({ jti, iss, iat, call })
      return true
    } catch (error) {
      if (!isTemporary(error)) throw error
      this.#retries.put(key, { jti, iss, iat, call })
      this.#plan(key, 0)
      if (error instanceof Unmet) return !this.lacks(call.file, error)
      this.#log(`${textOf(call)}: ${messageOf(error)}: trying again`)
      return true
    }
  }

  /** Says what keeps an action file from being used. @returns true if it is news */
  lacks(file: string, { message }: Unmet): boolean {
    if (this.#unmet.get(file) === message) return false
    this.#unmet.set(file, message)
    this.#log(`${message}; until then all that needs it waits`)
    return true
  }

  /** Forgets what kept an action file from being used. */
  works(file: string): void {
    this.#unmet.delete(file)
  }

  /** Gives up what a later call is about: one address, or all of a jail. */
  async replace(file: string, name: string, ip?: string): Promise<void> {
    const prefix = `${jailOf(file, name)} `
    const keys = this.#retries.keys()
    const over = keys.filter((key) => (ip ? key === prefix + ip : key.startsWith(prefix)))
    for (const key of over) {
      clearTimeout(this.#tries.get(key)?.timer)
      this.#tries.delete(key)
      await this.#running.get(key)
    }
    this.#retries.drop(over)
  }

  /** Ends the tries; the calls stay on disk. */
  async close(): Promise<void> {
    this.#closed = true
    for (const { timer } of this.#tries.values()) clearTimeout(timer)
    await Promise.all(this.#running.values())
  }

  async #run({ call, iat }: Entry): Promise<void> {
    const what = await this.#node.run(call, iat)
    const { ip } = call.params
    if (what !== 'ran') return
    this.works(call.file)
    if (call.action === 'actionban') this.#log(`IP ${ip} banned (${call.file})`)
    else if (call.action === 'actionunban') this.#log(`IP ${ip} unbanned (${call.file})`)
    else this.#log(`done: ${textOf(call)}`)
  }

  #plan(key: string, count: number): void {
    if (this.#closed) return
    const wait = Math.min(RETRY.first * 2 ** count, RETRY.most) * (0.8 + 0.4 * Math.random())
    const timer = setTimeout(() => {
      const running = this.#again(key, count).finally(() => this.#running.delete(key))
      this.#running.set(key, running)
    }, wait)
    this.#tries.set(key, { count, timer })
  }

  async #again(key: string, count: number): Promise<void> {
    const entry = this.#retries.get(key)
    if (!entry) return
    try {
      await this.#run(entry)
      this.#retries.drop([key])
      this.#tries.delete(key)
      this.#log(`${textOf(entry.call)}: done at last`)
    } catch (error) {
      if (isTemporary(error)) return void (this.#tries.has(key) && this.#plan(key, count + 1))
      this.#log(`${textOf(entry.call)}: given up: ${messageOf(error)}`)
      this.#retries.drop([key])
    }
  }
}

/** A bug of ours or a full disk is no reason to lose a ban. */
function isTemporary(error: unknown): boolean {
  return !(error instanceof Failure && (error.code === EXIT.input || error.code === EXIT.config))
}

function keyOf(call: Call): string {
  const { ip } = call.params
  return `${jailOf(call.file, nameOf(call.params))} ${ip ?? call.action}`
}

function textOf({ file, action, params }: Call): string {
  return `${file} ${action}${params.ip === undefined ? '' : ` ${params.ip}`}`
}

/** A call that a node could not carry out yet. */
export interface Entry {
  jti: string
  iss: string
  iat: number
  call: Call
}

/** So many lines more than entries are worth a rewrite. */
const SLACK = 1000

/**
 * The calls that failed and are to be tried again, on disk: once here, a message may be acknowledged,
 * and a failing address does not hold up the others behind it. At most one for each (file, name,
 * address): a later call about the same address takes its place.
 */
export class RetryQueue {
  readonly #path: string
  readonly #entries = new Map<string, Entry>()
  #lines = 0

  /** @throws Failure 75 if the file cannot be read */
  constructor(path: string) {
    this.#path = path
    if (!existsSync(path)) return
    for (const line of readFinished(path).toString('utf8').split('\n')) {
      if (line === '') continue
      const { key, entry } = JSON.parse(line) as { key: string; entry?: Entry }
      if (entry) this.#entries.set(key, entry)
      else this.#entries.delete(key)
    }
    this.#rewrite()
  }

  get(key: string): Entry | undefined {
    return this.#entries.get(key)
  }

  keys(): string[] {
    return [...this.#entries.keys()]
  }

  /** @throws Failure 75 if it cannot be written */
  put(key: string, entry: Entry): void {
    this.#append({ key, entry })
    this.#entries.set(key, entry)
  }

  /** @throws Failure 75 if it cannot be written */
  drop(keys: readonly string[]): void {
    for (const key of keys) {
      if (!this.#entries.has(key)) continue
      this.#append({ key })
      this.#entries.delete(key)
    }
  }

  #append(line: { key: string; entry?: Entry }): void {
    if (this.#lines > this.#entries.size + SLACK) this.#rewrite()
    appendDurably(this.#path, Buffer.from(`${JSON.stringify(line)}\n`))
    this.#lines++
  }

  #rewrite(): void {
    const lines = Array.from(this.#entries, ([key, entry]) => JSON.stringify({ key, entry }))
    replaceDurably(this.#path, lines.map((line) => `${line}\n`).join(''))
    this.#lines = lines.length
  }
}
