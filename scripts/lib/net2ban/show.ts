import { join } from 'node:path'
import type { ChannelModel } from 'amqplib'
import { stringify } from 'yaml'
import { EXIT } from '../failure.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import type { Call } from '../target.ts'
import { brokerFailure, takesMessages, withBroker } from './broker.ts'
import { ClientStatus } from './client-status.ts'
import { authority, clientParty, serverParty } from './party.ts'
import { namesOf } from './topology.ts'

/** Where the server on this machine keeps its state, below `state_dir`. */
export const SERVER_STATE = 'net2ban-server'

/**
 * `get_client NAME`: the configuration with which that client starts, unedited. Its own secrets are
 * in it; the server's key and login and the other clients are not.
 *
 * @throws Failure 64 if there is no such client, 78
 */
export async function clientConfig(net2ban: Net2ban, owner: string, name: string): Promise<string> {
  const party = await clientParty(net2ban, name)
  const { global, clients, keygen, default_action } = net2ban
  const { key, secret, authkey, rounds, valid_wtime } = clients[name] ?? {}
  const ca = authority(net2ban)
  const own = {
    server: global.server,
    port: global.port,
    vhost: global.vhost,
    user: party.user,
    pass: party.pass,
    tls: global.tls,
    ...(ca !== undefined && { ca }),
    rounds: rounds ?? global.rounds,
    secret: secret ?? global.secret,
    mode: 'client',
    valid_wtime: valid_wtime ?? global.valid_wtime,
    authkey: authkey ?? global.authkey,
    queue_prefix: global.queue_prefix,
    action_dir: global.action_dir,
    allow_update: global.allow_update,
  }
  const section = { global: own, keygen, clients: { [name]: { key } }, default_action }
  return `# net2ban client "${name}", made on ${owner}: /etc/fail2ban-perimeter/config.yaml, mode 0600
${stringify({ owner: name, net2ban: section })}`
}

/** How one client stands. */
interface Line {
  client: string
  online: boolean
  queue: number
  dead: number
  seq: number
  /** More than a minute. */
  clockOff: boolean
  failing?: string | undefined
}

/**
 * `status`: per client online, queue depth, dead letters, the last number it was sent.
 *
 * @throws Failure 75 if RabbitMQ takes nothing, once all else is shown; 69, 77
 */
export async function showStatus(net2ban: Net2ban, call: Call): Promise<void> {
  const server = await serverParty(net2ban)
  await withBroker(net2ban, server, call.signal, async (model) => {
    show(net2ban, call, server.queue, await ask(net2ban, model, server.queue))
    await takesMessages(model, namesOf(net2ban).in)
  })
}

function show(net2ban: Net2ban, call: Call, inputQueue: string, { queues, input }: Depths): void {
  const due = new ClientStatus(join(call.config.state_dir, SERVER_STATE, 'clients.json'))
  const lines = Object.keys(net2ban.clients).map((client): Line => {
    const { messageCount: queue, consumerCount } = queues[client] ?? NOTHING
    const { dead, seq, failing, skewed = false } = due.of(client)
    return { client, online: consumerCount > 0, queue, dead, seq, clockOff: skewed, failing }
  })
  if (call.values.json) {
    for (const line of lines) call.show(JSON.stringify(line))
    return
  }
  const state = input.consumerCount > 0 ? 'running' : 'not running'
  // The dead-letter queue also holds what a node sent back to ask for a sync: nothing was lost then.
  const dead = [inputQueue, ...Object.keys(net2ban.clients)].map((name) => due.of(name).dead)
  const lost = dead.reduce((sum, count) => sum + count, 0)
  call.show(`server ${state}, waiting ${input.messageCount}, dead letters ${lost}`)
  for (const { client, online, queue, dead, seq, clockOff, failing } of lines) {
    const state = online ? 'online' : 'away'
    const clock = clockOff ? ', clock more than a minute off' : ''
    const why = failing ? `, cannot carry out ${failing}: its journal says why` : ''
    const counts = `queue ${queue}, dead letters ${dead}, sequence ${seq}`
    call.show(`${client} ${state}, ${counts}${clock}${why}`)
  }
}

interface Depth {
  messageCount: number
  consumerCount: number
}

interface Depths {
  queues: Record<string, Depth>
  input: Depth
}

const NOTHING: Depth = { messageCount: 0, consumerCount: 0 }

async function ask(net2ban: Net2ban, model: ChannelModel, inputQueue: string): Promise<Depths> {
  const look = async (queue: string) => {
    // A queue that is not there ends the channel, and nothing else.
    const channel = await model.createChannel()
    channel.on('error', () => {})
    try {
      return await channel.checkQueue(queue)
    } catch (error) {
      const failure = brokerFailure(error, net2ban)
      if (failure.code === EXIT.temporary) return NOTHING
      throw failure
    }
  }
  const queues: Depths['queues'] = {}
  for (const name of Object.keys(net2ban.clients)) {
    queues[name] = await look(net2ban.global.queue_prefix + name)
  }
  return { queues, input: await look(inputQueue) }
}
