import type { ChannelModel, ConfirmChannel, Message } from 'amqplib'
import { EXIT, Failure } from '../failure.ts'

/** One sealed message and where it goes. */
export interface Parcel {
  exchange: string
  key: string
  jti: string
  body: Buffer
}

/**
 * Publishes persistent messages and says of each whether the broker has it. A message that fits no
 * queue comes back *and* is confirmed, in this order (measured, RabbitMQ 3.10): both are looked at.
 */
export class Publisher {
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

  /** @param user the login: the broker vouches for it to whoever reads (`user-id`) */
  static async open(model: ChannelModel, user: string): Promise<Publisher> {
    return new Publisher(await model.createConfirmChannel(), user)
  }

  /** @throws whatever the channel failed with; Failure 75 if the broker would not or cannot keep it */
  send({ exchange, key, jti, body }: Parcel): Promise<void> {
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
