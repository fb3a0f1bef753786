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
  /** By address and jail: the last ban, and the last unban. */
  recent: Record<string, { ban: number; unban: number }>
}

/**
 * The order of an owner's single commands. A command whose server has given it up may still be in the
 * network, and arrive after what the server decided later: `banip` after `unbanip`. So each carries
 * a number that grows, and one that is older than the last to the contrary about the same lease is
 * refused. Of twenty bans of an address at the same moment, all are right in any order.
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
      const bans = Object.values(numbers.recent).map(({ ban }) => ban)
      refuseBefore(Math.max(numbers.floor, ...bans), number)
      this.#save({ floor: number, recent: {} })
      return
    }
    const key = `${request.address.text} ${request.jail}`
    const last = numbers.recent[key] ?? { ban: 0, unban: 0 }
    const contrary = request.verb === 'ban' ? last.unban : last.ban
    refuseBefore(Math.max(numbers.floor, contrary), number)
    last[request.verb] = Math.max(last[request.verb], number)
    numbers.recent[key] = last
    this.#save(numbers)
  }

  #save({ floor, recent }: Numbers): void {
    const newest = ([, { ban, unban }]: [string, { ban: number; unban: number }]): number =>
      Math.max(ban, unban)
    const last = Object.entries(recent).sort((a, b) => newest(b) - newest(a))
    const forgotten = last.splice(RECENT).map(newest)[0] ?? 0
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
