import { rmSync } from 'node:fs'
import { createServer, type IncomingMessage, request, type Server } from 'node:http'
import { join } from 'node:path'
import { codeOf, EXIT, type ExitCode, Failure, messageOf } from '../failure.ts'
import { formatLease, parseLease } from '../lease.ts'
import type { Deliverer } from './deliverer.ts'
import type { Acknowledged, Outcome } from './line.ts'
import type { SiblingState } from './state.ts'
import type { Truth } from './truth.ts'

// How f2b-sync and f2b-status speak with a running f2b-deliver: HTTP on a socket in its directory,
// which only its own user and root can enter.

/** What the one who delivers can be asked, in this process or another. */
export interface Delivery {
  mark(): Promise<Record<string, number>>
  sync(
    truth: Map<string, Truth>,
    mark: Record<string, number>,
    options: { names: string[]; dryRun: boolean },
  ): Promise<Outcome[]>
  names(): Promise<{ sibling: string; target: string }[]>
  /** Says that an operator has seen what was rejected: an id, an address, or `all`. */
  acknowledge(word: string): Promise<Acknowledged[]>
  close(): Promise<void>
}

/** A truth on the wire: lease lines and namings by sibling. */
interface Asked {
  truth: Record<
    string,
    { leases: string[]; namings: Record<string, [string, string]>; used: boolean }
  >
  mark: Record<string, number>
  names: string[]
  dryRun: boolean
}

/** More than the leases of any server are. */
const LONGEST_BODY = 256 * 1024 * 1024

export function socketPath(directory: string): string {
  return join(directory, 'socket')
}

/** Lets others ask a running deliverer. */
export async function serveControl(
  deliverer: Deliverer,
  directory: string,
  owner: string,
): Promise<Server> {
  const path = socketPath(directory)
  rmSync(path, { force: true }) // we hold the lock: whoever made it is dead
  const server = createServer((asked, answer) => {
    void answerTo(deliverer, owner, asked).then(
      (value) => answer.end(JSON.stringify(value ?? null)),
      (error) => {
        answer.statusCode = 500
        answer.end(JSON.stringify({ code: codeOf(error), message: messageOf(error) }))
      },
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(path, resolve)
  })
  return server
}

async function answerTo(deliverer: Deliverer, owner: string, asked: IncomingMessage) {
  if (asked.url === '/mark') return deliverer.mark()
  if (asked.url === '/names') return deliverer.names()
  if (asked.url === '/status') return deliverer.status()
  if (asked.url === '/acknowledge') {
    return deliverer.acknowledge(String(JSON.parse(await bodyOf(asked))))
  }
  if (asked.url !== '/sync') throw new Failure(EXIT.usage, 'No such question')
  const { truth, mark, names, dryRun } = JSON.parse(await bodyOf(asked)) as Asked
  const read = Object.entries(truth).map(
    ([sibling, { leases, namings, used }]): [string, Truth] => [
      sibling,
      {
        used,
        leases: leases.map((line) => parseLease(line, owner)),
        namings: new Map(
          Object.entries(namings).map(([jail, [ports, protocol]]) => [jail, { ports, protocol }]),
        ),
      },
    ],
  )
  return await deliverer.sync(new Map(read), mark, { names, dryRun })
}

/** What the deliverer that runs says about itself; undefined if none does. */
export async function askStatus(directory: string): Promise<SiblingState[] | undefined> {
  return await ifRunning(ask<SiblingState[]>(socketPath(directory), '/status'))
}

async function ifRunning<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (['ENOENT', 'ECONNREFUSED'].includes(code)) return undefined
    throw error
  }
}

/** The deliverer that runs; undefined if none does. */
export async function runningDelivery(directory: string): Promise<Delivery | undefined> {
  const path = socketPath(directory)
  const put = <T>(question: string, body?: unknown) => ask<T>(path, question, body)
  if ((await ifRunning(put('/names'))) === undefined) return undefined
  return {
    mark: () => put('/mark'),
    names: () => put('/names'),
    acknowledge: (word) => put('/acknowledge', word),
    sync(truth, mark, options) {
      const written = [...truth].map(([sibling, { leases, namings, used }]) => {
        const names = [...namings].map(([jail, one]) => [jail, [one.ports, one.protocol]])
        const value = { leases: leases.map(formatLease), namings: Object.fromEntries(names), used }
        return [sibling, value]
      })
      return put('/sync', { truth: Object.fromEntries(written), mark, ...options })
    },
    async close() {},
  }
}

function ask<T>(path: string, question: string, body?: unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: path, path: question, method: 'POST' }, (answer) => {
      bodyOf(answer).then((text) => {
        const value = JSON.parse(text)
        if (answer.statusCode === 200) resolve(value)
        else reject(new Failure(value.code as ExitCode, value.message))
      }, reject)
    })
    asked.on('error', reject)
    asked.end(body === undefined ? '' : JSON.stringify(body))
  })
}

async function bodyOf(message: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of message as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > LONGEST_BODY) throw new Failure(EXIT.input, 'Cannot take a message of that size')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}
