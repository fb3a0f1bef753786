import { createHash } from 'node:crypto'
import { parseAddress } from '../address.ts'
import type { Failure } from '../failure.ts'
import { alive, isSameEnd, now } from '../lease.ts'
import { type Kept, rejectedIn } from './state.ts'

/** A change that a target, or the delivery itself, refuses for good. */
export interface Rejection {
  /** Names it for `f2b-status --acknowledge`. */
  id: string
  /** Epoch seconds: when it happened, and when it was last tried again. */
  at: number
  tried: number
  code: number
  reason: string
  /** The change as a person reads it: `ban 203.0.113.7 in sshd`, or a line that cannot be read. */
  change: string
  /** What tells it from other changes. */
  key: string
  /** When the refused ban ends; 1 for what is none. */
  expires: number
  acknowledged: boolean
}

/** What is to be noted about a change that was refused. */
export type Refused = Pick<Rejection, 'change' | 'key' | 'expires'>

/** Seconds: how long what is over is shown, and how soon a target is asked again. */
const DAY = 86_400
const AGAIN = 3_600

/** More than a server has of them unless everything is wrong; the oldest go first. */
const MOST = 10_000

/**
 * The changes that one target, or all of a sibling, have refused for good, in the order in which they
 * happened. One that is refused again is the same unless it is another ban: only then it happened
 * anew, and has to be acknowledged anew.
 */
export class Rejections {
  readonly #place: string
  readonly #kept: Kept

  /** @param place whose they are, for the ids; @param kept who holds it commits what is noted here */
  constructor(place: string, kept: Kept) {
    this.#place = place
    this.#kept = kept
  }

  list(): Rejection[] {
    return rejectedIn(this.#kept)
  }

  /** @returns true if it happened anew */
  note({ change, key, expires }: Refused, { code, message }: Failure): boolean {
    const known = this.#get(key)
    const tried = now()
    if (known && isSameEnd(known.expires, expires)) {
      this.#kept.set(key, { ...known, tried, code, reason: message })
      return false
    }
    const id = createHash('sha256').update(`${this.#place} ${key}`).digest('hex').slice(0, 6)
    const one = { id, at: tried, tried, code, reason: message, change, key, expires }
    this.#kept.set(key, { ...one, acknowledged: false })
    if (this.#kept.size > MOST) {
      for (const oldest of this.list().slice(0, MOST / 10)) this.#kept.delete(oldest.key)
    }
    return true
  }

  /** True if it makes no sense to try this ban again now. */
  refuses(key: string, expires: number): boolean {
    return this.has(key, expires) && now() - (this.#get(key)?.tried ?? 0) < AGAIN
  }

  /** True if this very ban was refused. */
  has(key: string, expires: number): boolean {
    const known = this.#get(key)
    return known !== undefined && isSameEnd(known.expires, expires)
  }

  /** Says that it was taken after all, or is not wanted any more. @returns true if it was known */
  forget(key: string): boolean {
    return this.#kept.delete(key)
  }

  /** Forgets what is over, has been seen or is old, and so is no problem any more. */
  forgetOld(): void {
    for (const { key, at, expires, acknowledged } of this.list()) {
      const over = !alive(expires, now())
      if (over && (acknowledged || at <= now() - DAY)) this.#kept.delete(key)
    }
  }

  /** @param word an id, an address, or `all` @returns what was acknowledged */
  acknowledge(word: string): Rejection[] {
    const address = canonical(word)
    const meant = this.list().filter(({ id, key, acknowledged }) => {
      const isMeant = word === 'all' || word === id || key.split(' ')[1] === address
      return isMeant && !acknowledged
    })
    for (const one of meant) this.#kept.set(one.key, { ...one, acknowledged: true })
    return meant
  }

  #get(key: string): Rejection | undefined {
    const one = this.#kept.get(key)
    return one && 'key' in one ? one : undefined
  }
}

/** What names a ban among the refused ones. */
export function banKey(address: string, jail: string): string {
  return `ban ${address} ${jail}`
}

function canonical(word: string): string | undefined {
  try {
    return parseAddress(word).text
  } catch {
    return undefined
  }
}
