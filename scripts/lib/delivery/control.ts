import { rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { join } from 'node:path'
import { parseAddress } from '../address.ts'
import { accountInstead } from '../delivery-account.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import type { Loaded } from '../settled.ts'
import { ask, bodyOf, ifRunning, LONGEST, Optional, VERSION } from './ask.ts'
import type { Deliverer, DelivererState, SyncOptions } from './deliverer.ts'
import { type Fail2BanBans, readBans, type WrittenBans, writeBans } from './fail2ban-bans.ts'
import type { Acknowledged, Synced } from './line.ts'
import {
  type Freeing,
  ownProber,
  type Place,
  type Prober,
  type TargetName,
  type Trouble,
} from './probe.ts'
import { deliveryDirectory, FRESH } from './state.ts'

/** What the one who delivers can be asked, in this process or another. */
export interface Delivery {
  mark(): Promise<Record<string, number>>
  sync(
    truth: Map<string, Fail2BanBans>,
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

/** What a sync is told. */
interface SyncAsked extends SyncOptions {
  truth: Record<string, WrittenBans>
  mark: Record<string, number>
}

/** What the questions about one target are told, as far as each needs it. */
interface TargetAsked {
  site: TargetName
  truth?: WrittenBans
  address: string
  seconds: number
  how: Freeing
}

/** Seconds for a sync, and for a target beyond what it is given. */
const PATIENCE = { sync: 660, target: 5 }

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
  if (!isGiven) rmSync(path, { force: true }) // we hold the lock: the process that made it is dead
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(isGiven ? { fd: 3 } : { path }, resolve)
  })
  return server
}

/** What a deliverer can be asked, each with what it answers. */
const ANSWERS: Record<string, (deliverer: Deliverer, body: unknown) => unknown> = {
  '/mark': (deliverer) => deliverer.mark(),
  '/names': (deliverer) => deliverer.names(),
  '/status': (deliverer) => deliverer.status(),
  '/positions': (deliverer) => deliverer.positions(),
  '/acknowledge': (deliverer, body) => deliverer.acknowledge(String(body)),
  '/sync': (deliverer, body) => {
    const { truth, mark, ...options } = body as SyncAsked
    const { owner } = deliverer.loaded.config
    const read = Object.entries(truth).map(([sibling, one]): [string, Fail2BanBans] => {
      return [sibling, readBans(one, owner)]
    })
    return deliverer.sync(new Map(read), mark, options)
  },
  '/sites': ({ loaded }) => ownProber(loaded).targets(),
  '/look': ({ loaded }, body) => {
    const { site, truth, seconds } = body as TargetAsked
    const read = truth && readBans(truth, loaded.config.owner)
    return ownProber(loaded).probe(site, read, seconds)
  },
  '/place': ({ loaded }, body) => {
    const { site, address, seconds } = body as TargetAsked
    return ownProber(loaded).place(site, address, seconds)
  },
  '/free': ({ loaded }, body) => {
    const { site, address, how } = body as TargetAsked
    return ownProber(loaded).free(site, address, how)
  },
}

async function answerTo(deliverer: Deliverer, asked: IncomingMessage): Promise<unknown> {
  const answer = ANSWERS[asked.url ?? '']
  if (!answer) throw new Failure(EXIT.usage, 'No such question')
  if (asked.url !== '/sync') await deliverer.refresh()
  const body = await bodyOf(asked, LONGEST.question)
  return await answer(deliverer, body === '' ? undefined : JSON.parse(body))
}

/** What the deliverer that runs says about itself; undefined if none does. */
export async function askStatus(stateDir: string): Promise<DelivererState | undefined> {
  const rejection = { id: '', at: 0, code: 0, reason: '', change: '', expires: 0 }
  const lastError = new Optional({ at: 0, code: 0, message: '' })
  const state = { ...FRESH, lastError, clock: new Optional(''), rejected: [rejection] }
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
      const written = [...truth].map(([sibling, one]) => [sibling, writeBans(one)])
      const body = { truth: Object.fromEntries(written), mark, ...options }
      const like = [{ sibling: '', target: '', lines: [''] }]
      return ask(stateDir, '/sync', { body, seconds: PATIENCE.sync, like })
    },
    async close() {},
  }
}

const TROUBLE = new Optional({ code: 0, message: '' })

/** Looks at targets: where an account delivers only its service does, and root asks it. */
export function openProber(loaded: Loaded): Prober {
  const { state_dir } = loaded.config
  if (!accountInstead(state_dir)) return ownProber(loaded)
  return {
    targets() {
      const like = [{ sibling: '', target: '', remote: true, queued: true }]
      return ask(state_dir, '/sites', { body: {}, like })
    },
    probe(site, truth, wait) {
      const body = { site, seconds: wait, ...(truth && { truth: writeBans(truth) }) }
      const drift = new Optional({ missing: 0, extra: 0, wrong_expiry: 0, lines: [''] })
      const [leases, complaint] = [new Optional(0), new Optional('')]
      const like = { leases, drift, complaint, trouble: TROUBLE }
      return ask(state_dir, '/look', { body, seconds: wait + PATIENCE.target, like })
    },
    async place(site, address, wait) {
      const body = { site, address, seconds: wait }
      const leases = [{ address: '', jail: '', expires: 0, owner: '' }]
      const others = [{ address: '', expires: 0, partly: true }]
      const waiting = [{ verb: '', address: '', jail: '' }]
      const place = { sibling: '', target: '', leases, others, waiting, known: [''] }
      const like = { ...place, trouble: TROUBLE }
      const options = { body, seconds: wait + PATIENCE.target, like }
      const said = await ask<Place>(state_dir, '/place', options)
      // They become words of a command that f2b-status advises.
      for (const { address: text } of [...said.leases, ...said.others]) parseAddress(text)
      return said
    },
    async free(site, address, how) {
      const seconds = how.seconds + how.wait + PATIENCE.target
      const body = { site, address, how }
      const trouble = await ask<Trouble | null>(state_dir, '/free', {
        body,
        seconds,
        like: TROUBLE,
      })
      return trouble ?? undefined
    },
  }
}
