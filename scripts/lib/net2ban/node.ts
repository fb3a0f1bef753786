import { createHash, randomBytes } from 'node:crypto'
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EXIT, Failure } from '../failure.ts'
import { inTurn } from '../in-turn.ts'
import type { Lease } from '../lease.ts'
import { lock, lockedFile } from '../lock.ts'
import type { Counts } from '../target.ts'
import type { Call } from './call.ts'
import { execute, executeMany } from './exec.ts'
import { type Limits, limitsOf } from './limits.ts'
import { NodeState } from './node-state.ts'
import { expire, type Outcome, runCall, stop, syncJail } from './run-call.ts'

/** A machine that runs Fail2Ban's own action files for the senders, and remembers what for. */
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
    const node = new NodeState({
      ...options,
      execute: (text, seconds) => execute(text, seconds, [running]),
      executeMany: (texts, seconds) => executeMany(texts, seconds, [running]),
    })
    await node.recover(thisBoot(runDir, stateDir, node.boot))
    return inOrder(node, options, () => {
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

async function releaseAll(node: NodeState): Promise<void> {
  let failure: unknown
  for (const state of node.jails()) {
    await stop(node, state).catch((error) => {
      failure ??= error
    })
  }
  if (failure) throw failure
}

/** One thing after another: as in Fail2Ban, no action runs beside another. */
function inOrder(node: NodeState, limits: Limits, release: () => void): Node {
  const check = limitsOf(limits)
  const take = inTurn()
  let closed = false
  const next = <T>(work: () => Promise<T>): Promise<T> =>
    take(() => {
      if (closed) throw new Failure(EXIT.temporary, 'Cannot run: this node is closed')
      return work()
    })
  return {
    run: (call, sentAt) => next(() => runCall(node, call, { sentAt, check })),
    sync: (file, name, leases, params) => {
      return next(() => syncJail(node, { file, name, leases, params }, check))
    },
    expire: () => next(() => expire(node)),
    leases: () => node.leases.all(node.now()),
    release: () => next(() => releaseAll(node)),
    async close() {
      if (closed) return
      closed = true
      await take(() => {})
      node.close()
      release()
    },
  }
}

/**
 * Tells this boot of the machine from every other: a word in /run, which is empty after each boot,
 * and the kernel's own boot id, for a machine that lets us write nothing there.
 *
 * @param known the word of the last time
 * @returns the same word if the machine was not rebooted since
 */
export function thisBoot(runDir: string, stateDir: string, known: string): string {
  const name = createHash('sha256').update(stateDir).digest('hex').slice(0, 12)
  const path = join(runDir, `net2ban.${name}`)
  const kernel = read('/proc/sys/kernel/random/boot_id')
  const word = read(path)
  if (word !== '' && word === known && word.startsWith(kernel)) return word
  const fresh = `${kernel} ${randomBytes(8).toString('hex')}`
  try {
    mkdirSync(runDir, { recursive: true, mode: 0o755 })
    writeFileSync(path, `${fresh}\n`, { mode: 0o600 })
    return fresh
  } catch {
    return kernel
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return ''
  }
}
