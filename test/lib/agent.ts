// What runs on a machine and does there what traffic.ts asks for, a line of JSON each way: a
// connection then costs a test one millisecond, not the start of a program.
// It is turned into JavaScript when it is started, and imports nothing but node's own modules.
import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'

/** `silent`: no answer in time. `refused`: a reset, or a router or firewall that said no. */
export type Outcome = 'reached' | 'refused' | 'silent'

export interface Target {
  /** Address to send from; left out, the machine chooses. */
  source?: string
  to: string
  port: number
  /** Milliseconds until it counts as silent; below 1000 no packet is sent a second time. */
  timeoutMs?: number
}

export interface ProbeResult {
  /** How many packets or connections were tried. */
  sent: number
  /** When those that got through were sent, in epoch milliseconds with fractions, ascending. */
  answered: number[]
}

export type Request =
  | { verb: 'connect'; target: Target }
  | { verb: 'ask'; target: Target }
  | { verb: 'listen'; tcp: number[]; udp: number[] }
  | ProbeRequest
  | { verb: 'stop'; number: number }

interface ProbeRequest {
  verb: 'probe'
  number: number
  kind: 'tcp' | 'udp'
  target: Target
  everyMs: number
}

export interface Reply {
  id: number
  result?: unknown
  error?: string
}

const probes = new Map<number, () => Promise<ProbeResult>>()

/** One TCP handshake, really made; the connection is dropped at once. */
function tryTcp({ source, to, port, timeoutMs = 300 }: Target): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const from = source ? { localAddress: source } : {}
    const socket = connect({ host: to, port, ...from, timeout: timeoutMs })
    const end = (outcome: Outcome): void => {
      socket.resetAndDestroy()
      resolve(outcome)
    }
    socket.on('connect', () => end('reached'))
    socket.on('timeout', () => end('silent'))
    socket.on('error', (error) => {
      const outcome = outcomeOf(error)
      if (outcome) end(outcome)
      else reject(error)
    })
  })
}

/** Nothing for what is wrong with the test itself, such as a source address that is not ours. */
function outcomeOf(error: NodeJS.ErrnoException): Outcome | undefined {
  const refusals = ['ECONNREFUSED', 'ECONNRESET', 'EHOSTUNREACH', 'ENETUNREACH', 'EACCES']
  if (refusals.includes(error.code ?? '')) return 'refused'
  return error.code === 'ETIMEDOUT' ? 'silent' : undefined
}

function udpFrom(target: Target): Promise<UdpSocket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(target.to.includes(':') ? 'udp6' : 'udp4')
    socket.once('error', reject)
    socket.bind({ address: target.source ?? '' }, () => {
      socket.connect(target.port, target.to, () => {
        socket.off('error', reject)
        resolve(socket)
      })
    })
  })
}

/** One datagram there and one back. */
async function tryUdp(target: Target): Promise<Outcome> {
  const socket = await udpFrom(target)
  const outcome = await new Promise<Outcome>((resolve) => {
    setTimeout(resolve, target.timeoutMs ?? 300, 'silent')
    socket.on('message', () => resolve('reached'))
    socket.on('error', () => resolve('refused'))
    socket.send('ask')
  })
  socket.close()
  return outcome
}

/** Answers every connection with a short greeting, and every datagram with itself. */
async function listen(tcp: number[], udp: number[]): Promise<void> {
  for (const port of tcp) {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.end('here\n')
    })
    await new Promise<void>((resolve, reject) => {
      server.on('error', reject).listen(port, '::', 1024, resolve)
    })
  }
  for (const port of udp) {
    const socket = createSocket('udp6')
    socket.on('message', (text, { address, port }) => socket.send(text, port, address))
    await new Promise<void>((resolve, reject) => {
      socket.on('error', reject).bind(port, '::', resolve)
    })
  }
}

function now(): number {
  return performance.timeOrigin + performance.now()
}

/** Calls `send` again and again until stopped; `send` calls back for each that got through. */
function probe(number: number, everyMs: number, timeoutMs: number, send: Sender): void {
  const answered: number[] = []
  let sent = 0
  const timer = setInterval(() => {
    sent++
    const at = now()
    send(sent, () => answered.push(at))
  }, everyMs)
  probes.set(number, async () => {
    clearInterval(timer)
    // The last answers are still on their way.
    await new Promise((resolve) => setTimeout(resolve, Math.min(timeoutMs, 100)))
    return { sent, answered: answered.sort((a, b) => a - b) }
  })
}

type Sender = (sequence: number, arrived: () => void) => void

async function startProbe({ number, kind, target, everyMs }: ProbeRequest) {
  const { timeoutMs = 300 } = target
  if (kind === 'tcp') {
    probe(number, everyMs, timeoutMs, (_, arrived) => {
      tryTcp(target).then(
        (outcome) => outcome === 'reached' && arrived(),
        () => {},
      )
    })
    return
  }
  const socket = await udpFrom(target)
  const waiting = new Map<string, () => void>()
  socket.on('error', () => {}) // A rejected datagram is one that did not get through.
  socket.on('message', (text) => waiting.get(String(text))?.())
  probe(number, everyMs, timeoutMs, (sequence, arrived) => {
    waiting.set(String(sequence), arrived)
    socket.send(String(sequence))
  })
}

async function serve(request: Request): Promise<unknown> {
  if (request.verb === 'connect') return tryTcp(request.target)
  if (request.verb === 'ask') return tryUdp(request.target)
  if (request.verb === 'listen') return listen(request.tcp, request.udp)
  if (request.verb === 'stop') return probes.get(request.number)?.()
  return startProbe(request)
}

function answer(reply: Reply): void {
  process.stdout.write(`${JSON.stringify(reply)}\n`)
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const { id, ...request } = JSON.parse(line) as Request & { id: number }
    serve(request as Request)
      .then((result) => answer({ id, result }))
      .catch((error: Error) => answer({ id, error: error.message }))
  })
  .on('close', () => process.exit())
