import { randomBytes, randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib'
import { EXIT, Failure, messageOf } from '../failure.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import { brokerFailure, type Standing, stayConnected } from './broker.ts'
import { type Call, checkCall, jailOf, nameOf } from './call.ts'
import { Copy, serverId } from './copy.ts'
import { dropLine } from './drop.ts'
import { Due } from './due.ts'
import { Forwarded } from './forwarded.ts'
import { type Claims, callsOf, compose, Dropped, open, seal } from './message.ts'
import { clientParty, type Party, serverParty } from './party.ts'
import { Publisher } from './publisher.ts'
import { Replay } from './replay.ts'
import { leasesOf, Parts, split } from './snapshot.ts'
import { declare, declareCopy, namesOf, PREFETCH } from './topology.ts'

/** Milliseconds between two looks at who is due, and the least between two snapshots for one. */
const TICK = 1000
const PAUSE = 5000

/** How many copies may be out, and how long each is left alone, milliseconds. */
const COPIES = 64
const LATER = 100

/** A client, and what was sent to it in this run. */
interface Receiver extends Party {
  seq: number
  told: number
}

type Exec = Extract<Claims, { cmd: 'exec' }>

/** One connection's consumer. */
interface Line {
  channel: Channel
  open: boolean
  /** Ids that came over it and are not acknowledged yet. */
  inHand: Set<string>
}

/**
 * The forwarding server: takes each message once, in order, and sends it on to every client under
 * that client's own key. A second one waits as hot standby (single active consumer).
 *
 * Clients may publish nothing. One that missed something rejects a message, and a message that
 * expires in its queue dies, too: dead letters come back here, and whoever they are of is told
 * everything again as soon as it is online.
 */
export class Server {
  readonly #net2ban: Net2ban
  readonly #log: (line: string) => void
  readonly #self: Party
  readonly #clients: Map<string, Receiver>
  readonly #replay: Replay
  readonly #forwarded: Forwarded
  readonly #parts: Parts
  readonly #due: Due
  readonly #copy: Copy
  readonly #id: string
  /** Which run of the server numbers the messages. */
  readonly #run = randomBytes(8).toString('hex')
  #publisher: Publisher | undefined
  #checker: Channel | undefined
  /** Messages are looked at in order, and then published in order. */
  #looked: Promise<unknown> = Promise.resolve()
  #published: Promise<unknown> = Promise.resolve()
  #copied: Promise<unknown> = Promise.resolve()
  /**
   * The end of the message before. Messages are remembered and acknowledged in order, so that those
   * which come again after a kill are the last ones, all of them: an old one alone would undo what a
   * newer one has done.
   */
  #ended: Promise<void> = Promise.resolve()
  /** Ids of messages that this server is forwarding. */
  readonly #handling = new Set<string>()
  #committing: Promise<void> | undefined
  #standing: Standing | undefined
  #timer: NodeJS.Timeout | undefined
  #closed = false

  private constructor(
    net2ban: Net2ban,
    folder: string,
    parties: { self: Party; clients: Party[] },
    log: (line: string) => void,
  ) {
    this.#net2ban = net2ban
    this.#log = log
    this.#self = parties.self
    this.#clients = new Map(parties.clients.map((c) => [c.name, { ...c, seq: 0, told: 0 }]))
    this.#forwarded = new Forwarded(folder, seconds())
    this.#replay = new Replay(join(folder, 'replay'), seconds())
    this.#parts = new Parts(join(folder, 'parts'), parties.self.validWtime)
    this.#due = new Due(join(folder, 'clients.json'))
    this.#copy = new Copy(this.#forwarded, folder, parties.self.validWtime)
    this.#id = serverId(folder)
  }

  /** Starts it. @param folder where its state is @throws Failure 78, 75 */
  static async start(net2ban: Net2ban, folder: string, log: (line: string) => void) {
    const names = Object.keys(net2ban.clients)
    const clients = await Promise.all(names.map((name) => clientParty(net2ban, name)))
    const server = new Server(net2ban, folder, { self: await serverParty(net2ban), clients }, log)
    const setup = (model: ChannelModel, again: (why: string) => void) => server.#setUp(model, again)
    server.#standing = await stayConnected(net2ban, server.#self, setup, log)
    server.#timer = setInterval(() => void server.#repair(), TICK)
    return server
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    await this.#standing?.close()
  }

  async #setUp(model: ChannelModel, again: (why: string) => void): Promise<void> {
    const lost = (error: unknown) => again(brokerFailure(error, this.#net2ban).message)
    const channel = await model.createChannel()
    channel.on('error', lost)
    const seconds = new Map([...this.#clients].map(([name, c]) => [name, c.validWtime]))
    await declare(channel, this.#net2ban, this.#self, seconds)
    this.#publisher = await Publisher.open(model, this.#self.user)
    this.#checker = await model.createChannel()
    this.#checker.on('error', lost)
    const line: Line = { channel, open: true, inHand: new Set() }
    channel.on('close', () => {
      line.open = false
    })
    await channel.prefetch(PREFETCH)
    this.#ended = Promise.resolve()
    await channel.consume(this.#self.queue, (message) => {
      if (!message) return again('the input queue is gone')
      this.#take(line, message).catch((error) => line.open && lost(error))
    })
    await this.#copyAll(await model.createChannel(), again)
  }

  /** Looks at copies of orders a moment later: what this server forwards is known by then. */
  async #copyAll(channel: Channel, again: (why: string) => void): Promise<void> {
    const lost = (error: unknown) => again(brokerFailure(error, this.#net2ban).message)
    const line: Line = { channel, open: true, inHand: new Set() }
    channel.on('error', lost)
    channel.on('close', () => {
      line.open = false
    })
    const copies = await declareCopy(channel, this.#net2ban, this.#self, this.#id)
    // Nothing is run for them, so that they may be many: none of them can hurt.
    await channel.prefetch(COPIES)
    await channel.consume(copies, (message) => {
      if (!message) return again('the queue of copies is gone')
      const later = sleep(LATER)
      this.#copied = this.#copied
        .then(() => later)
        .then(() => this.#note(line, message))
        .catch(lost)
    })
  }

  /** One delivery, until it is acknowledged. Without an acknowledgement it comes again. */
  async #take(line: Line, message: ConsumeMessage): Promise<void> {
    const options = { aud: 'server', validWtime: this.#self.validWtime, at: seconds() }
    const dead = message.fields.exchange === namesOf(this.#net2ban).out
    const opening = dead ? undefined : open(message.content, this.#self.key, options)
    opening?.catch(() => {})
    const looking = this.#looked.then(async () => {
      const claims = await opening
      return this.#patiently(() => ({
        done: claims ? this.#look(claims, line.inHand) : this.#bury(message),
        claims,
      }))
    })
    this.#looked = looking.catch(() => {})
    try {
      const { done, claims } = await looking
      await done
      if (claims && message.fields.redelivered) this.#mayLack(claims)
    } catch (error) {
      if (!(error instanceof Dropped)) throw error
      this.#log(dropLine(message, error))
    }
    if (line.open) line.channel.ack(message)
  }

  /**
   * It was forwarded before, perhaps, by a server that was killed; a node that has it drops it now, and
   * may have been told everything without it in between: so it is told everything once more.
   */
  #mayLack(claims: Claims): void {
    for (const { name } of this.#receivers(claims)) this.#due.set(name, { due: true })
  }

  /** A copy of an order: what this server forwarded itself is known, the rest is noted. */
  async #note(line: Line, message: ConsumeMessage): Promise<void> {
    const id = message.properties.messageId
    if (!this.#replay.has(id) && !this.#handling.has(id)) {
      const options = { aud: 'server', validWtime: this.#self.validWtime, at: seconds() }
      const claims = await open(message.content, this.#self.key, options).catch(() => undefined)
      if (claims) {
        await this.#patiently(() => this.#copy.note(claims, seconds()))
        await this.#committed()
      }
    }
    if (line.open) line.channel.ack(message)
  }

  /** @returns when the broker has everything that follows from it */
  #look(claims: Claims, inHand: Set<string>): Promise<void> {
    if (this.#replay.has(claims.jti) || inHand.has(claims.jti)) {
      throw new Dropped('replayed', claims)
    }
    const work = this.#obey(claims)
    inHand.add(claims.jti)
    this.#handling.add(claims.jti)
    const before = this.#ended
    const done = async () => {
      await Promise.all([work, this.#committed(), before])
      await this.#patiently(() => {
        this.#replay.add(claims.jti, claims.iat + this.#self.validWtime, seconds())
      })
      if (claims.cmd === 'sync' && claims.part === claims.parts) this.#parts.remove(claims.snapshot)
    }
    this.#ended = done().finally(() => {
      inHand.delete(claims.jti)
      this.#handling.delete(claims.jti)
    })
    return this.#ended
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

  #obey(claims: Claims): Promise<void> {
    const only = this.#receivers(claims)
    if (claims.cmd === 'update') {
      this.#log(`Forwarding: update/${claims.file} from ${claims.iss} to ${claims.client}`)
      return this.#send([claims], only)
    }
    if (claims.cmd === 'sync') return this.#sync(claims, only)
    const calls = malformed(claims, () =>
      callsOf(claims).map(({ file, action, params }) => checkCall(file, action, params)),
    )
    return this.#exec(claims, calls, only)
  }

  /** Forwards calls together, but for those that other senders' leases make something else of. */
  async #exec(claims: Exec, calls: Call[], only: Receiver[]): Promise<void> {
    const work: Promise<void>[] = []
    let group: Call[] = []
    const flush = () => {
      const [first, ...more] = group
      group = []
      if (!first) return
      const rest = more.length > 0 ? ` (and ${more.length} more)` : ''
      this.#log(`Forwarding: exec/${textOf(first)}${rest} from ${claims.iss}`)
      const { more: _, ...own } = claims
      const jti = work.length === 0 ? claims.jti : randomUUID()
      const order = { ...own, ...first, jti, ...(more.length > 0 && { more }) } as Claims
      work.push(this.#send([order], only))
    }
    for (const call of calls) {
      const verdict = this.#forwarded.note({ ...claims, ...call }, seconds())
      if (verdict === 'forward') group.push(call)
      else if (verdict === 'keep') {
        this.#log(`Keeping: ${textOf(call)} from ${claims.iss}: another sender still wants it`)
      } else {
        flush()
        work.push(this.#tell(only, jailOf(call.file, nameOf(call.params))))
      }
    }
    flush()
    await Promise.all(work)
  }

  /** A sender's snapshot: nodes are told what all senders together want in that jail. */
  #sync(claims: Extract<Claims, { cmd: 'sync' }>, only: Receiver[]): Promise<void> {
    const content = malformed(claims, () => this.#parts.add(claims))
    if (content === undefined) return Promise.resolve()
    const leases = malformed(claims, () => leasesOf(content))
    this.#forwarded.replace({ ...claims, leases }, claims.iss, seconds())
    this.#log(`Forwarding: sync/${claims.file} ${claims.name} from ${claims.iss}: ${leases.length}`)
    return this.#tell(only, jailOf(claims.file, claims.name))
  }

  #receivers(claims: Claims): Receiver[] {
    if (claims.client === undefined) {
      if (claims.cmd === 'update') throw new Dropped('malformed', claims)
      return [...this.#clients.values()]
    }
    const one = this.#clients.get(claims.client)
    if (!one) throw new Dropped('malformed', claims)
    return [one]
  }

  /** Sends what nodes shall have in one jail, or in all that are known. */
  async #tell(receivers: Receiver[], only?: string): Promise<void> {
    const at = seconds()
    const { validWtime } = this.#self
    const orders = this.#forwarded.snapshots(at, only).flatMap(split)
    const made = orders.map((order) => compose(order, 'net2ban', validWtime))
    await this.#send(made, receivers)
  }

  /** Numbers messages, seals them side by side, and publishes them in order. */
  #send(messages: Claims[], receivers: Receiver[]): Promise<void> {
    const { out } = namesOf(this.#net2ban)
    const sealed = messages.flatMap((claims) =>
      receivers.map((to) => {
        const exp = claims.iat + to.validWtime
        const { client: _, ...rest } = claims
        const own = { ...rest, aud: to.name, exp, run: this.#run, seq: ++to.seq } as Claims
        return { to, jti: claims.jti, body: seal(own, to.key) }
      }),
    )
    for (const { body } of sealed) body.catch(() => {})
    const publishing = this.#published.then(async () => {
      const confirms: Promise<void>[] = []
      for (const { to, jti, body } of sealed) {
        const parcel = { exchange: out, key: to.name, jti, body: await body }
        confirms.push(this.#deliver(parcel, to))
      }
      return confirms
    })
    this.#published = publishing.catch(() => {})
    return publishing.then(async (confirms) => void (await Promise.all(confirms)))
  }

  /** What the broker will not take for one client must not hold up the others. */
  async #deliver(parcel: Parameters<Publisher['send']>[0], to: Receiver): Promise<void> {
    try {
      if (!this.#publisher) throw new Error('Not connected')
      await this.#publisher.send(parcel)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#log(`lost message ${parcel.jti} for ${to.name}: ${error.message}`)
      this.#due.set(to.name, { due: true })
    }
  }

  /** A dead letter: whose it was is due. */
  async #bury({ properties }: ConsumeMessage): Promise<void> {
    const headers = properties.headers ?? {}
    const queue = String(headers['x-first-death-queue'] ?? '')
    const reason = String(headers['x-first-death-reason'] ?? '')
    const client = this.#clients.get(queue.slice(this.#net2ban.global.queue_prefix.length))
    if (client?.queue !== queue) return
    const old = this.#due.of(client.name)
    const asked = reason === 'rejected'
    if (!old.due) {
      const what = asked ? 'asks for a sync' : `lost message ${properties.messageId}: ${reason}`
      this.#log(`${client.name} ${what}`)
    }
    this.#due.set(client.name, { due: true, dead: old.dead + (asked ? 0 : 1) })
  }

  /** Tells those who are due and online everything again. */
  async #repair(): Promise<void> {
    try {
      for (const { name, seq } of this.#clients.values()) if (seq) this.#due.set(name, { seq })
      for (const name of this.#due.clients()) {
        const client = this.#clients.get(name)
        if (!client || Date.now() - client.told < PAUSE) continue
        const queue = await this.#checker?.checkQueue(client.queue)
        if (!queue?.consumerCount) continue
        client.told = Date.now()
        await this.#answer(client)
      }
    } catch (error) {
      if (error instanceof Failure) this.#log(error.message)
      // Else the connection is gone, and the next tick comes.
    }
  }

  async #answer(client: Receiver): Promise<void> {
    const asked = this.#due.asked(client.name)
    const jails = this.#forwarded.snapshots(seconds()).length
    const hint = jails === 0 ? ': no jail is known here, run "net2banctl sync"' : ''
    this.#log(`telling ${client.name} all of ${jails} jails${hint}`)
    const telling = this.#looked.then(() => ({ done: this.#tell([client]) }))
    this.#looked = telling.catch(() => {})
    await (await telling).done
    // Only now: killed before, we would never tell it.
    if (this.#due.asked(client.name) === asked) this.#due.set(client.name, { due: false })
  }
}

function textOf({ file, action, params }: Call): string {
  return `${file} ${action} ${params.ip ?? ''}`.trim()
}

/** What a sender got wrong (65) is the message's fault; what the disk did is not. */
function malformed<T>(claims: Claims, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof Failure && error.code === EXIT.input) {
      throw new Dropped('malformed', claims, messageOf(error))
    }
    throw error
  }
}

function seconds(): number {
  return Date.now() / 1000
}
