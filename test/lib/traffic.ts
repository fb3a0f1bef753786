import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { transformSync } from 'esbuild'
import type { Outcome, ProbeResult, Reply, Request, Target } from './agent.ts'
import type { Machine } from './machine.ts'

export interface Ports {
  tcp?: number[]
  udp?: number[]
}

export interface ProbeOptions extends Target {
  /** `tcp` makes a new connection each time, `udp` is one flow of datagrams. */
  kind?: 'tcp' | 'udp'
  /** Milliseconds between two packets. */
  everyMs?: number
}

export interface Probe {
  stop(): Promise<ProbeResult>
}

/** Whoever sends packets. */
export type Traveller = Pick<Machine, 'name' | 'pid' | 'exec' | 'spawn'>

interface Agent {
  ask(request: Request): Promise<unknown>
  /** What it wrote to standard error: why it died. */
  stderr(): string
}

/** By machine, with the boot that it belongs to. */
const agents = new WeakMap<Traveller, { pid: number; agent: Promise<Agent> }>()

let probes = 0

/** Lets a machine answer on these ports, over IPv4 and IPv6, until it is rebooted. */
export async function listen(machine: Machine, { tcp = [], udp = [] }: Ports): Promise<void> {
  await ask(machine, { verb: 'listen', tcp, udp })
}

/** Tries one TCP connection, and says what became of it. */
export async function connect(from: Traveller, target: Target): Promise<Outcome> {
  return (await ask(from, { verb: 'connect', target }, target.timeoutMs)) as Outcome
}

/** True if a TCP connection can be made. */
export async function canConnect(from: Traveller, target: Target): Promise<boolean> {
  return (await connect(from, target)) === 'reached'
}

/** True if a datagram gets there and its echo back. */
export async function canAsk(from: Traveller, target: Target): Promise<boolean> {
  return (await ask(from, { verb: 'ask', target }, target.timeoutMs)) === 'reached'
}

/** Sends packets all the time, so that a test can measure later when they stopped to arrive. */
export async function probe(from: Traveller, options: ProbeOptions): Promise<Probe> {
  const { kind = 'tcp', everyMs = 20, ...target } = options
  const number = ++probes
  await ask(from, { verb: 'probe', number, kind, everyMs, target })
  return { stop: async () => (await ask(from, { verb: 'stop', number })) as ProbeResult }
}

/** The longest time without a packet that got through, in milliseconds, between two moments. */
export function longestGap({ answered }: ProbeResult, since: number, until: number): number {
  const inside = answered.filter((time) => time > since && time < until)
  const moments = [since, ...inside, until]
  return Math.max(...moments.slice(1).map((time, index) => time - (moments[index] ?? time)))
}

async function ask(machine: Traveller, request: Request, patience = 0): Promise<unknown> {
  const known = agents.get(machine)
  const fresh = known?.pid === machine.pid
  const entry = fresh && known ? known : { pid: machine.pid, agent: startAgent(machine) }
  agents.set(machine, entry)
  const agent = await entry.agent
  // Agents do not keep this process alive; a timer does, and ends what a dead machine leaves open.
  const deadline = new AbortController()
  const limit = sleep(patience + 5000, undefined, { signal: deadline.signal }).then(() => {
    const what = `${JSON.stringify(request)}: ${agent.stderr()}`
    throw new Error(`No answer from the agent on "${machine.name}" to ${what}`)
  })
  try {
    return await Promise.race([agent.ask(request), limit])
  } finally {
    deadline.abort()
    limit.catch(() => {})
  }
}

async function startAgent(machine: Traveller): Promise<Agent> {
  const source = readFileSync(new URL('agent.ts', import.meta.url), 'utf8')
  const { code } = transformSync(source, { loader: 'ts', format: 'esm' })
  const waiting = new Map<number, (reply: Reply) => void>()
  const onLine = (line: string): void => {
    const reply = JSON.parse(line) as Reply
    waiting.get(reply.id)?.(reply)
    waiting.delete(reply.id)
  }
  const command = [process.execPath, '--input-type=module', '-e', code]
  const { stdin, stderr } = await machine.spawn(command, { onLine })
  let asked = 0
  return {
    stderr,
    async ask(request) {
      const id = ++asked
      const reply = await new Promise<Reply>((resolve) => {
        waiting.set(id, resolve)
        stdin.write(`${JSON.stringify({ id, ...request })}\n`)
      })
      if (reply.error) throw new Error(`${machine.name}: ${reply.error}`)
      return reply.result
    },
  }
}
