import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { lstatSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { deliveryDirectory } from './delivery/state.ts'
import { EXIT, Failure } from './failure.ts'
import type { Loaded } from './settled.ts'

// Who delivers here. The state directory is root's, and so is the queue in it. What a deliverer
// keeps stands in its folder `delivery`: where that is an account's, root neither reads nor writes
// there, but asks the service, or lets a command go on as the account.

/** Set where somebody with more rights has queued already what a command does. */
const NOTED = 'F2B_NOTED'

/** An account other than root. */
export interface Account {
  uid: number
  gid: number
}

/**
 * The account that delivers for this server; undefined if root does.
 *
 * @throws Failure 78 if we are root, and the state directory is not
 */
export function deliveryAccount(stateDir: string): Account | undefined {
  const state = statSync(stateDir, { throwIfNoEntry: false })
  if (!state) return undefined
  if (isRoot() && state.uid !== 0) {
    throw new Failure(
      EXIT.config,
      `Cannot use "${stateDir}": it belongs to user ${state.uid}: run f2b-setup server`,
    )
  }
  const delivery = lstatSync(deliveryDirectory(stateDir), { throwIfNoEntry: false })
  if (!delivery || delivery.uid === state.uid) return undefined
  return { uid: delivery.uid, gid: delivery.gid }
}

/** The account that must do something instead of us: we are root, and it delivers. */
export function accountInstead(stateDir: string): Account | undefined {
  return isRoot() ? deliveryAccount(stateDir) : undefined
}

/** The configuration for targets: what they remember, they keep where we may write. */
export function forTargets(loaded: Loaded): Loaded {
  const { state_dir } = loaded.config
  const isOurs = !isRoot() && deliveryAccount(state_dir)?.uid === process.getuid?.()
  if (!isOurs) return loaded
  return { ...loaded, config: { ...loaded.config, state_dir: deliveryDirectory(state_dir) } }
}

/**
 * Runs this very command once more, as the account, and ends as it does.
 *
 * Only the new process has other rights, and no other groups: Node itself may not be able to change
 * them (Debian 13's refuses setgroups).
 */
export async function runAs({ uid, gid }: Account, stateDir: string): Promise<void> {
  const [script = '', ...args] = process.argv.slice(1)
  for (const path of [process.execPath, script]) {
    if (canReach(path)) continue
    throw new Failure(EXIT.config, `Cannot run "${path}" as user ${uid}: it may not enter there`)
  }
  const child = spawn(process.execPath, [...process.execArgv, script, ...args], {
    ...{ uid, gid, stdio: 'inherit' as const },
    // ssh's sockets: the account has no other place.
    env: {
      ...process.env,
      HOME: '/nonexistent',
      XDG_RUNTIME_DIR: deliveryDirectory(stateDir),
      [NOTED]: '1',
    },
  })
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => child.kill(signal))
  const [code] = (await once(child, 'exit')) as [number | null]
  process.exitCode = code ?? EXIT.temporary
}

/** True in a command that `runAs` has started. */
export function isNoted(): boolean {
  return process.env[NOTED] !== undefined
}

/** True if anybody may read a file. */
export function canReach(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.mode ?? 0) % 8 >= 4 && canEnter(dirname(path))
}

/** True if anybody may go to what is in a folder. */
export function canEnter(folder: string): boolean {
  if (!(statSync(folder).mode & 0o001)) return false
  return folder === '/' || canEnter(dirname(folder))
}

function isRoot(): boolean {
  return process.getuid?.() === 0
}
