import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { inTurn } from '../in-turn.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import type { Config } from '../settings/schema.ts'
import { installAction, Unmet } from './actions.ts'
import { brokerFailure, type Connection, stayConnected } from './broker.ts'
import { monotonic, ServerClock } from './clock.ts'
import { type Claims, callsOf, Dropped, dropLine, open } from './message.ts'
import { type Node, openNode } from './node.ts'
import { ownParty, type Party } from './party.ts'
import { Position } from './position.ts'
import { SeenMessages } from './seen-messages.ts'
import { leasesOf, Parts } from './snapshot.ts'
import { PREFETCH } from './topology.ts'
import { Worker } from './worker.ts'

/** The longest that the node sleeps before it looks for bans that are over, milliseconds. */
const LOOK = 10_000

/** Milliseconds between two requests to tell everything: doubled each time that it did not help. */
const ASK = { first: 10_000, most: 300_000 }

/** As long after something was carried out, milliseconds: one look is for all of a flood. */
const SOON = 1000

/**
 * Ends everything that a node has in force, for one that is no longer to be one.
 *
 * @throws Failure 75 if something could not be ended
 */
export async function releaseNode(
  net2ban: Net2ban,
  folder: string,
  log: (line: string) => void,
): Promise<void> {
  const limits = { neverBan: [], minPrefix: { ipv4: 0, ipv6: 0 } }
  const actionDir = net2ban.global.action_dir
  const node = await openNode({ actionDir, stateDir: nodeFolder(folder), log, ...limits })
  await node.release().finally(() => node.close())
}

function nodeFolder(folder: string): string {
  return join(folder, 'node')
}

/** When a message came, by `monotonic`, and whether the server has only just sent it. */
interface Coming {
  at: number
  prompt: boolean
}

/**
 * A node: takes messages in order, acknowledges each after its action, and unbans by itself what is
 * over, whether there is a broker or not. It can publish nothing; what it rejects is how it tells
 * the server that it missed something.
 */
export class Client {
  readonly #net2ban: Net2ban
  readonly #self: Party
  readonly #node: Node
  readonly #worker: Worker
  readonly #seen: SeenMessages
  readonly #parts: Parts
  readonly #position: Position
  readonly #log: (line: string) => void
  readonly #clock: ServerClock
  /** When the server may be asked next to tell everything, by `performance.now`, and the wait after. */
  #ask = { next: 0, wait: ASK.first }
  #wasOff = false
  /** Messages are carried out in order, one at a time. */
  readonly #inTurn = inTurn()
  #connection: Connection | undefined
  #timer: NodeJS.Timeout | undefined
  /** When, in epoch milliseconds. */
  #look = Infinity
  #closed = false

  private constructor(
    net2ban: Net2ban,
    folder: string,
    made: { self: Party; node: Node; position: Position; clock: ServerClock },
    log: (line: string) => void,
  ) {
    this.#net2ban = net2ban
    this.#log = log
    this.#self = made.self
    this.#node = made.node
    this.#worker = new Worker(made.node, folder, log)
    this.#seen = new SeenMessages(join(folder, 'replay'), Date.now() / 1000)
    this.#parts = new Parts(join(folder, 'parts'), made.self.validWtime)
    this.#position = made.position
    this.#clock = made.clock
  }

  /** Starts it. @param folder where its state is @throws Failure 78, 75 */
  static async start(
    net2ban: Net2ban,
    { never_ban, min_prefix }: Config,
    folder: string,
    log: (line: string) => void,
  ) {
    const self = await ownParty(net2ban)
    const actionDir = net2ban.global.action_dir
    const limits = { neverBan: never_ban, minPrefix: min_prefix }
    const position = new Position(join(folder, 'position'))
    const clock = new ServerClock(position.ahead)
    const stateDir = nodeFolder(folder)
    const ahead = () => clock.ahead
    const node = await openNode({ actionDir, stateDir, log, ahead, ...limits })
    const client = new Client(net2ban, folder, { self, node, position, clock }, log)
    const setup = (model: ChannelModel, again: (why: string) => void) => client.#setUp(model, again)
    client.#connection = await stayConnected(net2ban, self, setup, log)
    void client.#expire()
    return client
  }

  /** Lets the action that is running end, and no other begin. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#inTurn(() => {})
    await this.#connection?.close()
    await this.#worker.close()
    this.#position.save(this.#clock.known)
    await this.#node.close()
  }

  async #setUp(model: ChannelModel, again: (why: string) => void): Promise<void> {
    const lost = (error: unknown) => again(brokerFailure(error, this.#net2ban).message)
    const channel = await model.createChannel()
    channel.on('error', lost)
    let { messageCount: waiting } = await channel.checkQueue(this.#self.queue)
    await channel.prefetch(PREFETCH)
    const line = { channel, open: true }
    channel.on('close', () => {
      line.open = false
    })
    await channel.consume(this.#self.queue, (message) => {
      if (!message) return again('the queue is gone')
      const prompt = waiting-- <= 0 && !message.fields.redelivered
      const came = { at: monotonic(), prompt }
      this.#inTurn(() => this.#take(line, message, came)).catch(lost)
    })
  }

  /** One delivery, until it is acknowledged. Without an acknowledgement it comes again. */
  async #take(
    line: { channel: Channel; open: boolean },
    message: ConsumeMessage,
    came: Coming,
  ): Promise<void> {
    for (let told = false; line.open && !this.#closed; told = true) {
      try {
        const asked = await this.#handle(message, came)
        if (!line.open) return
        if (asked ?? this.#asks()) line.channel.reject(message, false)
        else line.channel.ack(message)
        return
      } catch (error) {
        // A full disk, say. It is waited for: each time that a message goes back counts against it.
        if (!told) this.#log(messageOf(error))
        await sleep(2000)
      }
    }
  }

  /** @returns whether to reject it, for one that is for this only */
  async #handle(message: ConsumeMessage, came: Coming): Promise<boolean | undefined> {
    const { name: aud, key, validWtime } = this.#self
    try {
      const claims = await open(message.content, key, { aud, validWtime, at: Date.now() / 1000 })
      if (this.#seen.has(claims.jti)) throw new Dropped('replayed', claims)
      this.#position.advance(claims)
      this.#hear(claims, came)
      const isDone = await this.#carryOut(claims)
      this.#plan(SOON)
      this.#settle(claims)
      if (!isDone) return true
      return asksForClock(claims) ? came.prompt && this.#clock.isOff : undefined
    } catch (error) {
      if (!(error instanceof Dropped)) throw error
      const { reason, claims } = error
      // A stale one, as one that cannot be read, is missed once the next number shows it.
      if (claims && reason !== 'stale') this.#settle(claims)
      this.#log(dropLine(message, error))
      const isOff = came.prompt && (reason === 'stale' || reason === 'future')
      return claims && asksForClock(claims) ? isOff : undefined
    }
  }

  /** True if the server is to be asked now: what was asked before may be lost, or under way. */
  #asks(): boolean {
    const now = performance.now()
    const { next, wait } = this.#ask
    if (!this.#position.hasMissed) this.#ask = { next: 0, wait: ASK.first }
    if (!this.#position.hasMissed || now < next) return false
    this.#ask = { next: now + wait, wait: Math.min(wait * 2, ASK.most) }
    return true
  }

  #hear(claims: Claims, { at, prompt }: Coming): void {
    if (claims.sent === undefined) return
    this.#clock.hear(claims.sent, at, prompt && asksForClock(claims))
    const { isOff, ahead } = this.#clock
    if (isOff === this.#wasOff) return
    this.#wasOff = isOff
    const how = `${Math.abs(Math.round(ahead))} seconds ${ahead > 0 ? 'ahead of' : 'behind'}`
    if (isOff) this.#log(`the clock here is ${how} the server's: bans end by the server's`)
    else this.#log("the clock here is the server's again")
  }

  /** What was carried out, or refused for good, is not looked at again. */
  #settle({ jti, iat }: Claims): void {
    if (!this.#seen.has(jti)) {
      this.#seen.add(jti, iat + this.#self.validWtime, Date.now() / 1000)
    }
  }

  /** @returns false for a snapshot that cannot be carried out: sent back, it says so to the server */
  async #carryOut(claims: Claims): Promise<boolean> {
    try {
      if (claims.cmd === 'sync') return await this.#sync(claims)
      if (claims.cmd === 'exec') await this.#exec(claims)
      else if (claims.cmd === 'update') await this.#update(claims)
      else this.#position.told(claims.since ?? -1)
      return true
    } catch (error) {
      if (isFinal(error)) throw new Dropped('malformed', claims, messageOf(error))
      throw error
    }
  }

  /** Of several calls, one that can never work does not keep the others from being tried. */
  async #exec(claims: Extract<Claims, { cmd: 'exec' }>): Promise<void> {
    const refused: Failure[] = []
    for (const call of callsOf(claims)) {
      try {
        if (!(await this.#worker.exec(claims, call))) this.#position.miss(claims)
      } catch (error) {
        if (!isFinal(error)) throw error
        refused.push(error)
      }
    }
    const [first] = refused
    if (first) throw first
  }

  async #update({ file, content }: Extract<Claims, { cmd: 'update' }>): Promise<void> {
    const { action_dir, allow_update } = this.#net2ban.global
    if (!allow_update) throw new Failure(EXIT.config, 'allow_update is off')
    await installAction(action_dir, file, content)
    this.#log(`File "${file}" updated`)
  }

  /** A snapshot takes effect when all of it is here; one that fails is asked for again. */
  async #sync(claims: Extract<Claims, { cmd: 'sync' }>): Promise<boolean> {
    const content = this.#parts.add(claims)
    if (content === undefined) return true
    const { file, name, params, snapshot } = claims
    try {
      await this.#worker.replace(file, name)
      const leases = leasesOf(content)
      const { added, extended, removed } = await this.#node.sync(file, name, leases, params)
      this.#worker.works(file)
      this.#log(`synced ${file} ${name}: added ${added}, extended ${extended}, removed ${removed}`)
      return true
    } catch (error) {
      if (error instanceof Failure && error.code === EXIT.input) throw error
      if (error instanceof Unmet) this.#worker.lacks(file, error)
      else this.#log(`cannot sync ${file} ${name}: ${messageOf(error)}: asking again`)
      this.#position.miss(claims)
      return false
    } finally {
      this.#parts.remove(snapshot)
    }
  }

  /** Needs no broker. */
  async #expire(): Promise<void> {
    let next: number | undefined
    try {
      next = await this.#node.expire()
    } catch (error) {
      this.#log(messageOf(error))
    }
    this.#position.save(this.#clock.known)
    if (this.#closed) return
    this.#look = Infinity
    this.#plan(next === undefined ? LOOK : Math.max((next - this.#clock.now()) * 1000, SOON))
  }

  /** Looks for what is over after some milliseconds, or earlier if that was planned already. */
  #plan(wait: number): void {
    const at = Date.now() + Math.min(wait, LOOK)
    if (at >= this.#look || this.#closed) return
    this.#look = at
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#expire(), at - Date.now())
  }
}

function asksForClock(claims: Claims): boolean {
  return claims.cmd === 'mark' && claims.asks === 'clock'
}

/** True for what would fail the same way again. */
function isFinal(error: unknown): error is Failure {
  return error instanceof Failure && (error.code === EXIT.input || error.code === EXIT.config)
}
