import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Values } from '../command.ts'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import { otherOwner } from '../identity.ts'
import { tryLock } from '../lock.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds, KINDS } from '../siblings.ts'
import type { Call } from '../target.ts'
import { makeCall } from '../verbs.ts'
import { type Delivery, runningDelivery } from './control.ts'
import { Deliverer } from './deliverer.ts'
import { type Log, SILENT } from './log.ts'
import { spawnDeliverer } from './spawned.ts'
import { deliveryDirectory } from './state.ts'

/** Seconds to wait for somebody who delivers and ends, or who is about to open his socket. */
const PATIENCE = 60

/** Reads the configuration with the secrets of all siblings. @throws Failure 78 */
export async function loadAll(given?: string): Promise<Loaded> {
  const { loadConfig } = await import('../config.ts')
  const loaded = loadConfig(given, ...KINDS.map(({ section }) => section))
  if (configuredKinds(loaded.config).length > 0) return loaded
  throw new Failure(EXIT.config, `${loaded.path}: names no target`)
}

/** The right to deliver; undefined if somebody else has it. The kernel ends it when we die. */
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
  const call = (seconds: number): Call => makeCall(loaded, values, seconds)
  return Deliverer.open(loaded, call, log)
}

/**
 * Whoever delivers here: f2b-deliver if it runs; else this very process, or, where the books are an
 * account's and we are root, who alone may ask Fail2Ban, an f2b-deliver that we start.
 *
 * @throws Failure 75
 */
export async function openDelivery(loaded: Loaded, values: Values): Promise<Delivery> {
  const directory = deliveryDirectory(loaded.config.state_dir)
  if (otherOwner(loaded.config.state_dir)) return await spawnedDelivery(loaded, directory)
  for (const end = Date.now() + PATIENCE * 1000; Date.now() < end; ) {
    const running = await runningDelivery(directory)
    if (running) return running
    const release = await lockDelivery(loaded, 1)
    if (!release) continue
    const deliverer = await openDeliverer(loaded, values, SILENT)
    return {
      mark: async () => deliverer.mark(),
      names: async () => deliverer.names(),
      acknowledge: async (word) => deliverer.acknowledge(word),
      sync: (truth, mark, options) => deliverer.sync(truth, mark, options),
      async close() {
        await deliverer.close()
        release()
      },
    }
  }
  throw new Failure(EXIT.temporary, 'Cannot sync: another sync is busy')
}

async function spawnedDelivery({ path }: Loaded, directory: string): Promise<Delivery> {
  const running = await runningDelivery(directory)
  if (running) return running
  const spawned = spawnDeliverer(path)
  try {
    for (const end = Date.now() + PATIENCE * 1000; Date.now() < end; await setTimeout(20)) {
      spawned.check()
      const delivery = await runningDelivery(directory)
      if (delivery) return { ...delivery, close: () => spawned.end() }
    }
    throw new Failure(EXIT.temporary, 'Cannot sync: f2b-deliver does not start')
  } catch (error) {
    await spawned.end()
    throw error
  }
}
