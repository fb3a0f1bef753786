import { randomBytes } from 'node:crypto'
import { Failure } from '../failure.ts'
import { inTurn } from '../in-turn.ts'
import type { Due } from './due.ts'
import type { Forwarded } from './forwarded.ts'
import { type Claims, compose, seal } from './message.ts'
import type { Party } from './party.ts'
import type { Parcel, Publisher } from './publisher.ts'
import { split } from './snapshot.ts'

/** A client, and the number of the last message to it in this run. */
export interface Receiver extends Party {
  seq: number
}

/** So many snapshots are remembered: a node answers one at once or never. */
const TOLD = 10_000

/** What an outbox works with. */
export interface OutboxParts {
  /** The exchange that leads to the clients. */
  exchange: string
  clients: readonly Party[]
  forwarded: Forwarded
  due: Due
  /** Seconds that a message of the server's own is good for. */
  validWtime: number
  log: (line: string) => void
}

/** Everything that the server sends to clients: numbered, and sealed under each client's own key. */
export class Outbox {
  /** What clients were told lately, by message: `<file> for <name>`. */
  readonly told = new Map<string, string>()
  /** All clients, by name. */
  readonly clients: ReadonlyMap<string, Receiver>
  readonly #exchange: string
  readonly #forwarded: Forwarded
  readonly #due: Due
  readonly #validWtime: number
  readonly #log: (line: string) => void
  /** Which run of the server numbers the messages. */
  readonly #run = randomBytes(8).toString('hex')
  /** Messages are published in the order in which they were numbered. */
  readonly #inTurn = inTurn()
  #publisher: Publisher | undefined

  constructor({ exchange, clients, forwarded, due, validWtime, log }: OutboxParts) {
    this.clients = new Map(clients.map((client) => [client.name, { ...client, seq: 0 }]))
    this.#exchange = exchange
    this.#forwarded = forwarded
    this.#due = due
    this.#validWtime = validWtime
    this.#log = log
  }

  /** Publishes through this one from now on. */
  use(publisher: Publisher): void {
    this.#publisher = publisher
  }

  /**
   * Sends what nodes shall have in one jail, or in all that are known.
   *
   * @param only a jail, as `jailOf` names it
   * @returns when the broker has it
   */
  async tell(receivers: readonly Receiver[], only?: string): Promise<void> {
    const orders = this.#forwarded.snapshots(Date.now() / 1000, only).flatMap(split)
    const made = orders.map((order) => compose(order, 'net2ban', this.#validWtime))
    for (const claims of made) {
      if (claims.cmd === 'sync') this.told.set(claims.jti, `${claims.file} for ${claims.name}`)
    }
    for (const [old] of this.told) if (this.told.size > TOLD) this.told.delete(old)
    await this.send(made, receivers)
  }

  /**
   * Numbers messages, seals them side by side, and publishes them in order.
   *
   * @returns when the broker has them
   */
  send(messages: readonly Claims[], receivers: readonly Receiver[]): Promise<void> {
    const sealed = messages.flatMap((claims) =>
      receivers.map((to) => {
        const exp = claims.iat + to.validWtime
        const { client: _, ...rest } = claims
        const own = { ...rest, aud: to.name, exp, run: this.#run, seq: ++to.seq } as Claims
        return { to, jti: claims.jti, body: seal(own, to.key) }
      }),
    )
    for (const { body } of sealed) body.catch(() => {})
    const publishing = this.#inTurn(async () => {
      const confirms: Promise<void>[] = []
      for (const { to, jti, body } of sealed) {
        const parcel = { exchange: this.#exchange, key: to.name, jti, body: await body }
        confirms.push(this.#deliver(parcel, to))
      }
      return confirms
    })
    return publishing.then(async (confirms) => void (await Promise.all(confirms)))
  }

  /** What the broker will not take for one client must not hold up the others. */
  async #deliver(parcel: Parcel, to: Receiver): Promise<void> {
    try {
      if (!this.#publisher) throw new Error('Not connected')
      await this.#publisher.send(parcel)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#log(`lost message ${parcel.jti} for ${to.name}: ${error.message}`)
      this.#due.set(to.name, { due: true })
    }
  }
}
