import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Values } from '../command.ts'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import { tryLock } from '../lock.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds, KINDS } from '../siblings.ts'
import { type Call, makeCall } from '../verbs.ts'
import { type Delivery, runningDelivery } from './control.ts'
import { Deliverer } from './deliverer.ts'
import { type Log, SILENT } from './log.ts'
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

/** Whoever delivers here: f2b-deliver if it runs, else this very process. @throws Failure 75 */
export async function openDelivery(loaded: Loaded, values: Values): Promise<Delivery> {
  const directory = deliveryDirectory(loaded.config.state_dir)
  for (const end = Date.now() + PATIENCE * 1000; Date.now() < end; ) {
    const running = await runningDelivery(directory)
    if (running) return running
    const release = await lockDelivery(loaded, 1)
    if (!release) continue
    const deliverer = await openDeliverer(loaded, values, SILENT)
    return {
      mark: async () => deliverer.mark(),
      names: async () => deliverer.names(),
      sync: (truth, mark, options) => deliverer.sync(truth, mark, options),
      async close() {
        await deliverer.close()
        release()
      },
    }
  }
  throw new Failure(EXIT.temporary, 'Cannot sync: another sync is busy')
}
