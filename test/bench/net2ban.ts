import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Daemon, journalAction, type Net2banLab, openNet2ban } from '../lib/net2ban-lab.ts'
import { ms, printRows } from './table.ts'

const CLIENTS = ['client1', 'client2', 'client3']
const MANY = 10_000
/** As many are applied by real nodes, beside those that are only received. */
const FEW = 2000
const SINGLE = 60
const FLOOR = new URL('net2ban-floor.ts', import.meta.url)

const { NODE_EXTRA_CA_CERTS: _, ...CLEAN } = process.env
const OPTIONS = { execArgv: ['--import', 'tsx'], env: CLEAN }

/**
 * net2ban beside a plain amqplib hop, on one broker in one run: a program that publishes, one that
 * forwards to three queues of the same kind with the same prefetch, three that receive.
 */
export async function benchNet2ban(): Promise<void> {
  const lab = await openNet2ban({ clients: CLIENTS })
  try {
    const floor = await runFloor(lab)
    const ours = await runOurs(lab)
    const share = ours.rate / floor.rate
    printRows([
      {
        what: 'one exec, both hops, until a node received it (median)',
        ours: ms(ours.single),
        other: `amqplib ${ms(floor.single)}`,
        ratio: ours.single / floor.single,
        limit: 3,
      },
    ])
    console.log(
      `${MANY} bans by exec - to 3 nodes, until received: ${ours.rate.toFixed(0)} a second; amqplib ${floor.rate.toFixed(0)}; ratio ${share.toFixed(2)}${share >= 0.5 ? '  ok, at least 0.5' : '  MISSED, at least 0.5'}`,
    )
    console.log(`${FEW} of them applied by three nodes: ${ours.applied.toFixed(0)} a second`)
    console.log(`idle client: ${ours.idle}`)
  } finally {
    await lab.close()
  }
}

async function runFloor(lab: Net2banLab) {
  const { user, pass } = lab.login('server')
  const url = `amqp://${user}:${pass}@127.0.0.1:${lab.broker.port}/net2ban`
  const start = (role: string) => {
    return fork(FLOOR, [role, url], OPTIONS)
  }
  const children: ChildProcess[] = []
  for (const role of ['forwarder', 'receiver1', 'receiver2', 'receiver3']) {
    const child = start(role)
    children.push(child)
    await once(child, 'message')
  }
  const sender = start('sender')
  children.push(sender)
  await once(sender, 'message')
  try {
    const receivers = children.slice(1, 4)
    const single: number[] = []
    for (let i = 0; i < SINGLE; i++) {
      const arrived = once(receivers[0] as ChildProcess, 'message')
      const began = performance.now()
      sender.send({ count: 1 })
      await arrived
      single.push(performance.now() - began)
      await sleep(20)
    }
    const done = receivers.map((r) => new Promise((resolve) => r.once('message', resolve)))
    for (const receiver of receivers) receiver.send({ expect: MANY })
    await sleep(100)
    const began = performance.now()
    sender.send({ count: MANY })
    await Promise.all(done)
    return { single: median(single), rate: MANY / ((performance.now() - began) / 1000) }
  } finally {
    for (const child of children) child.kill('SIGKILL')
  }
}

async function runOurs(lab: Net2banLab) {
  const server = lab.daemon('server', lab.config('server'))
  await server.logged('connected')
  const clients: Daemon[] = []
  for (const name of CLIENTS) {
    const config = await lab.clientConfig(name)
    // No program is started: what the nodes' own actions cost is not measured here.
    const nothing = journalAction('/dev/null').replaceAll(/^(action\w+) =.*$/gm, '$1 =')
    writeFileSync(join(lab.folder, 'actions', name, 'journal.conf'), nothing)
    const client = lab.daemon('client', config)
    await client.logged('connected')
    clients.push(client)
  }
  await lab.ctl(['exec', 'journal', 'actionstart', 'name=sshd'])
  for (const client of clients) await client.logged('done: journal actionstart')
  await sleep(3000)
  const idle = await idleOf(clients[0] as Daemon)
  const ctl = sending(lab)
  await sleep(1000)
  const began = performance.now()
  ctl.stdin.end(Array.from({ length: FEW }, (_, i) => line(i)).join(''))
  const last = `IP ${address(FEW - 1)} banned`
  for (const client of clients) await client.logged(last, 120_000)
  const applied = FEW / ((performance.now() - began) / 1000)
  for (const client of clients) await client.kill()
  return { idle, applied, ...(await received(lab)) }
}

/** Nodes that open and check each message, acknowledge it, and run nothing. */
async function received(lab: Net2banLab): Promise<{ single: number; rate: number }> {
  const nodes = CLIENTS.map((name) => {
    const { user, pass, shared } = lab.login(name)
    const url = `amqp://${user}:${pass}@127.0.0.1:${lab.broker.port}/net2ban`
    return fork(FLOOR, ['node', url, name, JSON.stringify(shared)], OPTIONS)
  })
  try {
    await Promise.all(nodes.map((node) => once(node, 'message')))
    const ctl = sending(lab)
    await sleep(1000)
    const single: number[] = []
    for (let i = 0; i < SINGLE; i++) {
      const arrived = once(nodes[0] as ChildProcess, 'message')
      const began = performance.now()
      ctl.stdin.write(line(i + 10_000))
      await arrived
      if (i > 0) single.push(performance.now() - began)
      await sleep(20)
    }
    const done = nodes.map((node) => once(node, 'message'))
    for (const node of nodes) node.send({ expect: MANY })
    await sleep(100)
    const began = performance.now()
    ctl.stdin.end(Array.from({ length: MANY }, (_, i) => line(i + 20_000)).join(''))
    await Promise.all(done)
    return { single: median(single), rate: MANY / ((performance.now() - began) / 1000) }
  } finally {
    for (const node of nodes) node.kill('SIGKILL')
  }
}

function sending(lab: Net2banLab) {
  const command = ['dist/net2banctl.cjs', 'exec', '-', '--config', lab.config('ctl')]
  return spawn(process.execPath, command, { env: CLEAN, stdio: ['pipe', 'inherit', 'inherit'] })
}

function address(i: number): string {
  return `198.${18 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`
}

function line(i: number): string {
  return `journal actionban name=sshd ip=${address(i)} bantime=600\n`
}

/** Resident memory, and processor time over some quiet seconds. */
async function idleOf(daemon: Daemon): Promise<string> {
  const seconds = 10
  const ticks = () => {
    const words =
      readFileSync(`/proc/${daemon.pid()}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    return Number(words[11]) + Number(words[12])
  }
  const before = ticks()
  await sleep(seconds * 1000)
  const [, kilobytes = '0'] =
    /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${daemon.pid()}/status`, 'utf8')) ?? []
  const load = ((ticks() - before) / seconds).toFixed(2)
  return `${(Number(kilobytes) / 1024).toFixed(0)} MiB resident (below 80), ${load} % CPU (below 1)`
}

function median(times: number[]): number {
  return times.sort((a, b) => a - b)[times.length >> 1] ?? Number.NaN
}
