import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Values } from '../command.ts'
import { accountInstead, forTargets } from '../delivery-account.ts'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import { tryLock } from '../lock.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds, KINDS } from '../siblings.ts'
import type { Call } from '../target.ts'
import { makeCall } from '../verbs.ts'
import { NotRunning } from './ask.ts'
import { type Delivery, runningDelivery } from './control.ts'
import { Deliverer } from './deliverer.ts'
import { type Log, SILENT } from './log.ts'
import { Queue } from './queue.ts'
import { deliveryDirectory, queueDirectory } from './state.ts'

/** Seconds to wait for an f2b-deliver that delivers and ends. */
const PATIENCE = 60

/** Reads the configuration with the secrets of all siblings. @throws Failure 78 */
export async function loadAll(given?: string): Promise<Loaded> {
  const { loadConfig } = await import('../config.ts')
  const loaded = loadConfig(given, ...KINDS.map(({ section, secrets }) => secrets ?? section))
  if (configuredKinds(loaded.config).length > 0) return loaded
  throw new Failure(EXIT.config, `${loaded.path}: names no target`)
}

/** The right to deliver; undefined if another process has it. The kernel ends it when we die. */
export async function lockDelivery(loaded: Loaded, seconds = 0): Promise<(() => void) | undefined> {
  const directory = deliveryDirectory(loaded.config.state_dir)
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw ioFailure(`make "${directory}"`, error)
  }
  return await tryLock(join(directory, 'lock'), seconds)
}

/** Opens the books in this process, which has the lock. */
export function openDeliverer(loaded: Loaded, values: Values, log: Log): Promise<Deliverer> {
  const call = (own: Loaded, seconds: number): Call => makeCall(forTargets(own), values, seconds)
  return Deliverer.open(loaded, { call, log, load: () => loadAll(loaded.path) })
}

/**
 * Who delivers here: f2b-deliver if it runs, and where an account delivers only that; else this
 * very process.
 *
 * @throws Failure 75
 */
export async function openDelivery(loaded: Loaded, values: Values): Promise<Delivery> {
  const { state_dir } = loaded.config
  for (const end = Date.now() + PATIENCE * 1000; Date.now() < end; ) {
    const running = await runningDelivery(state_dir)
    if (running) return running
    if (accountInstead(state_dir)) throw new NotRunning()
    const release = await lockDelivery(loaded, 1)
    if (!release) continue
    const deliverer = await openDeliverer(loaded, values, SILENT)
    return {
      mark: async () => deliverer.mark(),
      names: async () => deliverer.names(),
      acknowledge: async (word) => deliverer.acknowledge(word),
      positions: async () => deliverer.positions(),
      sync: (truth, mark, options) => deliverer.sync(truth, mark, options),
      async close() {
        await deliverer.close()
        release()
      },
    }
  }
  throw new Failure(EXIT.temporary, 'Cannot ask f2b-deliver: another one is busy')
}

/** Puts away what an account has read of the queues: their folder is root's. */
export async function tidyQueues({ config }: Loaded, delivery: Delivery): Promise<void> {
  const directory = queueDirectory(config.state_dir)
  if (!accountInstead(config.state_dir)) return // then the deliverer does it
  const release = await tryLock(join(directory, '.lock'))
  if (!release) return
  try {
    const positions = await delivery.positions()
    for (const { name } of configuredKinds(config)) {
      const queue = new Queue(join(directory, name), String(positions[name] ?? ''))
      try {
        queue.tidy()
      } finally {
        queue.close()
      }
    }
  } finally {
    release()
  }
}
