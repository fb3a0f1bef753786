import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Channel, ConsumeMessage } from 'amqplib'
import { replaceDurably } from '../durable.ts'
import { codeOf, EXIT, Failure } from '../failure.ts'
import { inTurn } from '../in-turn.ts'
import { checkCall } from './call.ts'
import type { Forwarded } from './forwarded.ts'
import { type Claims, callsOf, Dropped } from './message.ts'
import { leasesOf, Parts } from './snapshot.ts'

/** How many copies may be out, and how long each is left alone, milliseconds. */
const COPIES = 64
const LATER = 100

/** What becomes of the copies that come over one channel. */
export interface Taking {
  /** Sees one to its end; it is acknowledged then. */
  look: (message: ConsumeMessage) => Promise<void>
  /** Told what went wrong; copies come again over another channel. */
  lost: (error: unknown) => void
}

/**
 * What keeps the ledger of a server that stands by: it takes a copy of every order and notes what it
 * does, without forwarding anything. What is wrong with an order, the working server logs.
 */
export class Standby {
  readonly #forwarded: Forwarded
  readonly #parts: Parts
  readonly #inTurn = inTurn()

  /** @param keep seconds that parts of a snapshot are kept */
  constructor(forwarded: Forwarded, folder: string, keep: number) {
    this.#forwarded = forwarded
    this.#parts = new Parts(join(folder, 'copied'), keep)
  }

  /** Takes copies of orders a moment later: what this server forwards is known by then. */
  async take(channel: Channel, queue: string, { look, lost }: Taking): Promise<void> {
    let open = true
    channel.on('close', () => {
      open = false
    })
    // Nothing is run for them, so that they may be many: none of them can hurt.
    await channel.prefetch(COPIES)
    await channel.consume(queue, (message) => {
      if (!message) return lost(new Failure(EXIT.temporary, 'the queue of copies is gone'))
      const later = sleep(LATER)
      this.#inTurn(async () => {
        await later
        await look(message)
        if (open) channel.ack(message)
      }).catch(lost)
    })
  }

  /** @throws Failure 75 if it cannot be written */
  note(claims: Claims, at: number): void {
    try {
      if (claims.cmd === 'exec') {
        for (const one of callsOf(claims)) {
          const call = checkCall(one.file, one.action, one.params)
          this.#forwarded.note({ ...claims, ...call }, at)
        }
      }
      if (claims.cmd !== 'sync') return
      const content = this.#parts.add(claims)
      if (content === undefined) return
      this.#forwarded.replace({ ...claims, leases: leasesOf(content) }, claims, at)
      this.#parts.remove(claims.snapshot)
    } catch (error) {
      if (!(error instanceof Dropped) && codeOf(error) !== EXIT.input) throw error
    }
  }
}

/** What tells a server from others for as long as it keeps its state. */
export function serverId(folder: string): string {
  const path = join(folder, 'id')
  const known = existsSync(path) ? readFileSync(path, 'utf8').trim() : ''
  if (/^[0-9a-f]{8}$/.test(known)) return known
  const id = randomBytes(4).toString('hex')
  replaceDurably(path, `${id}\n`)
  return id
}
