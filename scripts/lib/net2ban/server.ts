import { join } from 'node:path'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib'
import { Failure } from '../failure.ts'
import { inTurn } from '../in-turn.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import { brokerFailure, ConfirmingChannel, type Connection, stayConnected } from './broker.ts'
import { ClientStatus } from './client-status.ts'
import { Dispatcher } from './dispatcher.ts'
import { Forwarded } from './forwarded.ts'
import { type Claims, Dropped, dropLine, open } from './message.ts'
import { clientParty, type Party, serverParty } from './party.ts'
import { Publisher } from './publisher.ts'
import { Repair } from './repair.ts'
import { SeenMessages } from './seen-messages.ts'
import { Parts } from './snapshot.ts'
import { Standby, serverId } from './standby.ts'
import { declare, declareCopy, isDeclared, namesOf, PREFETCH } from './topology.ts'

/** What takes orders over one connection. */
interface Consumer {
  channel: Channel
  open: boolean
  /**
   * The end of the message before. Messages are remembered and acknowledged in order, and none after
   * one that failed, so that those which come again after a kill are the last ones, all of them: an
   * old one alone would undo what a newer one has done.
   */
  ended: Promise<void>
}

/**
 * The forwarding server: takes each message once, in order, and sends it on to every client under
 * that client's own key. A second one waits as hot standby (single active consumer).
 */
export class Server {
  readonly #net2ban: Net2ban
  readonly #log: (line: string) => void
  readonly #self: Party
  readonly #seen: SeenMessages
  readonly #forwarded: Forwarded
  readonly #publisher: Publisher
  readonly #dispatcher: Dispatcher
  readonly #repair: Repair
  readonly #standby: Standby
  readonly #id: string
  /** Messages are looked at in order, and then published in order. */
  readonly #inTurn = inTurn()
  /** Ids of messages that this server is forwarding, and what took each. */
  readonly #handling = new Map<string, Consumer>()
  #committing: Promise<void> | undefined
  #connection: Connection | undefined
  #closed = false

  private constructor(
    net2ban: Net2ban,
    folder: string,
    parties: { self: Party; clients: Party[] },
    log: (line: string) => void,
  ) {
    const { validWtime } = parties.self
    this.#net2ban = net2ban
    this.#log = log
    this.#self = parties.self
    this.#forwarded = new Forwarded(folder, seconds())
    this.#seen = new SeenMessages(join(folder, 'replay'), seconds())
    const parts = new Parts(join(folder, 'parts'), validWtime)
    const due = new ClientStatus(join(folder, 'clients.json'))
    this.#standby = new Standby(this.#forwarded, folder, validWtime)
    this.#id = serverId(folder)
    const shared = { forwarded: this.#forwarded, due, log }
    const exchange = namesOf(net2ban).out
    this.#publisher = new Publisher({
      ...shared,
      exchange,
      id: this.#id,
      clients: parties.clients,
      validWtime,
    })
    this.#dispatcher = new Dispatcher({ ...shared, parts, publisher: this.#publisher })
    this.#repair = new Repair({ ...shared, publisher: this.#publisher, inTurn: this.#inTurn })
  }

  /** Starts it. @param folder where its state is @throws Failure 78, 75 */
  static async start(net2ban: Net2ban, folder: string, log: (line: string) => void) {
    const names = Object.keys(net2ban.clients)
    const clients = await Promise.all(names.map((name) => clientParty(net2ban, name)))
    const server = new Server(net2ban, folder, { self: await serverParty(net2ban), clients }, log)
    const setup = (model: ChannelModel, again: (why: string) => void) => server.#setUp(model, again)
    server.#connection = await stayConnected(net2ban, server.#self, setup, log)
    server.#repair.start()
    return server
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#repair.stop()
    try {
      this.#publisher.close()
    } catch (error) {
      // A full disk: the next run begins anew, and the nodes ask for everything.
      if (!(error instanceof Failure)) throw error
      this.#log(error.message)
    }
    await this.#connection?.close()
  }

  async #setUp(model: ChannelModel, again: (why: string) => void): Promise<void> {
    const lost = (error: unknown) => again(brokerFailure(error, this.#net2ban).message)
    if (this.#forwarded.isNew) this.#forwarded.begin(await isDeclared(model, this.#net2ban))
    const channel = await model.createChannel()
    channel.on('error', lost)
    const seconds = new Map([...this.#publisher.clients].map(([name, c]) => [name, c.validWtime]))
    await declare(channel, this.#net2ban, this.#self, seconds)
    this.#publisher.use(await ConfirmingChannel.open(model, this.#self.user))
    const checker = await model.createChannel()
    checker.on('error', lost)
    this.#repair.use(checker, this.#self.queue)
    const consumer: Consumer = { channel, open: true, ended: Promise.resolve() }
    channel.on('close', () => {
      consumer.open = false
    })
    await channel.prefetch(PREFETCH)
    await channel.consume(this.#self.queue, (message) => {
      if (!message) return again('the input queue is gone')
      this.#repair.takesOrders()
      this.#take(consumer, message).catch((error) => consumer.open && lost(error))
    })
    const copies = await model.createChannel()
    copies.on('error', lost)
    const queue = await declareCopy(copies, this.#net2ban, this.#self, this.#id)
    await this.#standby.take(copies, queue, { look: (message) => this.#note(message), lost })
  }

  /** One delivery, until it is acknowledged. Without an acknowledgement it comes again. */
  async #take(consumer: Consumer, message: ConsumeMessage): Promise<void> {
    const dead = message.fields.exchange === namesOf(this.#net2ban).out
    const opening = dead ? undefined : this.#open(message)
    opening?.catch(() => {})
    const looking = this.#inTurn(async () => {
      const claims = await opening
      return this.#patiently(() => ({
        done: claims ? this.#look(claims, consumer) : this.#repair.onDeadLetter(message),
        claims,
      }))
    })
    try {
      const { done, claims } = await looking
      await done
      if (claims && message.fields.redelivered) {
        await this.#patiently(() => this.#repair.needsSnapshot(this.#dispatcher.receivers(claims)))
      }
    } catch (error) {
      if (!(error instanceof Dropped)) throw error
      this.#log(dropLine(message, error))
    }
    if (consumer.open) consumer.channel.ack(message)
  }

  /** A copy of an order: what this server forwarded itself is known, the rest is noted. */
  async #note(message: ConsumeMessage): Promise<void> {
    const id = message.properties.messageId
    if (this.#seen.has(id) || this.#handling.has(id)) return
    const claims = await this.#open(message).catch(() => undefined)
    if (!claims) return
    await this.#patiently(() => this.#standby.note(claims, seconds()))
    await this.#committed()
  }

  #open({ content }: ConsumeMessage): Promise<Claims> {
    const { key, validWtime } = this.#self
    return open(content, key, { aud: 'server', validWtime, at: seconds() })
  }

  /** @returns when the broker has everything that follows from it */
  #look(claims: Claims, consumer: Consumer): Promise<void> {
    if (this.#seen.has(claims.jti) || this.#handling.get(claims.jti) === consumer) {
      throw new Dropped('replayed', claims)
    }
    const work = this.#dispatcher.handle(claims)
    this.#handling.set(claims.jti, consumer)
    const before = consumer.ended
    const done = async () => {
      await Promise.all([work, this.#committed(), before])
      await this.#patiently(() => {
        this.#seen.add(claims.jti, claims.iat + this.#self.validWtime, seconds())
      })
      this.#dispatcher.forget(claims)
    }
    consumer.ended = done().finally(() => {
      // Over a new connection it may have come again meanwhile.
      if (this.#handling.get(claims.jti) === consumer) this.#handling.delete(claims.jti)
    })
    return consumer.ended
  }

  /** Writes what was noted; one write serves all who ask in the same moment. */
  #committed(): Promise<void> {
    this.#committing ??= immediate().then(() => {
      this.#committing = undefined
      return this.#patiently(() => this.#forwarded.commit(seconds()))
    })
    return this.#committing
  }

  /** A full disk is waited for: each time that a message goes back counts against it. */
  async #patiently<T>(work: () => T): Promise<T> {
    for (let told = false; ; told = true) {
      try {
        return work()
      } catch (error) {
        if (!(error instanceof Failure) || this.#closed) throw error
        if (!told) this.#log(error.message)
        await sleep(2000)
      }
    }
  }
}

function seconds(): number {
  return Date.now() / 1000
}
