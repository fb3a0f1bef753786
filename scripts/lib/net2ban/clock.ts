/** Seconds that messages may take, and clocks that are kept in time may differ. */
const SAME = 1

/** Beyond so many seconds an operator should look after a clock. */
const OFF = 60

/**
 * The server's clock, as a node knows it from what the server sends. Leases end by it: a node whose
 * own clock is off would take a short ban for over, or free late. Between two messages the monotonic
 * clock counts, whatever is done to the other one meanwhile.
 */
export class ServerClock {
  /** What it showed when `monotonic` was 0; epoch seconds. */
  #base: number
  #fresh: boolean

  /** @param ahead what `ahead` was when this node ran last, if it was known */
  constructor(ahead: number | undefined) {
    // Our own may have been set right since: until the server is heard, no ban ends early.
    this.#base = Date.now() / 1000 - Math.max(ahead ?? 0, 0) - monotonic()
    this.#fresh = ahead === undefined
  }

  /**
   * Hears when a message was sent. None comes before that, and many wait for long.
   *
   * @param came by `monotonic`
   * @param prompt true if it has not waited
   */
  hear(sent: number, came: number, prompt: boolean): void {
    const base = sent - came
    if (prompt || this.#fresh || base > this.#base) this.#base = base
    this.#fresh = false
  }

  /** Epoch seconds. */
  now(): number {
    return Date.now() / 1000 - this.ahead
  }

  /** Seconds that our own clock is ahead of it; 0 for hardly any. */
  get ahead(): number {
    const ahead = Date.now() / 1000 - this.#base - monotonic()
    return Math.abs(ahead) > SAME ? ahead : 0
  }

  /** The same in whole seconds, for the next time; undefined if nothing was heard. */
  get known(): number | undefined {
    return this.#fresh ? undefined : Math.round(this.ahead)
  }

  get isOff(): boolean {
    return Math.abs(this.ahead) > OFF
  }
}

/** Seconds by a clock that cannot be set. */
export function monotonic(): number {
  return performance.now() / 1000
}
