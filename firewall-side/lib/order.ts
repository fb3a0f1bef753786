import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import type { Request } from './request.ts'

/** So many leases' last commands are remembered one by one. */
const RECENT = 200

/** The numbers of an owner's last single commands. */
interface Numbers {
  /** Everything older is superseded: what is not remembered one by one any more. */
  floor: number
  /** By address and jail. */
  recent: Record<string, number>
}

/**
 * The order of an owner's single commands. A command whose server has given it up may still be in the
 * network, and arrive after what the server decided later: `banip` after `unbanip`. So each carries
 * a number that grows, and one that is older than the last about the same lease is refused.
 *
 * Kept in /run: what was on its way before a reboot has died with its connection. The caller holds
 * the firewall's lock.
 */
export class Order {
  readonly #path: string

  constructor(run: string, owner: string) {
    this.#path = join(run, `firewall.order.${owner}`)
  }

  /** Notes a command. @throws Failure 75 if it is superseded */
  check(request: Request): void {
    const number = request.said?.order
    const changes = request.verb === 'ban' || request.verb === 'unban' || request.verb === 'flush'
    if (number === undefined || !changes) return
    const numbers = read(this.#path)
    if (request.verb === 'flush') {
      refuseBefore(Math.max(numbers.floor, ...Object.values(numbers.recent)), number)
      this.#save({ floor: number, recent: {} })
    } else {
      const key = `${request.address.text} ${request.jail}`
      refuseBefore(Math.max(numbers.floor, numbers.recent[key] ?? 0), number)
      numbers.recent[key] = number
      this.#save(numbers)
    }
  }

  #save({ floor, recent }: Numbers): void {
    const last = Object.entries(recent).sort(([, a], [, b]) => b - a)
    const forgotten = last.splice(RECENT)[0]?.[1] ?? 0
    const numbers = { floor: Math.max(floor, forgotten), recent: Object.fromEntries(last) }
    try {
      writeFileSync(this.#path, JSON.stringify(numbers), { mode: 0o600 })
    } catch {
      // A full /run: what is decided now is right all the same.
    }
  }
}

/** What says that something newer has been here already. */
export function superseded(newer: number): Failure {
  return new Failure(EXIT.temporary, `superseded: ${newer} is newer`)
}

function refuseBefore(latest: number, number: number): void {
  if (number < latest) throw superseded(latest)
}

function read(path: string): Numbers {
  try {
    const { floor, recent } = JSON.parse(readFileSync(path, 'utf8')) as Numbers
    return { floor, recent: Object.assign(Object.create(null), recent) }
  } catch {
    return { floor: 0, recent: Object.create(null) } // none yet, or half of one
  }
}
