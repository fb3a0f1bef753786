import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import type { Ledger } from '../../scripts/lib/ledger.ts'
import { isRunning } from './turns.ts'

/** What one owner may do in a minute. A thousand a second for ever; a flood waits. */
const OPERATIONS = 60_000

/** How our part of the kernel is laid out. What a program of another layout has left is made anew. */
const LAYOUT = 2

interface Counts {
  layout: number
  /** The ledger that the counts belong to, so that one edited by hand is counted anew. */
  ledger: string
  /** Leases per owner; at least as many as are in force, since some end by themselves. */
  leases: Record<string, number>
  /** Operations per owner since the beginning of the minute. */
  minute: number
  operations: Record<string, number>
  /** Whose leases a process is changing in pieces, and what other processes of its owner have said since. */
  pieces: Record<string, { pid: number; newer: string[] }>
  /** The never-ban list that the kernel has. */
  never: string
  /** What our part of the kernel looked like after our last change. */
  shape: string | undefined
  /** When leases longer than the kernel can count were last renewed, epoch seconds. */
  renewed: number
  /** Bytes of the ledger after it was last rewritten. */
  compacted: number
}

/**
 * Counts that a ban needs and that would cost a walk through the ledger. They are a convenience kept
 * in /run: lost or stale, they are counted again.
 */
export class Usage {
  readonly #path: string
  #counts: Counts
  #unclean = false

  constructor(directory: string) {
    this.#path = join(directory, 'firewall.usage')
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    this.#counts = read(this.#path)
  }

  get never(): string {
    return this.#counts.never
  }

  set never(text: string) {
    this.#counts.never = text
  }

  get shape(): string | undefined {
    return this.#counts.shape
  }

  set shape(digest: string | undefined) {
    this.#counts.shape = digest
  }

  /**
   * True if the last change of the kernel was not seen to its end, or nobody knows: its process was
   * killed, the ledger was edited by hand, what stood in /run is gone.
   */
  get unclean(): boolean {
    return this.#unclean
  }

  /** Says that the kernel is about to be changed; until `save`, nobody knows what it holds. */
  begin(): void {
    this.#write('')
  }

  get renewed(): number {
    return this.#counts.renewed
  }

  set renewed(at: number) {
    this.#counts.renewed = at
  }

  get compacted(): number {
    return this.#counts.compacted
  }

  set compacted(bytes: number) {
    this.#counts.compacted = bytes
  }

  /** Reads the counts; those of another ledger are counted anew. */
  load(ledger: Ledger, at: number): void {
    this.#counts = read(this.#path)
    this.#unclean = this.#counts.ledger !== ledger.stamp || this.#counts.shape === undefined
    if (this.#counts.ledger !== ledger.stamp) this.recount(ledger, at)
  }

  /** Counts the leases in force anew. */
  recount(ledger: Ledger, at: number): void {
    const leases = byOwner<number>()
    for (const { owner } of ledger.living(at)) leases[owner] = (leases[owner] ?? 0) + 1
    this.#counts.leases = leases
  }

  /** @throws Failure 75 if the owner does too much */
  operation(owner: string, at: number): void {
    const minute = Math.floor(at / 60)
    if (this.#counts.minute !== minute) {
      this.#counts.minute = minute
      this.#counts.operations = byOwner()
    }
    const done = (this.#counts.operations[owner] ?? 0) + 1
    this.#counts.operations[owner] = done
    if (done > OPERATIONS) {
      throw new Failure(
        EXIT.temporary,
        `more than ${OPERATIONS} operations a minute: wait a minute`,
      )
    }
  }

  /** Says that this process is changing an owner's leases in pieces. */
  beginPieces(owner: string): void {
    if (this.#counts.pieces[owner]?.pid === process.pid) return
    this.#counts.pieces[owner] = { pid: process.pid, newer: [] }
  }

  endPieces(owner: string): void {
    delete this.#counts.pieces[owner]
  }

  /** Notes that an owner has said something about a lease, should another process be doing so. */
  noteNewer(owner: string, lease: string): void {
    const pieces = this.#counts.pieces[owner]
    if (!pieces) return
    // One of our own that failed, or one that was killed, is over.
    if (pieces.pid !== process.pid && isRunning(pieces.pid)) pieces.newer.push(lease)
    else this.endPieces(owner)
  }

  /** What was noted since `beginPieces`. */
  newer(owner: string): readonly string[] {
    return this.#counts.pieces[owner]?.newer ?? []
  }

  leases(owner: string): number {
    return this.#counts.leases[owner] ?? 0
  }

  add(owner: string, leases: number): void {
    this.#counts.leases[owner] = Math.max(0, this.leases(owner) + leases)
  }

  save(ledger: Ledger): void {
    this.#write(ledger.stamp)
  }

  #write(stamp: string): void {
    this.#counts.ledger = stamp
    try {
      writeFileSync(this.#path, JSON.stringify(this.#counts), { mode: 0o600 })
    } catch {
      // A full /run: the next one counts again, and what was done is done.
    }
  }
}

/** An owner may be called `constructor`, which every other object has. */
function byOwner<T>(known: Record<string, T> = {}): Record<string, T> {
  return Object.assign(Object.create(null) as Record<string, T>, known)
}

function read(path: string): Counts {
  let known: Partial<Counts> = {}
  try {
    known = JSON.parse(readFileSync(path, 'utf8')) as Partial<Counts>
  } catch {
    // None yet, or half of one: it is counted again.
  }
  return {
    ledger: '',
    minute: 0,
    never: '',
    renewed: 0,
    compacted: 0,
    ...known,
    layout: LAYOUT,
    shape: known.layout === LAYOUT ? known.shape : undefined,
    leases: byOwner(known.leases),
    pieces: byOwner(known.pieces),
    operations: byOwner(known.operations),
  }
}
