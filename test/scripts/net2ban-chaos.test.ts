import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ConfirmChannel, connect } from 'amqplib'
import { type Daemon, DIED, type Net2banLab, openNet2ban } from '../lib/net2ban-lab.ts'
import { layWire, type Wire } from '../lib/rabbitmq.ts'
import { waitUntil } from '../lib/wait.ts'

const CLIENTS = ['client1', 'client2', 'client3']
const MESSAGES = 1000
const ADDRESSES = 300
const SECONDS = 25

/** Seconds that each node's clock is ahead of the server's: further than any ban here lasts. */
const AHEAD = { client1: 0, client2: 3000, client3: -3000 }

let lab: Net2banLab
let server: Daemon
const nodes: Daemon[] = []
const wires: Wire[] = []
before(async () => {
  lab = await openNet2ban({ clients: CLIENTS, validWtime: 7200 })
  server = lab.daemon('server', lab.config('server', { port: (await wire()).port }))
  for (const [name, ahead] of Object.entries(AHEAD)) {
    const config = await lab.clientConfig(name, { port: (await wire()).port })
    nodes.push(lab.daemon('client', config, ahead))
  }
  await Promise.all([server, ...nodes].map((daemon) => daemon.logged('connected')))
})
after(async () => {
  for (const wire of wires) wire.close()
  await lab.close()
})

/** A random but repeatable sequence. */
function dice(seed: number): (n: number) => number {
  let state = seed
  return (n) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
}

async function wire(): Promise<Wire> {
  const made = await layWire(lab.broker.port)
  wires.push(made)
  return made
}

/** Waits until a node's actions have left exactly these addresses blocked. */
async function blocks(name: string, addresses: readonly string[]): Promise<void> {
  const wanted = [...addresses].sort()
  const equal = () => lab.blocked(name).join() === wanted.join()
  await waitUntil(`${name} to have all`, equal, { timeout: 120_000, every: 200 }).catch((error) => {
    const logs = [server, ...nodes].map((daemon) => daemon.log().split('\n').slice(-15).join('\n'))
    throw new Error(
      `${error.message}\n${difference(lab.blocked(name), wanted)}\n${logs.join('\n--\n')}`,
    )
  })
}

/** What a node is sent while it is away, until it is in its queue. */
async function sendToAway(node: number, calls: readonly string[]): Promise<string> {
  const queue = `net2ban_${CLIENTS[node]}`
  await nodes[node]?.kill()
  for (const call of calls) await lab.done('exec', 'journal', ...call.split(' '))
  const full = async () => (await look(queue)) >= calls.length
  await waitUntil('the messages to wait', full, { every: 100 })
  return queue
}

/** How much waits in a queue. @param purge loses all of it */
function look(queue: string, purge = false): Promise<number> {
  return withBroker(async (channel) => {
    const { messageCount } = await (purge ? channel.purgeQueue(queue) : channel.checkQueue(queue))
    return messageCount
  })
}

/** Sends a node what is no message. */
function forge(name: string): Promise<void> {
  const options = { userId: lab.login('server').user }
  return withBroker(async (channel) => {
    channel.publish('net2ban_out', name, Buffer.from('x'), options)
    await channel.waitForConfirms()
  })
}

async function withBroker<T>(work: (channel: ConfirmChannel) => Promise<T>): Promise<T> {
  const { user, pass } = lab.login('server')
  const model = await connect(`amqp://${user}:${pass}@127.0.0.1:${lab.broker.port}/net2ban`)
  try {
    return await work(await model.createConfirmChannel())
  } finally {
    await model.close()
  }
}

const bans = (net: string, count: number) =>
  Array.from({ length: count }, (_, i) => `actionban name=demand ip=${net}.${i} bantime=900`)
const addresses = (net: string, count: number) =>
  Array.from({ length: count }, (_, i) => `${net}.${i}`)

test('what a queue lost is told again, though nothing else happens and no jail was ever started', async () => {
  const queue = await sendToAway(0, bans('192.0.2', 3))
  await look(queue, true)
  await server.kill()
  server.start()
  nodes[0]?.start()
  for (const name of CLIENTS) await blocks(name, addresses('192.0.2', 3))
  // Nothing restarts but the node, and what it lost was a release.
  await look(await sendToAway(0, ['actionunban name=demand ip=192.0.2.2']), true)
  nodes[0]?.start()
  for (const name of CLIENTS) await blocks(name, addresses('192.0.2', 2))
})

test('a ban shorter than the difference of two clocks is in force as long as it says', async () => {
  await lab.done('exec', 'journal', 'actionban', 'name=demand', 'ip=192.0.2.9', 'bantime=20')
  for (const name of CLIENTS) await blocks(name, [...addresses('192.0.2', 2), '192.0.2.9'])
  for (const name of CLIENTS) await blocks(name, addresses('192.0.2', 2))
  const status = () => lab.ctl(['status'], undefined, lab.config('server'))
  const off = async () => (await status()).stdout.match(/^client.*clock.*$/gm) ?? []
  await waitUntil('status to name the clocks', async () => (await off()).length === 2, {
    timeout: 120_000,
    every: 1000,
  })
  assert.match((await off()).join('\n'), /^client2 .*\nclient3 .*clock more than a minute off$/)
})

test('messages under an old key are told again under the new one', async () => {
  await sendToAway(0, bans('198.51.100', 10))
  await server.kill()
  const { user, pass } = lab.login('client1')
  const clients = { ...lab.section.clients, client1: { key: 'f'.repeat(40), user, pass } }
  const ports = wires.map(({ port }) => port)
  lab.config('server', { port: ports[0] }, { clients })
  await lab.clientConfig('client1', { port: ports[1] }, lab.config('ctl', {}, { clients }))
  server.start()
  nodes[0]?.start()
  const all = [...addresses('192.0.2', 2), ...addresses('198.51.100', 10)]
  for (const name of CLIENTS) await blocks(name, all)
  const lines = all.map((ip) => `journal actionunban name=demand ip=${ip}\n`)
  assert.equal((await lab.ctl(['exec', '-'], lines.join(''))).code, 0)
  for (const name of CLIENTS) await blocks(name, [])
  // What is forged is no reason to ask: whatever the node rejects comes to the server in order.
  const asked = () => server.log().match(/client1 asks for a sync/g)?.length
  const before = asked()
  await forge('client1')
  await nodes[0]?.logged('dropped message - from net2ban_server: malformed')
  await lab.done('exec', 'journal', 'actionban', 'name=demand', 'ip=192.0.2.1', 'bantime=900')
  await blocks('client1', ['192.0.2.1'])
  await lab.done('exec', 'journal', 'actionunban', 'name=demand', 'ip=192.0.2.1')
  for (const name of CLIENTS) await blocks(name, [])
  assert.equal(asked(), before)
})

test('nothing is lost and nothing has effect twice, whatever is killed or cut meanwhile', async () => {
  const seed = Number(process.env.CHAOS_SEED ?? Date.now() % 100_000)
  const roll = dice(seed)
  const daemons = [server, ...nodes]
  const ctlConfig = lab.config('ctl', { port: (await wire()).port })
  await send(['journal actionstart name=sshd'], ctlConfig)

  const banned = new Set<string>()
  let over = false
  const publishing = publish()
  const havoc = wreak()
  await publishing
  over = true
  await havoc
  // systemd would start it again, and hide it.
  for (const daemon of daemons) assert.ok(!daemon.log().includes(DIED), `seed ${seed}`)

  const wanted = [...banned].sort()
  for (const name of CLIENTS) {
    await blocks(name, wanted).catch((error) => {
      throw new Error(`seed ${seed}: ${error.message}`)
    })
    assert.deepEqual(twice(name), [], `seed ${seed}`)
  }
  for (const daemon of daemons) assert.ok(!daemon.log().includes(DIED), `seed ${seed}`)

  async function publish(): Promise<void> {
    for (let done = 0; done < MESSAGES; done += 20) {
      const lines: string[] = []
      for (let i = 0; i < 20; i++) {
        const ip = `198.51.${100 + roll(2)}.${roll(ADDRESSES / 2)}`
        const ban = !banned.has(ip) || roll(3) === 0
        lines.push(`journal action${ban ? 'ban' : 'unban'} name=sshd ip=${ip} bantime=2400`)
        if (ban) banned.add(ip)
        else banned.delete(ip)
      }
      await send(lines, ctlConfig)
      await sleep(roll((2 * SECONDS * 1000 * 20) / MESSAGES) / 2)
    }
  }

  /** What Fail2Ban's side does: a sender that was told "try again" does. */
  async function send(lines: string[], config: string): Promise<void> {
    for (let tries = 0; ; tries++) {
      const { code, stderr } = await lab.ctl(['exec', '-'], `${lines.join('\n')}\n`, config)
      if (code === 0) return
      assert.ok([69, 75].includes(code) && tries < 200, stderr)
      await sleep(300)
    }
  }

  async function wreak(): Promise<void> {
    let brokerDeaths = 0
    while (!over) {
      await sleep(300 + roll(900))
      const what = roll(10)
      const daemon = daemons[roll(daemons.length)]
      const one = wires[roll(wires.length)]
      if (what === 0 && brokerDeaths < 2) {
        brokerDeaths++
        await lab.broker.kill()
        await lab.broker.start()
      } else if (what < 5) {
        await daemon?.kill('SIGKILL')
        await sleep(roll(500))
        daemon?.start()
      } else {
        one?.cut()
        await sleep(roll(1500))
        one?.mend()
      }
    }
    for (const one of wires) one.mend()
  }
})

/**
 * Bans of what was banned and unbans of what was not, in a row. An action that was running when its
 * node was killed is redone as unban, then ban, on purpose: that is an unban of what may not be there.
 */
function twice(name: string): string[] {
  const state = new Set<string>()
  return lab.journal(name).filter((line) => {
    const [verb, , ip = ''] = line.split(' ')
    if (verb === 'ban' && state.has(ip)) return true
    if (verb === 'ban') state.add(ip)
    if (verb === 'unban') state.delete(ip)
    return false
  })
}

function difference(state: string[], wanted: string[]): string {
  const missing = wanted.filter((ip) => !state.includes(ip))
  const extra = state.filter((ip) => !wanted.includes(ip))
  return `missing ${missing.join(' ')}; extra ${extra.join(' ')}`
}
