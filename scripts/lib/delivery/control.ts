import { rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { join } from 'node:path'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import type { Loaded } from '../settled.ts'
import { LOOKS } from '../status/looker.ts'
import { ask, bodyOf, ifRunning, LONGEST, VERSION } from './ask.ts'
import type { Deliverer, DelivererState, SyncOptions } from './deliverer.ts'
import type { Acknowledged, Synced } from './line.ts'
import { deliveryDirectory, FRESH } from './state.ts'
import { readTruth, type Truth, type WrittenTruth, writeTruth } from './truth.ts'

/** What the one who delivers can be asked, in this process or another. */
export interface Delivery {
  mark(): Promise<Record<string, number>>
  sync(
    truth: Map<string, Truth>,
    mark: Record<string, number>,
    options: SyncOptions,
  ): Promise<Synced[]>
  names(): Promise<{ sibling: string; target: string }[]>
  /** Says that an operator has seen what was rejected: an id, an address, or `all`. */
  acknowledge(word: string): Promise<Acknowledged[]>
  /** How far each sibling's queue was read, as far as that is kept. */
  positions(): Promise<Record<string, string>>
  close(): Promise<void>
}

interface Asked extends SyncOptions {
  truth: Record<string, WrittenTruth>
  mark: Record<string, number>
}

/** Seconds for a sync. */
const PATIENCE = 660

/** Lets others ask a running deliverer: through the socket that systemd gave us, or one of our own. */
export async function serveControl(deliverer: Deliverer, loaded: Loaded): Promise<Server> {
  const { state_dir } = loaded.config
  const server = createServer((asked, answer) => {
    answer.setHeader(VERSION.header, VERSION.value)
    void answerTo(deliverer, asked).then(
      (value) => answer.end(JSON.stringify(value ?? null)),
      (error) => {
        answer.statusCode = 500
        answer.end(JSON.stringify({ code: codeOf(error), message: messageOf(error) }))
      },
    )
  })
  const { LISTEN_PID, LISTEN_FDS } = process.env
  const isGiven = LISTEN_PID === `${process.pid}` && LISTEN_FDS === '1' // sd_listen_fds(3)
  const path = join(deliveryDirectory(state_dir), 'socket')
  if (!isGiven) rmSync(path, { force: true }) // we hold the lock: whoever made it is dead
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(isGiven ? { fd: 3 } : { path }, resolve)
  })
  return server
}

async function answerTo(deliverer: Deliverer, asked: IncomingMessage) {
  if (asked.url !== '/sync') await deliverer.refresh()
  const { loaded } = deliverer
  if (asked.url === '/mark') return deliverer.mark()
  if (asked.url === '/names') return deliverer.names()
  if (asked.url === '/status') return deliverer.status()
  if (asked.url === '/acknowledge') {
    return deliverer.acknowledge(String(JSON.parse(await bodyOf(asked, LONGEST.question))))
  }
  if (asked.url === '/positions') return deliverer.positions()
  const answer = LOOKS[asked.url ?? '']
  const body = asked.url === '/sync' || answer ? await bodyOf(asked, LONGEST.question) : ''
  if (answer) return await answer(loaded, JSON.parse(body))
  if (asked.url !== '/sync') throw new Failure(EXIT.usage, 'No such question')
  const { truth, mark, ...options } = JSON.parse(body) as Asked
  const read = Object.entries(truth).map(([sibling, one]): [string, Truth] => {
    return [sibling, readTruth(one, loaded.config.owner)]
  })
  return await deliverer.sync(new Map(read), mark, options)
}

/** What the deliverer that runs says about itself; undefined if none does. */
export async function askStatus(stateDir: string): Promise<DelivererState | undefined> {
  const rejection = { id: '', at: 0, code: 0, reason: '', change: '', expires: 0 }
  const state = { ...FRESH, rejected: [rejection] }
  const siblings = [{ sibling: '', rejected: [rejection], targets: [{ target: '', state }] }]
  const like = { config: { path: '', since: 0, error: '' }, siblings }
  return await ifRunning(ask<DelivererState>(stateDir, '/status', { like }))
}

/** The deliverer that runs; undefined if none does. */
export async function runningDelivery(stateDir: string): Promise<Delivery | undefined> {
  const names = () =>
    ask<{ sibling: string; target: string }[]>(stateDir, '/names', {
      like: [{ sibling: '', target: '' }],
    })
  if ((await ifRunning(names())) === undefined) return undefined
  return {
    names,
    mark: () => ask(stateDir, '/mark', { like: {} }),
    positions: () => ask(stateDir, '/positions', { like: {} }),
    acknowledge: (word) => {
      const like = [{ id: '', sibling: '', change: '', reason: '' }]
      return ask(stateDir, '/acknowledge', { body: word, like })
    },
    sync(truth, mark, options) {
      const written = [...truth].map(([sibling, one]) => [sibling, writeTruth(one)])
      const body = { truth: Object.fromEntries(written), mark, ...options }
      const like = [{ sibling: '', target: '', lines: [''] }]
      return ask(stateDir, '/sync', { body, seconds: PATIENCE, like })
    },
    async close() {},
  }
}
