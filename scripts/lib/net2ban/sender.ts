import { EXIT, Failure } from '../failure.ts'
import { inTurn } from '../in-turn.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import { ConfirmingChannel, takesMessages, withBroker } from './broker.ts'
import { compose, type Order, seal } from './message.ts'
import { serverParty } from './party.ts'
import { namesOf } from './topology.ts'

/** One connection on which orders go to the server. */
export interface Sender {
  /** Returns when the broker has it on disk. @throws Failure 75 nack or returned, 77, 69, 65 */
  send(order: Order): Promise<void>
}

/**
 * Connects, lets its caller send, and closes.
 *
 * @param owner whose orders these are
 * @param signal when the broker must have answered
 * @throws Failure 69 unreachable or certificate, 75 no answer, nack or returned, 77 refused
 */
export async function withSender<T>(
  net2ban: Net2ban,
  owner: string,
  signal: AbortSignal,
  work: (sender: Sender) => Promise<T>,
): Promise<T> {
  const server = await serverParty(net2ban)
  const { in: exchange } = namesOf(net2ban)
  return await withBroker(net2ban, server, signal, async (model) => {
    const channel = await ConfirmingChannel.open(model, server.user)
    const take = inTurn()
    // Sealed side by side, published in the order of the calls.
    const send = async (order: Order): Promise<void> => {
      const claims = compose(order, owner, server.validWtime)
      const sealing = seal(claims, server.key)
      sealing.catch(() => {})
      const publishing = take(async () => {
        const message = { exchange, key: server.queue, jti: claims.jti, body: await sealing }
        return { confirmed: channel.send(message) }
      })
      await (await publishing).confirmed
    }
    return await work({ send })
  })
}

/** Only looks whether orders could be sent. @throws as withSender */
export async function checkWay(net2ban: Net2ban, signal: AbortSignal): Promise<void> {
  const server = await serverParty(net2ban)
  await withBroker(net2ban, server, signal, async (model) => {
    const channel = await model.createChannel()
    channel.on('error', () => {})
    const { consumerCount } = await channel.checkQueue(server.queue)
    if (consumerCount === 0) throw new Failure(EXIT.temporary, 'no net2ban server is running')
    await takesMessages(model, namesOf(net2ban).in)
  })
}
