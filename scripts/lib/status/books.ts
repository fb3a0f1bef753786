import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Address, overlaps, parseAddress } from '../address.ts'
import { BY_HAND, endIn, textOf } from '../delivery/book.ts'
import { canonicalText } from '../delivery/operation.ts'
import { Queue, wordsOf } from '../delivery/queue.ts'
import { Rejections } from '../delivery/rejected.ts'
import { deliveryDirectory, fileNameOf, queueDirectory, readState } from '../delivery/state.ts'
import { alive } from '../lease.ts'
import { Ledger, type Line, LOOK_ONLY, RELEASED } from '../ledger.ts'
import type { Config } from '../settings/schema.ts'

/** A change that a target is still to be told. */
export interface Waiting {
  verb: 'ban' | 'unban'
  address: string
  jail: string
}

/** What the words of a queue come to. */
const VERBS: Record<string, Waiting['verb']> = {
  ban: 'ban',
  hold: 'ban',
  unban: 'unban',
  release: 'unban',
}

/** What nobody has read yet of a queue. */
export interface Unread {
  lines: string[][]
  /** Since when the oldest can have been there, epoch seconds. */
  oldest: number
}

/**
 * The files of the delivery to one sibling, as somebody reads them who has no lock and changes
 * nothing: what is queued, what is wanted, and what each target has confirmed.
 */
export class Books {
  readonly sibling: string
  readonly #config: Config
  readonly #queue: string
  readonly #directory: string
  #wanted: Ledger | undefined

  constructor(config: Config, sibling: string) {
    this.#config = config
    this.sibling = sibling
    this.#queue = join(queueDirectory(config.state_dir), sibling)
    this.#directory = deliveryDirectory(config.state_dir)
  }

  /** The same, as the files are now. */
  anew(): Books {
    return new Books(this.#config, this.sibling)
  }

  /** True if bans go through a queue: somebody has written into one. */
  get isQueued(): boolean {
    return ['', '.taken', '.gone'].some((end) => existsSync(this.#queue + end))
  }

  /** Lines that f2b-deliver has not read. @throws Failure 75 */
  unread(): Unread {
    const queue = new Queue(this.#queue, this.#position())
    const lines: string[][] = []
    try {
      for (let read = queue.read(); read.length > 0; read = queue.read()) {
        for (const line of read)
          lines.push(...[wordsOf(line) ?? []].filter((one) => one.length > 0))
      }
    } finally {
      queue.close()
    }
    return { lines, oldest: lines.length > 0 ? this.#oldest(lines) : 0 }
  }

  /** When the lease is to end, for those that know it to a second otherwise. */
  wants(address: string, jail: string): number | undefined {
    return endIn(this.#book(), this.#config.owner, { address, jail })
  }

  /** What somebody bans by hand. */
  held(): Line[] {
    return [...this.#book().living(Date.now() / 1000)].filter(({ owner }) => owner === BY_HAND)
  }

  /** What the target is to be told, given what it has confirmed. */
  waiting(target: string): Waiting[] {
    const [wanted, confirmed] = [this.#book(), this.#confirmed(target)]
    const now = Date.now() / 1000
    const own = ({ owner }: Line): boolean => owner === this.#config.owner || owner === BY_HAND
    const asked = [...wanted.living(now), ...wanted.ended(now), ...confirmed.living(now)].filter(
      own,
    )
    const all = new Map(asked.map((line) => [textOf(line), line]))
    return [...all.values()].flatMap(({ address, jail }) => {
      const expires = this.wants(address, jail) ?? RELEASED
      if (!isDue(expires, endIn(confirmed, this.#config.owner, { address, jail }), now)) return []
      return [{ verb: alive(expires, now) ? 'ban' : 'unban', address, jail }]
    })
  }

  /** What is on its way about an address: to this target, or to all of the sibling's. */
  about(address: Address, target: string): Waiting[] {
    const unread = this.unread().lines.flatMap(([word = '', ip = '', jail = '']) => {
      const verb = VERBS[word]
      return verb ? [{ verb, address: canonicalText(ip), jail }] : []
    })
    return [...unread, ...this.waiting(target)].filter((one) => touches(one.address, address))
  }

  /** What a target refuses for good. */
  rejected(target: string): Rejections {
    const name = fileNameOf(this.sibling, target)
    return new Rejections(name, readState(this.#directory, name).rejected)
  }

  /** The jails that the books know the address in. */
  jails(address: string): string[] {
    return this.#book()
      .held(address)
      .filter(({ owner }) => owner === this.#config.owner || owner === BY_HAND)
      .map(({ jail }) => jail)
  }

  #confirmed(target: string): Ledger {
    return this.#read(`${fileNameOf(this.sibling, target)}.confirmed`)
  }

  #book(): Ledger {
    this.#wanted ??= this.#read(`${this.sibling}.wanted`)
    return this.#wanted
  }

  #read(name: string): Ledger {
    const ledger = new Ledger(join(this.#directory, name), LOOK_ONLY)
    ledger.refresh()
    return ledger
  }

  /** How far the queue has been read: the last remark of that kind counts. */
  #position(): string {
    const read = this.#book()
      .remarks()
      .filter((line) => line.startsWith('# read '))
    return read.at(-1)?.slice('# read '.length) ?? ''
  }

  /** A line says when its ban began, which may be long before it was written: after a restart. */
  #oldest(lines: string[][]): number {
    const moments = lines
      .flatMap(([verb, , , time]) => (verb === 'ban' ? [Number(time)] : []))
      .filter(Number.isFinite)
    const file = statSync(this.#queue, { throwIfNoEntry: false })
    const read = statSync(join(this.#directory, `${this.sibling}.wanted`), {
      throwIfNoEntry: false,
    })
    const since = (read ?? file)?.[read ? 'mtimeMs' : 'birthtimeMs'] ?? Date.now()
    const first = moments.length > 0 ? Math.min(...moments) : 0
    return Math.floor(Math.min(Math.max(since / 1000, first), Date.now() / 1000))
  }
}

/** Whether a target that has a lease until `has` must be told, if it is wanted until `wanted`. */
function isDue(wanted: number, has: number | undefined, now: number): boolean {
  if (alive(wanted, now)) return has !== wanted
  return wanted === RELEASED && (has === undefined || alive(has, now))
}

/** True if a text is an address that has something in common with this one. */
function touches(text: string, address: Address): boolean {
  try {
    return overlaps(parseAddress(text), address)
  } catch {
    return false
  }
}
