import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import type { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'

const STANDARD = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const NODE = dirname(process.execPath)
export const PATH = STANDARD.split(':').includes(NODE) ? STANDARD : `${STANDARD}:${NODE}`

/** How long output may follow the end of a command, in milliseconds. */
const GRACE = 200

/** All that a command on a machine finds in its environment, whatever the host's is. */
const CLEAN_ENV = { PATH, LANG: 'C.UTF-8', HOME: '/root' }

/** Variables on top of the clean ones; `undefined` takes one away. */
type Env = Record<string, string | undefined>

export interface ExecOptions {
  /** Standard input. */
  input?: string
  env?: Env
  /** Milliseconds; then the command is killed and its code is 124 (137 if it would not go). */
  timeout?: number
  /** Whom to run it as; root if left out. */
  user?: string
}

export interface Output {
  code: number
  stdout: string
  stderr: string
}

/** A process that goes on while the test does something else. */
export interface Background {
  stdin: Writable
  /** All of standard error so far. */
  stderr(): string
  /** Sends a signal to the process and its descendants, unless they left its session. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Waits for the exit code; -1 if a signal or the end of the machine ended it. */
  ended(): Promise<number>
}

export interface SpawnOptions {
  env?: Env
  user?: string
  /** Called for each line on standard output. */
  onLine?: (line: string) => void
}

/** Runs a command in the namespaces of a machine. @param pid whose namespaces, see `boot` */
export async function execIn(
  pid: number,
  argv: readonly string[],
  options: ExecOptions = {},
): Promise<Output> {
  const { input = '', timeout = 60_000, env = {}, user } = options
  const limit = ['timeout', '-k', '1', String(timeout / 1000)]
  const [program = '', ...args] = [...enter(pid), ...limit, ...asUser(user), ...argv]
  const child = spawn(program, args, { cwd: '/', env: { ...CLEAN_ENV, ...env }, detached: true })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  child.stdin.on('error', () => {}) // Not every command reads what it is given.
  child.stdin.end(input)
  const closed = once(child, 'close')
  const [code] = (await once(child, 'exit')) as [number | null]
  // zx would wait for the end of both streams. A shared SSH connection holds those of a client that
  // was killed for as long as the other side hangs, and that is just what some tests look at.
  await Promise.race([closed, sleep(GRACE, undefined, { ref: false })])
  // What has failed says why, a moment later on a busy machine: the shared connection writes it.
  const silent = code !== 0 && output.stderr === ''
  if (silent) await Promise.race([closed, sleep(10 * GRACE, undefined, { ref: false })])
  child.stdout.destroy()
  child.stderr.destroy()
  return { code: code ?? -1, ...output }
}

/** Starts a command in the namespaces of a machine; it is running when this returns. */
export async function spawnIn(
  pid: number,
  argv: readonly string[],
  options: SpawnOptions = {},
): Promise<Background> {
  const { env = {}, user, onLine } = options
  // nsenter passes no signals on, so the process tells first what its number is in there.
  const telling = ['setsid', 'sh', '-c', 'echo $$; exec "$@"', 'sh']
  const command = [...enter(pid), ...telling, ...asUser(user), ...argv]
  const { child, first, stderr, ended } = await launch(command, onLine, env)
  return {
    stdin: child.stdin,
    stderr,
    ended,
    async kill(signal = 'SIGTERM') {
      await execIn(pid, ['sh', '-c', `kill -s ${signal.slice(3)} -- -${first}`])
    },
  }
}

/**
 * Starts a process on the host that lives no longer than this one: its standard input ends with us.
 *
 * @returns once it has printed `ready`
 * @throws Error with what it wrote to standard error, if it ends before that
 */
export async function spawnHolder(argv: readonly string[]) {
  const { child, ended } = await launch(argv)
  return {
    pid: child.pid ?? 0,
    /** Ends it, and returns when it and all that it held are gone. */
    async end(): Promise<void> {
      child.stdin.end()
      await ended()
    },
  }
}

/** Starts a process that does not keep this one alive, and waits for its first line. */
async function launch(
  argv: readonly string[],
  onLine: (line: string) => void = () => {},
  env: Env = {},
) {
  const [command = '', ...args] = argv
  // Detached, so that Ctrl-C on a terminal reaches it only as the end of its input.
  const options = { cwd: '/', detached: true, env: { ...CLEAN_ENV, ...env } }
  const child = spawn(command, args, { ...options, stdio: ['pipe', 'pipe', 'pipe'] })
  const exited = once(child, 'exit').then(([code]) => (code as number | null) ?? -1)
  const closed = once(child, 'close')
  let complaints = ''
  child.stdin.on('error', () => {}) // Whoever writes to a dead process learns it from `ended`.
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints += text
  })
  const first = await new Promise<string>((resolve) => {
    let seen = false
    createInterface({ input: child.stdout })
      .on('line', (line) => {
        if (seen) onLine(line)
        else resolve(line)
        seen = true
      })
      .on('close', () => resolve(''))
  })
  if (!first) {
    await closed
    throw new Error(`Cannot start ${argv.join(' ')}: ${complaints}`)
  }
  child.unref()
  for (const stream of [child.stdin, child.stdout, child.stderr]) {
    if (stream instanceof Socket) stream.unref()
  }
  const ended = () => {
    child.ref() // Who waits for it stays, too.
    return exited
  }
  return { child, first, stderr: () => complaints, ended }
}

/** The command line prefix that puts a program into a machine's namespaces. */
export function enter(pid: number): string[] {
  // The process of `pid` itself stands outside the PID namespace, its children stand inside.
  return ['nsenter', '-t', `${pid}`, '-m', '-n', '-u', `--pid=/proc/${pid}/ns/pid_for_children`]
}

function asUser(user: string | undefined): string[] {
  return user ? ['runuser', '-u', user, '--'] : []
}
