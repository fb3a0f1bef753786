import { randomBytes } from 'node:crypto'
import { Failure } from '../failure.ts'
import { inTurn } from '../in-turn.ts'
import type { ConfirmingChannel, OutgoingMessage } from './broker.ts'
import type { ClientStatus } from './client-status.ts'
import type { Forwarded } from './forwarded.ts'
import { type Claims, compose, type Order, seal } from './message.ts'
import type { Party } from './party.ts'
import { split } from './snapshot.ts'

/** A client, and the number of the last message to it in a run of the server. */
export interface Receiver extends Party {
  run: string
  seq: number
}

/** So many snapshots are remembered: a node answers one at once or never. */
const TOLD = 10_000

/** What an publisher works with. */
export interface PublisherParts {
  /** The exchange that leads to the clients. */
  exchange: string
  /** Of this server: 8 hexadecimal digits. */
  id: string
  clients: readonly Party[]
  forwarded: Forwarded
  due: ClientStatus
  /** Seconds that a message of the server's own is good for. */
  validWtime: number
  log: (line: string) => void
}

/** Everything that the server sends to clients: numbered, and sealed under each client's own key. */
export class Publisher {
  /** What clients were told lately, by message: `<file> for <name>`. */
  readonly told = new Map<string, string>()
  /** All clients, by name. */
  readonly clients: ReadonlyMap<string, Receiver>
  readonly #exchange: string
  readonly #forwarded: Forwarded
  readonly #due: ClientStatus
  readonly #validWtime: number
  readonly #log: (line: string) => void
  /** Messages are published in the order in which they were numbered. */
  readonly #inTurn = inTurn()
  #channel: ConfirmingChannel | undefined
  #closed = false

  constructor({ exchange, id, clients, forwarded, due, validWtime, log }: PublisherParts) {
    const fresh = { run: id + randomBytes(4).toString('hex'), seq: 0 }
    this.clients = new Map(
      clients.map((client) => [client.name, { ...client, ...(due.resume(client.name) ?? fresh) }]),
    )
    this.#exchange = exchange
    this.#forwarded = forwarded
    this.#due = due
    this.#validWtime = validWtime
    this.#log = log
  }

  /** Publishes through this one from now on. */
  use(channel: ConfirmingChannel): void {
    this.#channel = channel
  }

  /**
   * Sends what nodes shall have in one jail, or in all that are known.
   *
   * @param only a jail, as `jailOf` names it
   * @returns when the broker has it
   */
  async tell(receivers: readonly Receiver[], only?: string): Promise<void> {
    const special = this.#forwarded.special(Date.now() / 1000, only)
    const others = receivers.filter(({ name }) => !special.has(name))
    const alone = receivers.filter(({ name }) => special.has(name))
    const telling = alone.map((client) => this.#tellSame([client], only, client.name))
    if (others.length > 0) telling.push(this.#tellSame(others, only))
    await Promise.all(telling)
  }

  async #tellSame(receivers: readonly Receiver[], only?: string, client?: string): Promise<void> {
    const orders = this.#forwarded.snapshots(Date.now() / 1000, only, client).flatMap(split)
    const made = orders.map((order) => compose(order, 'net2ban', this.#validWtime))
    for (const claims of made) {
      if (claims.cmd === 'sync') this.told.set(claims.jti, `${claims.file} for ${claims.name}`)
    }
    for (const [old] of this.told) if (this.told.size > TOLD) this.told.delete(old)
    await this.send(made, receivers)
  }

  /** Tells a client everything, and that this is everything. */
  async tellAll(client: Receiver): Promise<void> {
    const since = client.seq + 1
    const telling = this.tell([client])
    await Promise.all([telling, this.mark(client, { asks: 'lost', since }).done])
  }

  /** Asks a client something, see `Claims`. @returns the message's id, and when the broker has it */
  mark(client: Receiver, mark: Omit<Extract<Order, { cmd: 'mark' }>, 'cmd'>) {
    const claims = compose({ cmd: 'mark', ...mark }, 'net2ban', this.#validWtime)
    return { jti: claims.jti, done: this.send([claims], [client]) }
  }

  /** Numbers nothing any more, so that the next run can go on from here. @throws Failure 75 */
  close(): void {
    this.#closed = true
    for (const { name, run, seq } of this.clients.values()) this.#due.set(name, { run, seq })
  }

  /**
   * Numbers messages, seals them side by side, and publishes them in order.
   *
   * @returns when the broker has them
   */
  send(messages: readonly Claims[], receivers: readonly Receiver[]): Promise<void> {
    if (this.#closed) return Promise.reject(new Error('The server is ending'))
    const sent = Date.now() / 1000
    const sealed = messages.flatMap((claims) =>
      receivers.map((to) => {
        const exp = claims.iat + to.validWtime
        const { client: _, ...rest } = claims
        const own = { ...rest, aud: to.name, exp, run: to.run, seq: ++to.seq, sent } as Claims
        return { to, jti: claims.jti, body: seal(own, to.key) }
      }),
    )
    for (const { body } of sealed) body.catch(() => {})
    const publishing = this.#inTurn(async () => {
      const confirms: Promise<void>[] = []
      for (const { to, jti, body } of sealed) {
        const message = { exchange: this.#exchange, key: to.name, jti, body: await body }
        const confirm = this.#deliver(message, to)
        // A connection that is cut before the last is sealed: it is told once all are on their way.
        confirm.catch(() => {})
        confirms.push(confirm)
      }
      return confirms
    })
    return publishing.then(async (confirms) => void (await Promise.all(confirms)))
  }

  /** What the broker will not take for one client must not hold up the others. */
  async #deliver(message: OutgoingMessage, to: Receiver): Promise<void> {
    try {
      if (!this.#channel) throw new Error('Not connected')
      await this.#channel.send(message)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#log(`lost message ${message.jti} for ${to.name}: ${error.message}`)
      this.#due.set(to.name, { due: true })
    }
  }
}
