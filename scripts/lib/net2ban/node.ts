import { closeSync, mkdirSync, openSync } from 'node:fs'
import { EXIT, Failure } from '../failure.ts'
import { inTurn } from '../in-turn.ts'
import type { Lease } from '../lease.ts'
import { lock, lockedFile } from '../lock.ts'
import type { Counts } from '../target.ts'
import { thisBoot } from './boot.ts'
import { expire, syncJail } from './bulk.ts'
import { type Call, checkCall } from './call.ts'
import { execute } from './exec.ts'
import { executeMany } from './exec-many.ts'
import { Keeper } from './keeper.ts'
import { type Limits, limitsOf } from './limits.ts'
import { type Outcome, perform, stop } from './perform.ts'

export { parseActionFile } from './parse-action-file.ts'

/** A machine that runs Fail2Ban's own action files for somebody else, and remembers what for. */
export interface Node {
  /**
   * Runs one call. `ran`: the action ran; `held`: nothing to do (a ban already in force, an unban of
   * what is not held, a start already done); `over`: the lease had already ended.
   *
   * @param sentAt epoch seconds; a ban that names no `time` began then
   * @throws Failure 75: the action failed, try again later; 65 or 78: it can never work
   */
  run(call: Call, sentAt: number): Promise<Outcome>
  /**
   * Makes the leases of one jail exactly these. Their `jail` and `owner` do not matter.
   *
   * @throws Failure 75 if some could not be entered or removed; the others are as they should be
   */
  sync(
    file: string,
    name: string,
    leases: readonly Lease[],
    params: Readonly<Record<string, string>>,
  ): Promise<Counts>
  /** Unbans what is over; answers the epoch second when to call it again, if ever. */
  expire(): Promise<number | undefined>
  /** What is in force now; `jail` is `<file>:<name>`. */
  leases(): Iterable<Lease>
  /** Releases everything and ends what was started, in all jails. @throws Failure 75 if it cannot */
  release(): Promise<void>
  /** Lets the action that runs come to its end, and takes no more calls. */
  close(): Promise<void>
}

export interface NodeOptions extends Limits {
  actionDir: string
  /** The node's own folder; made if missing. */
  stateDir: string
  /** A folder that is empty after a boot. */
  runDir?: string
  /** Ends long work between two actions. */
  signal?: AbortSignal
  /** Epoch seconds. */
  now?: () => number
  /** Seconds that `now` is ahead of the clock that leases are told in; 0 if it is the same. */
  ahead?: () => number
  log?: (line: string) => void
}

/** Seconds to wait for what a killed node has left running. */
const PATIENCE = 15

/**
 * Opens a node: redoes what a crash interrupted, and puts everything back after a reboot. What
 * cannot be restored just now is logged, and tried again with the next call about it.
 *
 * @throws Failure 75 if another node uses `stateDir`, or it cannot be read and written
 */
export async function openNode(options: NodeOptions): Promise<Node> {
  const { stateDir, runDir = '/run/fail2ban-perimeter' } = options
  mkdirSync(stateDir, { recursive: true, mode: 0o700 })
  const release = await lock(`${stateDir}/node.lock`)
  try {
    // Every action holds this file, so that we can wait for what outlived a killed node.
    const running = await awaitOrphans(`${stateDir}/actions.lock`, options.log)
    const keeper = new Keeper({
      ...options,
      execute: (text, seconds) => execute(text, seconds, [running]),
      executeMany: (texts, seconds) => executeMany(texts, seconds, [running]),
    })
    await keeper.recover(thisBoot(runDir, stateDir, keeper.boot))
    return inOrder(keeper, options, () => {
      closeSync(running)
      release()
    })
  } catch (error) {
    release()
    throw error
  }
}

async function awaitOrphans(path: string, log: NodeOptions['log']): Promise<number> {
  const free = await lockedFile(path, PATIENCE)
  if (free !== undefined) return free
  log?.(`something that an action started ${PATIENCE} seconds ago is still running`)
  return openSync(path, 'a', 0o600)
}

async function releaseAll(keeper: Keeper): Promise<void> {
  let failure: unknown
  for (const place of keeper.places()) {
    await stop(keeper, place).catch((error) => {
      failure ??= error
    })
  }
  if (failure) throw failure
}

/** One thing after another: as in Fail2Ban, no action runs beside another. */
function inOrder(keeper: Keeper, limits: Limits, release: () => void): Node {
  const check = limitsOf(limits)
  const take = inTurn()
  let closed = false
  const next = <T>(work: () => Promise<T>): Promise<T> =>
    take(() => {
      if (closed) throw new Failure(EXIT.temporary, 'Cannot run: this node is closed')
      return work()
    })
  return {
    run: ({ file, action, params }, sentAt) => {
      return next(() => perform(keeper, checkCall(file, action, params), { sentAt, check }))
    },
    sync: (file, name, leases, params) => {
      return next(() => syncJail(keeper, { file, name, leases, params }, check))
    },
    expire: () => next(() => expire(keeper)),
    leases: () => keeper.books.leases(keeper.now()),
    release: () => next(() => releaseAll(keeper)),
    async close() {
      if (closed) return
      closed = true
      await take(() => {})
      keeper.close()
      release()
    },
  }
}
