// Single parts of `npm run bench -- net2ban`: one role of a plain amqplib hop, over queues and exchanges
// of the same kind, without sealing, checking or remembering anything; and a node that opens and checks
// what it receives, and runs nothing.
import { connect } from 'amqplib'
import { callsOf, open } from '../../scripts/lib/net2ban/message.ts'
import { deriveKey } from '../../scripts/lib/net2ban/party.ts'

const [role = '', url = ''] = process.argv.slice(2)
const BODY = Buffer.alloc(430, 'x')
const PREFETCH = 4
const QUORUM = { durable: true, arguments: { 'x-queue-type': 'quorum' } }
const OPTIONS = { persistent: true, mandatory: true }

if (role === 'node') await receive()
else await hop()
process.send?.({})

/** Says when so many messages have come. */
function counter(): () => void {
  let expected = 1
  let seen = 0
  process.on('message', ({ expect }: { expect: number }) => {
    expected = expect
    seen = 0
  })
  return () => {
    if (++seen < expected) return
    seen = 0
    process.send?.({})
  }
}

async function receive(): Promise<void> {
  const [, , , , name = '', shared = ''] = process.argv
  const { key } = await deriveKey(JSON.parse(shared))
  const model = await connect(url, { noDelay: true })
  const channel = await model.createChannel()
  await channel.prefetch(PREFETCH)
  const count = counter()
  await channel.consume(`net2ban_${name}`, async (message) => {
    if (!message) return
    const options = { aud: name, validWtime: 3600, at: Date.now() / 1000 }
    const claims = await open(message.content, key, options)
    channel.ack(message)
    if (claims.cmd === 'exec') for (const _ of callsOf(claims)) count()
  })
}

async function hop(): Promise<void> {
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
    const count = counter()
    await channel.consume(`net2ban_${role}`, (message) => {
      if (!message) return
      channel.ack(message)
      count()
    })
  }
}
