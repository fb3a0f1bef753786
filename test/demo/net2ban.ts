import { setTimeout as sleep } from 'node:timers/promises'
import { startFail2ban } from '../lib/fail2ban.ts'
import { createLab, type Lab, PROJECT } from '../lib/lab.ts'
import type { Machine } from '../lib/machine.ts'
import { expect, type Stage } from '../lib/stage.ts'
import { canConnect, listen } from '../lib/traffic.ts'
import { unlessAborted, waitUntil } from '../lib/wait.ts'

const NODES = ['node1', 'node2', 'node3'] as const
const ATTACKER = '203.0.113.101'
const NEIGHBOUR = '203.0.113.150'
const HUB = '198.51.100.1'
const SECONDS = 8

const DRAWING = `
attacker   203.0.113.101   ──┬──  node1  203.0.113.11  ──┐
neighbour  203.0.113.150     ├──  node2  203.0.113.12  ──┼──  hub  198.51.100.1  RabbitMQ, net2ban
                             └──  node3  203.0.113.13  ──┘         server, Fail2Ban`.slice(1)

interface Scene {
  stage: Stage
  attacker: Machine
  hub: Machine
  nodes: Machine[]
}

/** What Fail2Ban finds on one machine is blocked on every node, through a real RabbitMQ. */
export async function demoNet2ban(stage: Stage, signal: AbortSignal): Promise<void> {
  const began = performance.now()
  stage.title('net2ban', 'Fail2Ban bans on one machine, every node drops the packets.')
  stage.plain(DRAWING)
  stage.step('Build five machines, each in namespaces of its own')
  const lab = await createLab()
  try {
    const scene = await unlessAborted(signal, build(lab, stage))
    await unlessAborted(signal, story(scene))
  } finally {
    await lab.close()
  }
  const seconds = Math.round((performance.now() - began) / 1000)
  stage.summary(
    `All of it for real: RabbitMQ, TLS, Fail2Ban, iptables, packets. ${seconds} seconds.`,
  )
}

async function story(scene: Scene): Promise<void> {
  await startBroker(scene)
  await startNodes(scene)
  const fail2ban = await attack(scene)
  await endAlone(scene, fail2ban)
}

async function build(lab: Lab, stage: Stage): Promise<Scene> {
  const outside = (last: number) => [`203.0.113.${last}/24`]
  const [attacker, hub, ...nodes] = await Promise.all([
    lab.machine('attacker', { nics: { outside: [...outside(101), ...outside(150)] } }),
    lab.machine('hub', { nics: { mgmt: [`${HUB}/24`] } }),
    ...NODES.map((name, i) =>
      lab.machine(name, { nics: { outside: outside(11 + i), mgmt: [`198.51.100.${11 + i}/24`] } }),
    ),
  ])
  for (const machine of [hub, ...nodes]) {
    await machine.sh(`echo "127.0.0.1 localhost ${machine.name}" >/etc/hosts
ln -sf ${PROJECT}/dist/setup.cjs /usr/local/bin/f2b-setup
ln -sf ${PROJECT}/dist/net2ban.cjs /usr/local/bin/net2ban
ln -sf ${PROJECT}/dist/net2banctl.cjs /usr/local/bin/net2banctl`)
  }
  for (const node of nodes) await listen(node, { tcp: [22] })
  const scene = { stage, attacker, hub, nodes }
  stage.fact('attacker and neighbour reach every node, connections', await reached(scene), 'of 6')
  return scene
}

async function startBroker({ stage, hub }: Scene): Promise<void> {
  stage.step('Start RabbitMQ; make its users, rights and certificate, and the settings')
  await rabbitmq(hub)
  const clients = NODES.map((name) => `--client ${name}`).join(' ')
  const line = `f2b-setup net2ban server --broker ${HUB} ${clients} --make-certificate --systemd no`
  const told = await play(stage, hub, line)
  stage.fact('things made', told.match(/^created /gm)?.length ?? 0)
  hub.signal('beam', 'SIGKILL')
  await rabbitmq(hub)
  stage.command('hub#', 'net2ban server')
  await daemon(hub, 'server')
}

/** Debian's own program, as its own user, in its usual places. */
async function rabbitmq(hub: Machine): Promise<void> {
  await hub.spawn(['sh', '-c', 'echo started; exec rabbitmq-server'])
  const ready = async () => {
    const { code } = await hub.exec(['rabbitmqctl', 'await_startup', '--timeout', '60'])
    return code === 0
  }
  await waitUntil('RabbitMQ', ready, { timeout: 120_000, every: 500 })
}

async function startNodes({ stage, hub, nodes }: Scene): Promise<void> {
  stage.step('Bring each node its configuration')
  for (const node of nodes) {
    const config = await play(stage, hub, `net2banctl get_client ${node.name}`)
    await node.writeFile('/root/client.yaml', config, { mode: '600' })
    await play(stage, node, 'f2b-setup net2ban client --client-config client.yaml --systemd no')
    await daemon(node, 'client')
  }
  stage.output(await play(stage, hub, 'net2banctl status'))
}

async function attack(scene: Scene) {
  const { stage, hub } = scene
  stage.step('Start Fail2Ban on the hub: jail sshd with banaction = net2ban')
  const options = { banaction: 'net2ban' }
  const fail2ban = await startFail2ban(hub, [{ name: 'sshd', action: '%(action_)s', options }])
  stage.step('A failed login from the attacker is logged on the hub')
  const since = performance.now()
  await fail2ban.failLogin(ATTACKER)
  const dropped = async () => (await reached(scene, [ATTACKER])) === 0
  await waitUntil('all nodes to drop', dropped, { timeout: 15_000, every: 20 }).catch(
    async (error) => {
      throw new Error(`${error.message}\n${await fail2ban.log()}`)
    },
  )
  stage.fact('every node drops the packets of the attacker within', performance.now() - since, 'ms')
  stage.fact('connections of the attacker', await reached(scene, [ATTACKER]), 'of 3')
  stage.fact('connections of the neighbour', await reached(scene, [NEIGHBOUR]), 'of 3')
  const rules = await scene.nodes[0]?.run(['iptables', '-S', 'f2b-sshd'])
  stage.command('node1#', 'iptables -S f2b-sshd')
  stage.output(rules ?? '')
  await play(stage, hub, `fail2ban-client unban ${ATTACKER}`)
  const through = async () => (await reached(scene, [ATTACKER])) === 3
  await waitUntil('all nodes to let through', through, { timeout: 15_000, every: 20 })
  stage.fact('unbanned: connections of the attacker', 3, 'of 3')
  return fail2ban
}

async function endAlone(scene: Scene, fail2ban: { kill(): void }): Promise<void> {
  const { stage, hub } = scene
  stage.step(`Ban for ${SECONDS} seconds, and kill Fail2Ban and RabbitMQ`)
  const line = `net2banctl ban --ip ${ATTACKER} --name sshd --port ssh --protocol tcp --bantime ${SECONDS}`
  const since = performance.now()
  await play(stage, hub, line)
  const dropped = async () => (await reached(scene, [ATTACKER])) === 0
  await waitUntil('all nodes to drop', dropped, { timeout: 5000, every: 20 })
  fail2ban.kill()
  hub.signal('beam', 'SIGKILL')
  await sleep(500)
  const through = async () => (await reached(scene, [ATTACKER])) === 3
  await waitUntil('the end of the ban', through, { timeout: 20_000, every: 100 })
  stage.fact(
    'nobody is left to unban it: every node frees it by itself',
    performance.now() - since,
    'ms',
  )
}

/** How many connections come through, of these sources to all nodes. */
async function reached(
  { attacker, nodes }: Scene,
  sources = [ATTACKER, NEIGHBOUR],
): Promise<number> {
  const ways = sources.flatMap((source) =>
    nodes.map((_, i) => ({ source, to: `203.0.113.${11 + i}` })),
  )
  const tries = ways.map(({ source, to }) =>
    canConnect(attacker, { source, to, port: 22, timeoutMs: 300 }),
  )
  return (await Promise.all(tries)).filter(Boolean).length
}

async function daemon(machine: Machine, word: string): Promise<void> {
  let connected = false
  const lines: string[] = []
  const onLine = (line: string) => {
    lines.push(line)
    if (process.env.DEBUG) process.stderr.write(`${machine.name}: ${line}\n`)
    connected ||= line.startsWith('connected')
  }
  const started = await machine.spawn(['net2ban', word], { onLine })
  await waitUntil(`net2ban ${word} on ${machine.name}`, () => connected, { timeout: 20_000 }).catch(
    (error) => {
      throw new Error(`${error.message}\n${lines.join('\n')}\n${started.stderr()}`)
    },
  )
}

async function play(stage: Stage, machine: Machine, line: string): Promise<string> {
  stage.command(`${machine.name}#`, line)
  const ended = await machine.exec(['sh', '-euc', `cd; ${line}`], { timeout: 180_000 })
  expect(ended.code === 0, `it ended with exit code ${ended.code}:\n${ended.stdout}${ended.stderr}`)
  return ended.stdout
}
