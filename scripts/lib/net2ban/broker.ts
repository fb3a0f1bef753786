import { setTimeout as sleep } from 'node:timers/promises'
import {
  type ChannelModel,
  type ConfirmChannel,
  connect,
  type Message,
  type Options,
} from 'amqplib'
import { EXIT, Failure, messageOf } from '../failure.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import { authority, type Party } from './party.ts'

/** Milliseconds for connecting, as everywhere in this project. */
const CONNECT = 3000

/** Milliseconds for which an alarm of the broker may end by itself. */
const ALARM = 3000

/** How long a daemon waits before it connects again, milliseconds. */
const BACK_OFF = { initialDelay: 500, maxDelay: 15_000, factor: 2, jitter: 0.3 }

/** Seconds between signs of life; a dead broker is noticed after two of them. */
const HEARTBEAT = 10

/**
 * Connects, works, and disconnects.
 *
 * @param signal when the broker must have answered
 * @throws Failure 69 unreachable or certificate, 75 no answer, an alarm or as the work, 77 refused
 */
export async function withBroker<T>(
  net2ban: Net2ban,
  party: Party,
  signal: AbortSignal,
  work: (model: ChannelModel) => Promise<T>,
): Promise<T> {
  let model: ChannelModel | undefined
  try {
    model = await connect(place(net2ban, party), socket(net2ban))
    model.on('error', () => {}) // A call that waits for an answer learns it there.
    return await Promise.race([work(model), alarmOf(model, net2ban), deadline(signal)])
  } catch (error) {
    throw brokerFailure(error, net2ban)
  } finally {
    if (model) await disconnect(model)
  }
}

/**
 * Returns when RabbitMQ takes messages: it tells of an alarm only to who publishes. What is published
 * here fits no queue.
 */
export async function takesMessages(model: ChannelModel, exchange: string): Promise<void> {
  const channel = await model.createConfirmChannel()
  channel.on('error', () => {})
  await new Promise((resolve) => {
    channel.on('close', resolve) // No such exchange: the server has never run.
    // An empty one is taken all the same (measured, RabbitMQ 3.10).
    channel.publish(exchange, '', Buffer.from('?'), {}, resolve)
  })
}

/**
 * Ends a connection within half a second. A broker with an alarm reads nothing from who publishes:
 * neither a goodbye nor the end of the stream, which would keep this process alive.
 */
async function disconnect(model: ChannelModel): Promise<void> {
  const closing = model.close().catch(() => {})
  await Promise.race([closing, sleep(500, undefined, { ref: false })])
  // amqplib has no other way (its types do not know the stream).
  const { stream } = model.connection as unknown as { stream: { destroy(): void } }
  stream.destroy()
}

/**
 * Fails when RabbitMQ says that it takes nothing at the moment: `low on memory`, `low on disk`. It may
 * be over soon, so a moment is waited for that; not until the deadline, for Fail2Ban waits, too.
 */
function alarmOf(model: ChannelModel, net2ban: Net2ban): Promise<never> {
  return new Promise((_, reject) => {
    let timer: NodeJS.Timeout | undefined
    model.on('blocked', (reason: string) => {
      const why = `RabbitMQ has an alarm: ${reason}`
      const failure = new Failure(EXIT.temporary, `Cannot use ${where(net2ban)}: ${why}`)
      timer = setTimeout(() => reject(failure), ALARM)
    })
    model.on('unblocked', () => clearTimeout(timer))
    model.on('close', () => clearTimeout(timer))
  })
}

function deadline(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const fail = () => reject(new Failure(EXIT.temporary, 'The broker does not answer in time'))
    signal.addEventListener('abort', fail, { once: true })
    if (signal.aborted) fail()
  })
}

/** A connection that comes back by itself. */
export interface Connection {
  close(): Promise<void>
}

/**
 * Keeps a daemon connected for ever: whatever ends a connection or a channel, or makes `setup` fail,
 * leads to another try, with back-off.
 *
 * @param setup makes channels and consumers after each connection; it calls `again` to start over
 * @param log told once for each new reason
 */
export async function stayConnected(
  net2ban: Net2ban,
  party: Party,
  setup: (model: ChannelModel, again: (why: string) => void) => Promise<void>,
  log: (line: string) => void,
): Promise<Connection> {
  let last = ''
  const note = (text: string) => {
    if (text !== last) log(text)
    last = text
  }
  const recovery = {
    ...BACK_OFF,
    waitForConnect: false,
    setup: (model: ChannelModel) => {
      model.on('error', () => {})
      return setup(model, (why) => {
        note(`connection given up: ${why}`)
        void disconnect(model)
      })
    },
  }
  const connection = await connect(place(net2ban, party), { ...socket(net2ban), recovery })
  connection.on('error', () => {})
  connection.on('connect', () => note(`connected to ${where(net2ban)}`))
  connection.on('connect-failed', (error: Error) => note(brokerFailure(error, net2ban).message))
  connection.on('disconnect', (error: Error) => note(`connection lost: ${firstLine(error)}`))
  return connection
}

/** What went wrong on the broker, as an exit code and a sentence without a secret. */
export function brokerFailure(error: unknown, net2ban: Net2ban): Failure {
  if (error instanceof Failure) return error
  const text = firstLine(error)
  const at = where(net2ban)
  const { code, code: reply } = error as { code?: string | number }
  if (/ACCESS[_-]REFUSED/.test(text) || reply === 403) {
    const what = /login|PLAIN|handshake/i.test(text) ? 'login refused' : 'permission refused'
    return new Failure(EXIT.refused, `Cannot use ${at}: ${what}`)
  }
  // amqplib does not pass on why the broker closed instead of opening.
  if (/NOT[_-]ALLOWED|ConnectionOpenOk; got <ConnectionClose/.test(text) || reply === 530) {
    return new Failure(EXIT.refused, `Cannot use ${at}: vhost "${net2ban.global.vhost}" refused`)
  }
  if (/NOT[_-]FOUND/.test(text) || reply === 404) {
    const hint = 'an exchange or queue is missing: net2ban server makes them'
    return new Failure(EXIT.temporary, `Cannot use ${at}: ${hint}`)
  }
  if (typeof code === 'string' && /CERT|SELF_SIGNED|ISSUER|ERR_TLS|ERR_SSL|EPROTO/.test(code)) {
    return new Failure(EXIT.unreachable, `Cannot trust ${at}: ${text}`)
  }
  if (typeof code === 'string' || /ETIMEDOUT|Socket closed|AggregateError/.test(text)) {
    return new Failure(EXIT.unreachable, `Cannot reach ${at}: ${code ?? text}`)
  }
  return new Failure(EXIT.temporary, `Cannot use ${at}: ${text}`)
}

/** The broker, as messages call it. */
function where({ global }: Net2ban): string {
  return `the broker "${global.server}:${global.port}"`
}

function firstLine(error: unknown): string {
  return messageOf(error).split('\n')[0]?.slice(0, 200) ?? ''
}

function place({ global }: Net2ban, { user, pass }: Party): Options.Connect {
  return {
    protocol: global.tls ? 'amqps' : 'amqp',
    hostname: global.server,
    port: global.port,
    vhost: encodeURIComponent(global.vhost),
    username: user,
    password: pass,
    heartbeat: HEARTBEAT,
  }
}

function socket(net2ban: Net2ban) {
  const ca = authority(net2ban)
  return { noDelay: true, timeout: CONNECT, ...(ca !== undefined && { ca: [ca] }) }
}

/** One sealed message and where it goes. */
export interface OutgoingMessage {
  exchange: string
  key: string
  jti: string
  body: Buffer
}

/**
 * Publishes persistent messages and says of each whether the broker has it. A message that fits no
 * queue comes back *and* is confirmed, in this order (measured, RabbitMQ 3.10): both are looked at.
 */
export class ConfirmingChannel {
  readonly #channel: ConfirmChannel
  readonly #user: string
  readonly #returned = new Set<string>()
  readonly #waiting = new Set<(why: Failure) => void>()

  private constructor(channel: ConfirmChannel, user: string) {
    this.#channel = channel
    this.#user = user
    channel.on('return', ({ properties }: Message) => this.#returned.add(properties.correlationId))
    channel.on('error', (error: Error) => this.#fail(error))
    channel.on('close', () => this.#fail(new Error('Channel closed')))
  }

  /** @param user the login: the broker vouches for it to the reader (`user-id`) */
  static async open(model: ChannelModel, user: string): Promise<ConfirmingChannel> {
    return new ConfirmingChannel(await model.createConfirmChannel(), user)
  }

  /** @throws whatever the channel failed with; Failure 75 if the broker would not or cannot keep it */
  send({ exchange, key, jti, body }: OutgoingMessage): Promise<void> {
    const correlationId = `${jti} ${key}`
    return new Promise((resolve, reject) => {
      const fail = (why: unknown) => {
        this.#waiting.delete(fail)
        reject(why)
      }
      this.#waiting.add(fail)
      const options = {
        persistent: true,
        mandatory: true,
        messageId: jti,
        correlationId,
        userId: this.#user,
        contentType: 'application/jose',
      }
      this.#channel.publish(exchange, key, body, options, (error) => {
        if (error) return fail(temporary('the broker did not take it'))
        if (this.#returned.delete(correlationId))
          return fail(temporary(`there is no queue "${key}"`))
        this.#waiting.delete(fail)
        resolve()
      })
    })
  }

  #fail(error: Error): void {
    for (const fail of [...this.#waiting]) fail(error as Failure)
  }
}

function temporary(why: string): Failure {
  return new Failure(EXIT.temporary, `Cannot publish: ${why}`)
}
