import { randomUUID } from 'node:crypto'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { type Call, checkCall, jailOf, nameOf } from './call.ts'
import type { Forwarded } from './forwarded.ts'
import { type Claims, callsOf, Dropped } from './message.ts'
import type { Publisher, Receiver } from './publisher.ts'
import { leasesOf, type Parts } from './snapshot.ts'

type Exec = Extract<Claims, { cmd: 'exec' }>
type Sync = Extract<Claims, { cmd: 'sync' }>

/** What orders are handled with. */
export interface DispatcherParts {
  forwarded: Forwarded
  /** Of senders' snapshots. */
  parts: Parts
  publisher: Publisher
  log: (line: string) => void
}

/** What a sender's order means for the clients, given what other senders want. */
export class Dispatcher {
  readonly #forwarded: Forwarded
  readonly #parts: Parts
  readonly #publisher: Publisher
  readonly #log: (line: string) => void

  constructor({ forwarded, parts, publisher, log }: DispatcherParts) {
    this.#forwarded = forwarded
    this.#parts = parts
    this.#publisher = publisher
    this.#log = log
  }

  /**
   * Notes what an order does, and sends what follows from it.
   *
   * @returns when the broker has all of it
   * @throws Dropped if it is malformed; Failure 75 if it cannot be noted
   */
  handle(claims: Claims): Promise<void> {
    const only = this.receivers(claims)
    if (claims.cmd === 'mark') throw new Dropped('malformed', claims)
    if (claims.cmd === 'update') {
      this.#log(`Forwarding: update/${claims.file} from ${claims.iss} to ${claims.client}`)
      return this.#publisher.send([claims], only)
    }
    if (claims.cmd === 'sync') return this.#sync(claims, only)
    const calls = malformed(claims, () =>
      callsOf(claims).map(({ file, action, params }) => checkCall(file, action, params)),
    )
    return this.#exec(claims, calls, only)
  }

  /** Whom an order is for. @throws Dropped if there is no such client */
  receivers(claims: Claims): Receiver[] {
    if (claims.client === undefined) {
      if (claims.cmd === 'update') throw new Dropped('malformed', claims)
      return [...this.#publisher.clients.values()]
    }
    const one = this.#publisher.clients.get(claims.client)
    if (!one) throw new Dropped('malformed', claims)
    return [one]
  }

  /** Lets go of what was kept for an order that will not come again. */
  forget(claims: Claims): void {
    if (claims.cmd === 'sync' && claims.part === claims.parts) this.#parts.remove(claims.snapshot)
  }

  /** Forwards calls together, but for those that other senders' leases make something else of. */
  #exec(claims: Exec, calls: Call[], only: Receiver[]): Promise<void> {
    // All are noted before the first is sent: where a full disk is in the way, all of it is repeated.
    const verdicts = calls.map((call) =>
      this.#forwarded.note({ ...claims, ...call }, Date.now() / 1000),
    )
    const work: Promise<void>[] = []
    let group: Call[] = []
    const flush = () => {
      const [first, ...more] = group
      group = []
      if (!first) return
      const rest = more.length > 0 ? ` (and ${more.length} more)` : ''
      this.#log(`Forwarding: exec/${textOf(first)}${rest} from ${claims.iss}`)
      const { more: _, ...own } = claims
      const jti = work.length === 0 ? claims.jti : randomUUID()
      const order = { ...own, ...first, jti, ...(more.length > 0 && { more }) } as Claims
      work.push(this.#publisher.send([order], only))
    }
    for (const [i, call] of calls.entries()) {
      const verdict = verdicts[i]
      if (verdict === 'forward') group.push(call)
      else if (verdict === 'keep') {
        this.#log(`Keeping: ${textOf(call)} from ${claims.iss}: another sender still wants it`)
      } else {
        flush()
        work.push(this.#publisher.tell(only, jailOf(call.file, nameOf(call.params))))
      }
    }
    flush()
    return Promise.all(work).then(() => {})
  }

  /** A sender's snapshot: nodes are told what all senders together want in that jail. */
  #sync(claims: Sync, only: Receiver[]): Promise<void> {
    const content = malformed(claims, () => this.#parts.add(claims))
    if (content === undefined) return Promise.resolve()
    const leases = malformed(claims, () => leasesOf(content))
    this.#forwarded.replace({ ...claims, leases }, claims, Date.now() / 1000)
    this.#log(`Forwarding: sync/${claims.file} ${claims.name} from ${claims.iss}: ${leases.length}`)
    return this.#publisher.tell(only, jailOf(claims.file, claims.name))
  }
}

function textOf({ file, action, params }: Call): string {
  return `${file} ${action} ${params.ip ?? ''}`.trim()
}

/** What a sender got wrong (65) is the message's fault; what the disk did is not. */
function malformed<T>(claims: Claims, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof Failure && error.code === EXIT.input) {
      throw new Dropped('malformed', claims, messageOf(error))
    }
    throw error
  }
}
