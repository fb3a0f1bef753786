import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Daemon, type Net2banLab, openNet2ban } from '../lib/net2ban-lab.ts'
import { layWire, type Wire } from '../lib/rabbitmq.ts'
import { waitUntil } from '../lib/wait.ts'

const CLIENTS = ['client1', 'client2', 'client3']
const MESSAGES = 1000
const ADDRESSES = 300
const SECONDS = 25

let lab: Net2banLab
const wires: Wire[] = []
before(async () => {
  lab = await openNet2ban({ clients: CLIENTS })
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

test('nothing is lost and nothing has effect twice, whatever is killed or cut meanwhile', async () => {
  const seed = Number(process.env.CHAOS_SEED ?? Date.now() % 100_000)
  const roll = dice(seed)
  const daemons: Daemon[] = []
  daemons.push(lab.daemon('server', lab.config('server', { port: (await wire()).port })))
  for (const name of CLIENTS) {
    daemons.push(lab.daemon('client', await lab.clientConfig(name, { port: (await wire()).port })))
  }
  const ctlConfig = lab.config('ctl', { port: (await wire()).port })
  await Promise.all(daemons.map((daemon) => daemon.logged('connected')))
  await send(['journal actionstart name=sshd'], ctlConfig)

  const banned = new Set<string>()
  let over = false
  const publishing = publish()
  const havoc = wreak()
  await publishing
  over = true
  await havoc

  const wanted = [...banned].sort()
  for (const name of CLIENTS) {
    const equal = () => JSON.stringify(lab.blocked(name)) === JSON.stringify(wanted)
    await waitUntil(`${name} to have all, seed ${seed}`, equal, {
      timeout: 120_000,
      every: 200,
    }).catch((error) => {
      const logs = daemons.map((daemon) => daemon.log().split('\n').slice(-15).join('\n'))
      throw new Error(
        `${error.message}\n${difference(lab.blocked(name), wanted)}\n${logs.join('\n--\n')}`,
      )
    })
    assert.deepEqual(twice(name), [], `seed ${seed}`)
  }

  async function publish(): Promise<void> {
    for (let done = 0; done < MESSAGES; done += 20) {
      const lines: string[] = []
      for (let i = 0; i < 20; i++) {
        const ip = `198.51.${100 + roll(2)}.${roll(ADDRESSES / 2)}`
        const ban = !banned.has(ip) || roll(3) === 0
        lines.push(`journal action${ban ? 'ban' : 'unban'} name=sshd ip=${ip} bantime=3600`)
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
