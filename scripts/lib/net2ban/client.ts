import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib'
import { EXIT, Failure, messageOf } from '../failure.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import type { Config } from '../settings/schema.ts'
import { brokerFailure, type Standing, stayConnected } from './broker.ts'
import { Unmet } from './commands.ts'
import { dropLine } from './drop.ts'
import { type Claims, callsOf, Dropped, open } from './message.ts'
import { type Node, openNode } from './node.ts'
import { ownParty, type Party } from './party.ts'
import { Position } from './position.ts'
import { Replay } from './replay.ts'
import { leasesOf, Parts } from './snapshot.ts'
import { PREFETCH } from './topology.ts'
import { installAction } from './update.ts'
import { Worker } from './worker.ts'

/** The longest that the node sleeps before it looks for bans that are over, milliseconds. */
const LOOK = 10_000

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
  readonly #replay: Replay
  readonly #parts: Parts
  readonly #position: Position
  readonly #log: (line: string) => void
  /** Something is missing, and the server does not know yet. */
  #missed = false
  #last: Promise<unknown> = Promise.resolve()
  #standing: Standing | undefined
  #timer: NodeJS.Timeout | undefined
  /** When, in epoch milliseconds. */
  #look = Infinity
  #closed = false

  private constructor(
    net2ban: Net2ban,
    folder: string,
    made: { self: Party; node: Node },
    log: (line: string) => void,
  ) {
    this.#net2ban = net2ban
    this.#log = log
    this.#self = made.self
    this.#node = made.node
    this.#worker = new Worker(made.node, folder, log)
    this.#replay = new Replay(join(folder, 'replay'), Date.now() / 1000)
    this.#parts = new Parts(join(folder, 'parts'), made.self.validWtime)
    this.#position = new Position(join(folder, 'position'))
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
    const node = await openNode({ actionDir, stateDir: nodeFolder(folder), log, ...limits })
    const client = new Client(net2ban, folder, { self, node }, log)
    const setup = (model: ChannelModel, again: (why: string) => void) => client.#setUp(model, again)
    client.#standing = await stayConnected(net2ban, self, setup, log)
    void client.#expire()
    return client
  }

  /** Lets the action that is running end, and no other begin. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#last
    await this.#standing?.close()
    await this.#worker.close()
    this.#position.save()
    await this.#node.close()
  }

  async #setUp(model: ChannelModel, again: (why: string) => void): Promise<void> {
    const lost = (error: unknown) => again(brokerFailure(error, this.#net2ban).message)
    const channel = await model.createChannel()
    channel.on('error', lost)
    await channel.checkQueue(this.#self.queue)
    await channel.prefetch(PREFETCH)
    const line = { channel, open: true }
    channel.on('close', () => {
      line.open = false
    })
    await channel.consume(this.#self.queue, (message) => {
      if (!message) return again('the queue is gone')
      this.#last = this.#last.then(() => this.#take(line, message)).catch(lost)
    })
  }

  /** One delivery, until it is acknowledged. Without an acknowledgement it comes again. */
  async #take(line: { channel: Channel; open: boolean }, message: ConsumeMessage): Promise<void> {
    for (let told = false; line.open && !this.#closed; told = true) {
      try {
        await this.#handle(message)
        if (!line.open) return
        if (this.#missed) line.channel.reject(message, false)
        else line.channel.ack(message)
        this.#missed = false
        return
      } catch (error) {
        // A full disk, say. It is waited for: each time that a message goes back counts against it.
        if (!told) this.#log(messageOf(error))
        await sleep(2000)
      }
    }
  }

  async #handle(message: ConsumeMessage): Promise<void> {
    const { name: aud, key, validWtime } = this.#self
    try {
      const claims = await open(message.content, key, { aud, validWtime, at: Date.now() / 1000 })
      if (this.#replay.has(claims.jti)) throw new Dropped('replayed', claims)
      if (!this.#position.advance(claims)) this.#missed = true
      await this.#obey(claims)
      this.#plan(SOON)
      this.#settle(claims)
    } catch (error) {
      if (!(error instanceof Dropped)) throw error
      if (error.reason === 'stale') this.#missed = true
      else if (error.claims) this.#settle(error.claims)
      this.#log(dropLine(message, error))
    }
  }

  /** What was carried out, or refused for good, is not looked at again. */
  #settle({ jti, iat }: Claims): void {
    if (!this.#replay.has(jti)) {
      this.#replay.add(jti, iat + this.#self.validWtime, Date.now() / 1000)
    }
  }

  async #obey(claims: Claims): Promise<void> {
    try {
      if (claims.cmd === 'exec') await this.#exec(claims)
      else if (claims.cmd === 'update') this.#update(claims)
      else await this.#sync(claims)
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
        if (!(await this.#worker.exec(claims, call))) this.#missed = true
      } catch (error) {
        if (!isFinal(error)) throw error
        refused.push(error)
      }
    }
    const [first] = refused
    if (first) throw first
  }

  #update({ file, content }: Extract<Claims, { cmd: 'update' }>): void {
    const { action_dir, allow_update } = this.#net2ban.global
    if (!allow_update) throw new Failure(EXIT.config, 'allow_update is off')
    installAction(action_dir, file, content)
    this.#log(`File "${file}" updated`)
  }

  /** A snapshot takes effect when all of it is here; one that fails is asked for again. */
  async #sync(claims: Extract<Claims, { cmd: 'sync' }>): Promise<void> {
    const content = this.#parts.add(claims)
    if (content === undefined) return
    const { file, name, params, snapshot } = claims
    try {
      await this.#worker.supersede(file, name)
      const leases = leasesOf(content)
      const { added, extended, removed } = await this.#node.sync(file, name, leases, params)
      this.#worker.works(file)
      this.#log(`synced ${file} ${name}: added ${added}, extended ${extended}, removed ${removed}`)
    } catch (error) {
      if (error instanceof Failure && error.code === EXIT.input) throw error
      if (error instanceof Unmet) this.#worker.lacks(file, error)
      else this.#log(`cannot sync ${file} ${name}: ${messageOf(error)}: asking again`)
      this.#missed = true
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
    this.#position.save()
    if (this.#closed) return
    this.#look = Infinity
    this.#plan(next === undefined ? LOOK : Math.max(next * 1000 - Date.now(), SOON))
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

/** True for what would fail the same way again. */
function isFinal(error: unknown): error is Failure {
  return error instanceof Failure && (error.code === EXIT.input || error.code === EXIT.config)
}
