import type { Channel, ChannelModel } from 'amqplib'
import type { Net2ban } from '../settings/net2ban.ts'

/** How often a message may come back unacknowledged: a crash counts against each that was out. */
const DELIVERY_LIMIT = 20

/** How many messages may be out at a time, per consumer. */
export const PREFETCH = 4

/** What is on the broker, by name. All of it is ours and begins with `queue_prefix`. */
export interface Names {
  /** Where senders publish: a direct exchange, bound to the server's input queue. */
  in: string
  /** Where the server publishes, with a client's name as the key; dead letters come back here. */
  out: string
  /** Dead letters: what expired, was rejected, or came back too often. */
  dead: string
  /** The key of dead letters on `out`; no client can have this name. */
  deadKey: 'dead'
}

/** The names of exchanges and of the dead-letter queue. */
export function namesOf({ global }: Net2ban): Names {
  const prefix = global.queue_prefix
  return { in: `${prefix}in`, out: `${prefix}out`, dead: `${prefix}dead`, deadKey: 'dead' }
}

/** True if a server has been here before. */
export async function isDeclared(model: ChannelModel, net2ban: Net2ban): Promise<boolean> {
  const channel = await model.createChannel()
  channel.on('error', () => {}) // It ends the channel, and nothing else.
  try {
    await channel.checkExchange(namesOf(net2ban).out)
  } catch (error) {
    if ((error as { code?: number }).code === 404) return false
    throw error
  }
  await channel.close()
  return true
}

/**
 * Makes the exchanges and a durable quorum queue for the server, for dead letters and for each
 * client. Only the server may: clients and senders check passively.
 *
 * @param validWtime seconds, by client
 */
export async function declare(
  channel: Channel,
  net2ban: Net2ban,
  input: { queue: string; validWtime: number },
  validWtime: ReadonlyMap<string, number>,
): Promise<void> {
  const names = namesOf(net2ban)
  for (const name of [names.in, names.out]) {
    await channel.assertExchange(name, 'direct', { durable: true })
  }
  await channel.assertQueue(names.dead, {
    durable: true,
    arguments: {
      'x-queue-type': 'quorum',
      'x-max-length': 100_000,
      'x-message-ttl': 604_800_000,
    },
  })
  await channel.bindQueue(names.dead, names.out, names.deadKey)
  const more = { 'x-single-active-consumer': true }
  await channel.assertQueue(input.queue, argumentsOf(names, input.validWtime, more))
  await channel.bindQueue(input.queue, names.in, input.queue)
  // The working server must know who lost something; the dead-letter queue keeps it for people.
  await channel.bindQueue(input.queue, names.out, names.deadKey)
  for (const [client, seconds] of validWtime) {
    const queue = net2ban.global.queue_prefix + client
    await channel.assertQueue(queue, argumentsOf(names, seconds))
    await channel.bindQueue(queue, names.out, client)
  }
}

/**
 * Makes a queue of a server's own that gets a copy of every order, so that a server that stands by
 * knows what the working one has forwarded. It goes when that server has not come for a week.
 *
 * @returns its name
 */
export async function declareCopy(
  channel: Channel,
  net2ban: Net2ban,
  input: { queue: string; validWtime: number },
  id: string,
): Promise<string> {
  const queue = `${net2ban.global.queue_prefix}server_${id}`
  await channel.assertQueue(queue, {
    durable: true,
    arguments: {
      'x-queue-type': 'quorum',
      'x-message-ttl': input.validWtime * 1000,
      'x-expires': 604_800_000,
      'x-delivery-limit': DELIVERY_LIMIT,
    },
  })
  await channel.bindQueue(queue, namesOf(net2ban).in, input.queue)
  return queue
}

function argumentsOf(names: Names, seconds: number, more: Record<string, unknown> = {}) {
  return {
    durable: true,
    arguments: {
      'x-queue-type': 'quorum',
      'x-message-ttl': seconds * 1000,
      'x-delivery-limit': DELIVERY_LIMIT,
      'x-dead-letter-exchange': names.out,
      'x-dead-letter-routing-key': names.deadKey,
      ...more,
    },
  }
}

/** What a user may do on the vhost, as `rabbitmqctl set_permissions` takes it. */
export interface Permission {
  configure: string
  write: string
  read: string
}

/** The server declares, publishes and reads what is ours. */
export function serverPermission(net2ban: Net2ban, input: string): Permission {
  const own = `^(${literal(net2ban.global.queue_prefix)}.*|${literal(input)})$`
  return { configure: own, write: own, read: own }
}

/** A client reads its own queue, and that is all. */
export function clientPermission(queue: string): Permission {
  return { configure: '^$', write: '^$', read: `^${literal(queue)}$` }
}

function literal(text: string): string {
  return text.replace(/[.+*?()[\]{}|^$\\]/g, '\\$&')
}
