// The floor of `npm run bench -- net2ban`: one role of a plain amqplib hop, over queues and exchanges
// of the same kind, without sealing, checking or remembering anything.
import { connect } from 'amqplib'

const [role = '', url = ''] = process.argv.slice(2)
const BODY = Buffer.alloc(430, 'x')
const PREFETCH = 4
const QUORUM = { durable: true, arguments: { 'x-queue-type': 'quorum' } }
const OPTIONS = { persistent: true, mandatory: true }

const model = await connect(url, { noDelay: true })
const channel = await model.createConfirmChannel()
await channel.prefetch(PREFETCH)
await channel.assertExchange('net2ban_floor', 'direct', { durable: true })
await channel.assertQueue('net2ban_floor', QUORUM)
await channel.bindQueue('net2ban_floor', 'net2ban_floor', 'input')
const RECEIVERS = ['receiver1', 'receiver2', 'receiver3']
for (const name of RECEIVERS) {
  await channel.assertQueue(`net2ban_${name}`, QUORUM)
  await channel.bindQueue(`net2ban_${name}`, 'net2ban_floor', name)
}

function publish(key: string, body: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    channel.publish('net2ban_floor', key, body, OPTIONS, (error) =>
      error ? reject(error) : resolve(),
    )
  })
}

if (role === 'forwarder') {
  await channel.consume('net2ban_floor', async (message) => {
    if (!message) return
    await Promise.all(RECEIVERS.map((name) => publish(name, message.content)))
    channel.ack(message)
  })
} else if (role === 'sender') {
  process.on('message', async ({ count }: { count: number }) => {
    const way = new Set<Promise<void>>()
    for (let i = 0; i < count; i++) {
      const sending = publish('input', BODY).then(() => void way.delete(sending))
      way.add(sending)
      if (way.size >= 256) await Promise.race(way)
    }
  })
} else {
  let expected = 1
  let seen = 0
  process.on('message', ({ expect }: { expect: number }) => {
    expected = expect
    seen = 0
  })
  await channel.consume(`net2ban_${role}`, (message) => {
    if (!message) return
    channel.ack(message)
    if (++seen < expected) return
    seen = 0
    process.send?.({})
  })
}
process.send?.({})
