import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { type Address, parseAddress } from '../address.ts'
import { ioFailure } from '../failure.ts'
import { alive, type Lease } from '../lease.ts'
import { Ledger, type Line, RELEASED } from '../ledger.ts'

/** Whose leases a node holds: its own. */
export const OWNER = 'net2ban'

/** So many changes go to the disk together, and would be redone together after a crash. */
const BATCH = 64

/** A lease that is in force here, also if its time is over and it is not unbanned yet. */
export interface Held {
  address: Address
  expires: number
}

/**
 * What a node holds: the ledger, and the intents that a crash leaves behind.
 *
 * A lease stays in force, whatever the time, until it was unbanned here: only what is `RELEASED` is
 * not in the kernel any more.
 */
export class NodeLeases {
  readonly #ledger: Ledger
  readonly #inProgress: InProgress
  /** No lease ends before this moment; infinite for none, 0 if it has to be looked up. */
  #next = 0

  /** @param folder the node's own; two processes on it at a time would lose leases */
  constructor(folder: string) {
    this.#ledger = new Ledger(`${folder}/leases`)
    this.#inProgress = new InProgress(`${folder}/intents`)
    this.#ledger.refresh()
  }

  close(): void {
    this.#inProgress.close()
  }

  /** What a crash has interrupted. */
  interrupted(): Line[] {
    return this.#inProgress.left()
  }

  forget(): void {
    this.#inProgress.end()
  }

  /** When a ban ends that is in force here; undefined if it is not. */
  end(address: Address, jail: string): number | undefined {
    const row = this.#ledger.held(address.text).find((r) => r.jail === jail && r.owner === OWNER)
    return row && row.expires !== RELEASED ? row.expires : undefined
  }

  /** Everything in force in one jail. */
  *held(jail: string): Generator<Held> {
    for (const line of this.#ledger.living(RELEASED)) {
      if (line.jail === jail) yield { address: parseAddress(line.address), expires: line.expires }
    }
  }

  /** Every jail that has something in force. */
  jails(): Set<string> {
    return new Set(Array.from(this.#ledger.living(RELEASED), (line) => line.jail))
  }

  *all(at: number): Generator<Lease> {
    for (const { address, ...row } of this.#ledger.living(at)) {
      yield { address: parseAddress(address), ...row }
    }
  }

  /** What is in force here although its time is over, and when the next lease ends. */
  ended(at: number): { lines: Line[]; next: number | undefined } {
    const lines: Line[] = []
    if (this.#next > at) return { lines, next: finite(this.#next) }
    let next = Number.POSITIVE_INFINITY
    for (const line of this.#ledger.living(RELEASED)) {
      if (!alive(line.expires, at)) lines.push(line)
      else if (line.expires > 0) next = Math.min(next, line.expires)
    }
    this.#next = lines.length > 0 ? 0 : next
    return { lines, next: finite(next) }
  }

  /** What makes a jail's leases exactly these: whatever is over has been unbanned before. */
  difference(jail: string, wanted: readonly Lease[], at: number) {
    const lines = wanted.map(({ address, expires }) => lineOf(address, jail, expires))
    return this.#ledger.diff(OWNER, jail, lines, at)
  }

  /** Notes other ends for bans that go on as they are. @throws Failure 75 */
  note(lines: readonly Line[]): void {
    if (lines.length > 0) this.#write(lines)
    this.#ledger.settle()
  }

  /**
   * Changes what is in force. Each change is on the disk before it is carried out, marked as begun,
   * and taken back if it cannot be carried out.
   *
   * @param act carries out one change; a Failure means that it has had no effect
   * @param together carries out what it can of a batch, and says what
   * @returns what went wrong, for each change that did
   * @throws Failure 75 if nothing can be written; the changes so far stay
   */
  async change(
    changes: readonly Line[],
    act: (line: Line) => Promise<void>,
    together: (batch: readonly Line[]) => Promise<ReadonlySet<Line>> = async () => new Set(),
  ): Promise<Error[]> {
    const failures: Error[] = []
    for (let at = 0; at < changes.length; at += BATCH) {
      const batch = changes.slice(at, at + BATCH)
      const before = batch.map((line) => ({ ...line, expires: this.#endOf(line) }))
      this.#inProgress.begin(batch)
      this.#writeOrEnd(batch)
      const back: Line[] = []
      const done = await together(batch)
      for (const [i, line] of batch.entries()) {
        try {
          if (!done.has(line)) await act(line)
        } catch (error) {
          failures.push(error as Error)
          back.push(before[i] as Line)
        }
      }
      if (back.length > 0) this.#write(back)
      this.#ledger.settle()
      this.#inProgress.end()
    }
    this.#ledger.tidy(RELEASED)
    return failures
  }

  #endOf({ address, jail }: Line): number {
    const row = this.#ledger.held(address).find((r) => r.jail === jail && r.owner === OWNER)
    return row?.expires ?? RELEASED
  }

  #writeOrEnd(lines: readonly Line[]): void {
    try {
      this.#write(lines)
    } catch (error) {
      this.#ledger.discard()
      this.#inProgress.end()
      throw error
    }
  }

  #write(lines: readonly Line[]): void {
    for (const line of lines) {
      this.#ledger.put(line)
      if (line.expires !== RELEASED) this.#next = earlier(this.#next, line.expires)
    }
    this.#ledger.commit()
  }
}

/** A line about a lease of this node. */
export function lineOf(address: Address, jail: string, expires: number): Line {
  return { address: address.text, jail, expires, owner: OWNER }
}

function finite(moment: number): number | undefined {
  return Number.isFinite(moment) ? moment : undefined
}

/** The earlier of two ends, of which 0 as the first means unknown, and as the second never. */
function earlier(known: number, expires: number): number {
  return known === 0 || expires === 0 ? known : Math.min(known, expires)
}

/**
 * What is being done at this moment: one lease line for each, whose end is `RELEASED` for an unban.
 *
 * A kill at any point leaves it to be read by the next process, since what was written is the
 * kernel's then. It is not forced to the disk: after a power cut everything is put back anyway.
 */
export class InProgress {
  readonly #path: string
  readonly #fd: number

  /** @throws Failure 75 if it cannot be opened */
  constructor(path: string) {
    this.#path = path
    try {
      this.#fd = openSync(path, 'a', 0o600)
    } catch (error) {
      throw ioFailure(`open "${path}"`, error)
    }
  }

  /** What a process that was killed had begun and not ended. */
  left(): Line[] {
    const lines = readFileSync(this.#path, 'utf8').split('\n').slice(0, -1)
    return lines.flatMap((raw) => {
      const [address, jail, expires, owner] = raw.split(' ')
      return address && jail && owner ? [{ address, jail, expires: Number(expires), owner }] : []
    })
  }

  /** @throws Failure 75 if it cannot be written; nothing may be done then */
  begin(lines: readonly Line[]): void {
    const text = lines.map((l) => `${l.address} ${l.jail} ${l.expires} ${l.owner}\n`).join('')
    try {
      writeSync(this.#fd, text)
    } catch (error) {
      this.end()
      throw ioFailure(`write "${this.#path}"`, error)
    }
  }

  end(): void {
    ftruncateSync(this.#fd, 0)
  }

  close(): void {
    closeSync(this.#fd)
  }
}
