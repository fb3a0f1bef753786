import { join } from 'node:path'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { Unmet } from './actions.ts'
import { type Call, checkCall, jailOf, nameOf } from './call.ts'
import type { Claims } from './message.ts'
import type { Node } from './node.ts'
import { type Entry, Parked } from './parked.ts'

/** Milliseconds before a failed call is tried again: doubled each time, up to a minute. */
const RETRY = { first: 1000, most: 60_000 }

type Sent = Pick<Claims, 'jti' | 'iss' | 'iat'>

/**
 * Runs calls on the node, and what fails again and again, with back-off, until it works, until its
 * lease is over, or until a later call supersedes it.
 */
export class Worker {
  readonly #node: Node
  readonly #parked: Parked
  readonly #log: (line: string) => void
  /** Tries and timers of what is parked, by key. */
  readonly #tries = new Map<string, { count: number; timer: NodeJS.Timeout }>()
  /** The try that is under way, by key. */
  readonly #running = new Map<string, Promise<unknown>>()
  /** What files cannot be used for, as it was told. */
  readonly #unmet = new Map<string, string>()
  #closed = false

  /** @param folder where the parked calls are @throws Failure 75 */
  constructor(node: Node, folder: string, log: (line: string) => void) {
    this.#node = node
    this.#log = log
    this.#parked = new Parked(join(folder, 'parked'))
    for (const key of this.#parked.keys()) this.#plan(key, 0)
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
    await this.supersede(call.file, nameOf(call.params), call.params.ip)
    try {
      await this.#run({ jti, iss, iat, call })
      return true
    } catch (error) {
      if (!isTemporary(error)) throw error
      this.#parked.put(key, { jti, iss, iat, call })
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
  async supersede(file: string, name: string, ip?: string): Promise<void> {
    const prefix = `${jailOf(file, name)} `
    const keys = this.#parked.keys()
    const over = keys.filter((key) => (ip ? key === prefix + ip : key.startsWith(prefix)))
    for (const key of over) {
      clearTimeout(this.#tries.get(key)?.timer)
      this.#tries.delete(key)
      await this.#running.get(key)
    }
    this.#parked.drop(over)
  }

  /** Ends the tries; what is parked stays on disk. */
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
    const entry = this.#parked.get(key)
    if (!entry) return
    try {
      await this.#run(entry)
      this.#parked.drop([key])
      this.#tries.delete(key)
      this.#log(`${textOf(entry.call)}: done at last`)
    } catch (error) {
      if (isTemporary(error)) return void (this.#tries.has(key) && this.#plan(key, count + 1))
      this.#log(`${textOf(entry.call)}: given up: ${messageOf(error)}`)
      this.#parked.drop([key])
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
