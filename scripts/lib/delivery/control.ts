import { rmSync } from 'node:fs'
import { createServer, type IncomingMessage, request, type Server } from 'node:http'
import { join } from 'node:path'
import manifest from '../../../package.json' with { type: 'json' }
import { deliveryAccount } from '../delivery-account.ts'
import { codeOf, EXIT, type ExitCode, Failure, messageOf } from '../failure.ts'
import type { Loaded } from '../settled.ts'
import type { Deliverer, DelivererState } from './deliverer.ts'
import type { Acknowledged, Outcome } from './line.ts'
import { deliveryDirectory } from './state.ts'
import { readTruth, type Truth, type WrittenTruth, writeTruth } from './truth.ts'

// How f2b-sync and f2b-status speak with a running f2b-deliver: HTTP on a socket, a POST per question.
// Root asks and an account answers: what comes back is taken for text that anybody may have written.

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
  /** How far each sibling's queue was read, as far as that is kept. */
  positions(): Promise<Record<string, string>>
  close(): Promise<void>
}

interface Asked {
  truth: Record<string, WrittenTruth>
  mark: Record<string, number>
  names: string[]
  dryRun: boolean
}

/** Bytes: more than the leases of any server are, and than what is said about them. */
const LONGEST = { question: 256 * 1024 * 1024, answer: 64 * 1024 * 1024 }

/** Seconds for an answer. */
const PATIENCE = { sync: 660, other: 10 }

/** Tells versions that would not understand each other. */
const VERSION = { header: 'f2b-version', value: manifest.version }

/** Made by systemd, in a folder of root's. */
const SERVICE_SOCKET = '/run/fail2ban-perimeter/deliver.sock'

/** Where a deliverer is asked: an account's is a service, root's own stands beside its books. */
export function socketPath(stateDir: string): string {
  return deliveryAccount(stateDir) ? SERVICE_SOCKET : join(deliveryDirectory(stateDir), 'socket')
}

/** Lets others ask a running deliverer: through the socket that systemd gave us, or one of our own. */
export async function serveControl(deliverer: Deliverer, { config }: Loaded): Promise<Server> {
  const server = createServer((asked, answer) => {
    answer.setHeader(VERSION.header, VERSION.value)
    void answerTo(deliverer, config.owner, asked).then(
      (value) => answer.end(JSON.stringify(value ?? null)),
      (error) => {
        answer.statusCode = 500
        answer.end(JSON.stringify({ code: codeOf(error), message: messageOf(error) }))
      },
    )
  })
  const { LISTEN_PID, LISTEN_FDS } = process.env
  const isGiven = LISTEN_PID === `${process.pid}` && LISTEN_FDS === '1' // sd_listen_fds(3)
  const path = join(deliveryDirectory(config.state_dir), 'socket')
  if (!isGiven) rmSync(path, { force: true }) // we hold the lock: whoever made it is dead
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(isGiven ? { fd: 3 } : { path }, resolve)
  })
  return server
}

async function answerTo(deliverer: Deliverer, owner: string, asked: IncomingMessage) {
  if (asked.url !== '/sync') await deliverer.refresh()
  if (asked.url === '/mark') return deliverer.mark()
  if (asked.url === '/names') return deliverer.names()
  if (asked.url === '/status') return deliverer.status()
  if (asked.url === '/acknowledge') {
    return deliverer.acknowledge(String(JSON.parse(await bodyOf(asked, LONGEST.question))))
  }
  if (asked.url === '/positions') return deliverer.positions()
  if (asked.url !== '/sync') throw new Failure(EXIT.usage, 'No such question')
  const { truth, mark, names, dryRun } = JSON.parse(await bodyOf(asked, LONGEST.question)) as Asked
  const read = Object.entries(truth).map(
    ([sibling, one]) => [sibling, readTruth(one, owner)] as const,
  )
  return await deliverer.sync(new Map(read), mark, { names, dryRun })
}

/** What the deliverer that runs says about itself; undefined if none does. */
export async function askStatus(stateDir: string): Promise<DelivererState | undefined> {
  return await ifRunning(ask<DelivererState>(socketPath(stateDir), '/status'))
}

async function ifRunning<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof NotRunning) return undefined
    throw error
  }
}

/** The deliverer that runs; undefined if none does. */
export async function runningDelivery(stateDir: string): Promise<Delivery | undefined> {
  const path = socketPath(stateDir)
  const put = <T>(question: string, body?: unknown) => ask<T>(path, question, body)
  if ((await ifRunning(put('/names'))) === undefined) return undefined
  return {
    mark: () => put('/mark'),
    names: () => put('/names'),
    acknowledge: (word) => put('/acknowledge', word),
    positions: () => put('/positions'),
    sync(truth, mark, options) {
      const written = [...truth].map(([sibling, one]) => [sibling, writeTruth(one)])
      return put('/sync', { truth: Object.fromEntries(written), mark, ...options })
    },
    async close() {},
  }
}

class NotRunning extends Failure {
  constructor() {
    super(EXIT.temporary, 'f2b-deliver does not run')
  }
}

/** @throws Failure 75 if there is no answer of use in time, or what the deliverer failed with */
async function ask<T>(socketPath: string, question: string, body?: unknown): Promise<T> {
  const seconds = question === '/sync' ? PATIENCE.sync : PATIENCE.other
  const signal = AbortSignal.timeout(seconds * 1000)
  try {
    const { answer, text } = await new Promise<{ answer: IncomingMessage; text: string }>(
      (resolve, reject) => {
        const options = { socketPath, path: question, method: 'POST', signal }
        const asked = request(options, (answer) => {
          bodyOf(answer, LONGEST.answer).then((text) => resolve({ answer, text }), reject)
        })
        asked.on('error', reject)
        asked.end(body === undefined ? '' : JSON.stringify(body))
      },
    )
    const theirs = plain(String(answer.headers[VERSION.header] ?? 'another'))
    if (theirs !== VERSION.value) throw failed(`is of version ${theirs}, this is ${VERSION.value}`)
    const value = JSON.parse(text, (_, one) => (typeof one === 'string' ? plain(one) : one))
    if (answer.statusCode === 200) return value
    const isCode = Object.values(EXIT).includes(value.code)
    throw new Failure(isCode ? (value.code as ExitCode) : EXIT.unexpected, String(value.message))
  } catch (error) {
    if (error instanceof Failure) throw error
    const { code = '' } = error as NodeJS.ErrnoException
    if (['ENOENT', 'ECONNREFUSED'].includes(code)) throw new NotRunning()
    throw failed(signal.aborted ? `does not answer within ${seconds} s` : 'broke off its answer')
  }
}

function failed(how: string): Failure {
  return new Failure(EXIT.temporary, `f2b-deliver ${how}: restart it (or wait, if it is starting)`)
}

/** Without what a terminal obeys. */
function plain(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
}

async function bodyOf(message: IncomingMessage, longest: number): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of message as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > longest) throw new Failure(EXIT.unexpected, 'f2b-deliver said too much')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}
