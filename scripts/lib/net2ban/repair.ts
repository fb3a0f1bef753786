import type { Channel, ConsumeMessage } from 'amqplib'
import { Failure } from '../failure.ts'
import type { InTurn } from '../in-turn.ts'
import type { ClientStatus } from './client-status.ts'
import type { Forwarded } from './forwarded.ts'
import type { Publisher, Receiver } from './publisher.ts'

/** Milliseconds between two looks at who is due, and the least between two snapshots for one. */
const TICK = 1000
const PAUSE = 5000

/** Milliseconds between two looks at who is online, and between two questions to one who is. */
const LOOK = 5000
const MARK = 30_000
/** The most between two snapshots for one that sends them back. */
const LONG_PAUSE = 60_000

/** What repair works with. */
export interface RepairParts {
  forwarded: Forwarded
  due: ClientStatus
  publisher: Publisher
  /** The line in which orders are looked at. */
  inTurn: InTurn
  log: (line: string) => void
}

/**
 * Clients may publish nothing. One that missed something rejects a message, and a message that
 * expires in its queue dies, too: dead letters come back here, and the client that they are of is
 * told everything again once it is online. So that there is something to reject, whatever became of
 * a queue, each client is asked when it comes online and now and then.
 */
export class Repair {
  readonly #forwarded: Forwarded
  readonly #due: ClientStatus
  readonly #publisher: Publisher
  readonly #inTurn: InTurn
  readonly #log: (line: string) => void
  /** When each was last told, and when it may be told again, by `performance.now`. */
  readonly #told = new Map<string, { at: number; again: number }>()
  /** When each that is online was asked last, by the same. */
  readonly #asked = new Map<string, number>()
  /** The question to each about its clock, until it comes back. */
  readonly #clocks = new Map<string, string>()
  #looked = -LOOK
  #input = ''
  /** False while another server may be the one that takes orders: nodes must hear one run only. */
  #works = false
  #checker: Channel | undefined
  #timer: NodeJS.Timeout | undefined

  constructor({ forwarded, due, publisher, inTurn, log }: RepairParts) {
    this.#forwarded = forwarded
    this.#due = due
    this.#publisher = publisher
    this.#inTurn = inTurn
    this.#log = log
  }

  /** Asks the broker through this one from now on who is online. @param input the queue of orders */
  use(checker: Channel, input: string): void {
    this.#checker = checker
    this.#input = input
    this.#works = false
    this.#asked.clear()
    this.#clocks.clear()
  }

  /** Something came from the input queue: this server works, and stands by no more. */
  takesOrders(): void {
    this.#works = true
  }

  start(): void {
    this.#timer = setInterval(() => void this.#repair(), TICK)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** A dead letter: whose it was is due. @throws Failure 75 if that cannot be noted */
  onDeadLetter({ properties }: ConsumeMessage): void {
    const headers = properties.headers ?? {}
    const queue = String(headers['x-first-death-queue'] ?? '')
    const reason = String(headers['x-first-death-reason'] ?? '')
    const client = [...this.#publisher.clients.values()].find((one) => one.queue === queue)
    if (!client) {
      // An order that no server came for in time: it stays in the dead-letter queue for people.
      this.#due.set(queue, { dead: this.#due.of(queue).dead + 1 })
      return
    }
    if (properties.messageId === this.#clocks.get(client.name)) {
      this.#isOff(client.name)
      return
    }
    const old = this.#due.of(client.name)
    const asked = reason === 'rejected'
    const failing = (asked && this.#publisher.told.get(properties.messageId)) || old.failing
    this.#due.set(client.name, { due: true, dead: old.dead + (asked ? 0 : 1), failing })
    if (failing !== old.failing) this.#log(`${client.name} cannot carry out ${failing}`)
    if (old.due || failing) return
    const what = asked ? 'asks for a sync' : `lost message ${properties.messageId}: ${reason}`
    this.#log(`${client.name} ${what}`)
  }

  #isOff(name: string): void {
    if (!this.#due.of(name).skewed) this.#log(`the clock of ${name} is more than a minute off`)
    this.#due.set(name, { skewed: true })
    this.#clocks.delete(name)
  }

  /**
   * A message to these was forwarded before, perhaps, by a server that was killed; a node that has it
   * drops it now, and may have been told everything without it in between: so it is told everything
   * once more.
   *
   * @throws Failure 75 if that cannot be noted
   */
  needsSnapshot(receivers: readonly Receiver[]): void {
    for (const { name } of receivers) this.#due.set(name, { due: true })
  }

  /** Tells those who are due and online everything again. */
  async #repair(): Promise<void> {
    try {
      // The only one there is takes them, or will.
      this.#works ||= (await this.#checker?.checkQueue(this.#input))?.consumerCount === 1
      if (!this.#works) return
      const { clients } = this.#publisher
      for (const { name, seq } of clients.values()) if (seq) this.#due.set(name, { seq })
      for (const name of this.#due.clients()) {
        const client = clients.get(name)
        if (!client || performance.now() < (this.#told.get(name)?.again ?? 0)) continue
        const queue = await this.#checker?.checkQueue(client.queue)
        if (!queue?.consumerCount) continue
        this.#pause(name)
        await this.#answer(client)
      }
      for (const name of this.#due.failing()) await this.#lookAgain(name)
      if (performance.now() - this.#looked < LOOK) return
      this.#looked = performance.now()
      for (const client of clients.values()) await this.#look(client)
    } catch (error) {
      if (error instanceof Failure) this.#log(error.message)
      // Else the connection is gone, and the next tick comes.
    }
  }

  /** Asks a client that has nothing waiting whether it has all, and whether its clock is right. */
  async #look(client: Receiver): Promise<void> {
    const { name } = client
    const queue = await this.#checker?.checkQueue(client.queue)
    if (!queue?.consumerCount) this.#asked.delete(name)
    else if (
      queue.messageCount === 0 &&
      performance.now() - (this.#asked.get(name) ?? -MARK) >= MARK
    ) {
      this.#asked.set(name, performance.now())
      if (this.#clocks.has(name)) this.#due.set(name, { skewed: false })
      const clock = this.#publisher.mark(client, { asks: 'clock' })
      this.#clocks.set(name, clock.jti)
      await Promise.all([clock.done, this.#publisher.mark(client, { asks: 'lost' }).done])
    }
  }

  /** One that sends back what it is told is told at longer and longer intervals. */
  #pause(name: string): void {
    const { at, again } = this.#told.get(name) ?? { at: 0, again: 0 }
    const pause = this.#due.of(name).failing ? Math.min(2 * (again - at), LONG_PAUSE) : 0
    const now = performance.now()
    this.#told.set(name, { at: now, again: now + Math.max(pause, PAUSE) })
  }

  /** A client that was told and has not sent it back can carry it out. */
  async #lookAgain(name: string): Promise<void> {
    const client = this.#publisher.clients.get(name)
    const told = this.#told.get(name)
    if (!client || this.#due.of(name).due) return
    if (!told) return this.#due.set(name, { due: true }) // By a server before this one.
    if (performance.now() < told.again) return
    const queue = await this.#checker?.checkQueue(client.queue)
    if (queue?.consumerCount && queue.messageCount === 0)
      this.#due.set(name, { failing: undefined })
  }

  async #answer(client: Receiver): Promise<void> {
    const asked = this.#due.asked(client.name)
    const { partial } = this.#forwarded
    const jails = this.#forwarded.snapshots(Date.now() / 1000).length
    const what =
      partial > 0 ? `${partial} more may be older than this server` : 'no jail is known here'
    const hint = partial > 0 || jails === 0 ? `: ${what}, run "net2banctl sync"` : ''
    if (!this.#due.of(client.name).failing) {
      this.#log(`telling ${client.name} all of ${jails} jails${hint}`)
    }
    const telling = this.#inTurn(() => ({ done: this.#publisher.tellAll(client) }))
    await (await telling).done
    // Only now: killed before, we would never tell it.
    if (this.#due.asked(client.name) === asked) this.#due.set(client.name, { due: false })
  }
}
