import { setTimeout as sleep } from 'node:timers/promises'

/** A wrong login is answered so late, and those of a source one after another. */
const WRONG_MS = 1_000
/** So many may wait; further ones are not looked at. */
const MOST = 8

/**
 * Lets each source try one wrong login a second, however many connections it opens and however many
 * requests it sends ahead. While one waits, a right login from there waits as well: or it would be
 * known by its speed.
 */
export class Guesses {
  /** When the last wrong login of a source will have been answered; as performance.now(). */
  readonly #until = new Map<string, number>()

  /**
   * When to answer a login.
   *
   * @returns 0 for at once, or undefined for not at all: too many of the source wait
   */
  judge(source: string, right: boolean): 0 | Promise<void> | undefined {
    const now = performance.now()
    const until = Math.max(this.#until.get(source) ?? 0, now)
    if (right && until === now) return 0
    if (until - now > (MOST - 1) * WRONG_MS) return undefined
    const at = right ? until : until + WRONG_MS
    this.#until.set(source, at)
    return this.#wait(source, at)
  }

  async #wait(source: string, at: number): Promise<void> {
    await sleep(at - performance.now(), undefined, { ref: false })
    if (this.#until.get(source) === at) this.#until.delete(source)
  }
}
