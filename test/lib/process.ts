import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { $ } from 'zx'

const STANDARD = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const NODE = dirname(process.execPath)
const PATH = STANDARD.split(':').includes(NODE) ? STANDARD : `${STANDARD}:${NODE}`

/** All that a command on a machine finds in its environment, whatever the host's is. */
const CLEAN_ENV: Env = { PATH, LANG: 'C.UTF-8', HOME: '/root' }

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
  /** The exit code; -1 if a signal or the end of the machine ended it. */
  exited: Promise<number>
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
  const command = [...enter(pid), ...withEnv(env), ...limit, ...asUser(user), ...argv]
  const run = $({ input, quiet: true, nothrow: true, cwd: '/' })
  const { exitCode, stdout, stderr } = await run`${command}`
  return { code: exitCode ?? -1, stdout, stderr }
}

/** Starts a command in the namespaces of a machine; it is running when this returns. */
export async function spawnIn(
  pid: number,
  argv: readonly string[],
  options: SpawnOptions = {},
): Promise<Background> {
  const { env = {}, user, onLine = () => {} } = options
  // nsenter passes no signals on, so the process tells its number in there on a fourth stream.
  const told = ['setsid', 'sh', '-c', 'echo $$ >&3; exec "$@" 3>&-', 'sh']
  const [command = '', ...args] = [...enter(pid), ...withEnv(env), ...told, ...asUser(user), ...argv]
  const child = spawn(command, args, { cwd: '/', detached: true, stdio: Array(4).fill('pipe') })
  const [stdin, stdout, stderr, number] = child.stdio as [Writable, Readable, Readable, Readable]
  let complaints = ''
  stdin.on('error', () => {})
  createInterface({ input: stdout }).on('line', onLine)
  stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints += text
  })
  const exited = once(child, 'close').then(([code]) => (code as number | null) ?? -1)
  const inner = Number(await firstLine(number))
  if (!inner) throw new Error(`Cannot start ${argv.join(' ')}: ${complaints}`)
  release(child, stdin, stdout, stderr)
  return {
    stdin,
    stderr: () => complaints,
    exited,
    async kill(signal = 'SIGTERM') {
      await execIn(pid, ['sh', '-c', `kill -s ${signal.slice(3)} -- -${inner}`])
    },
  }
}

/**
 * Starts a process on the host that lives no longer than this one: its standard input ends with us.
 *
 * @returns once it has printed `ready`
 * @throws Error with what it wrote to standard error, if it ends before that
 */
export async function spawnHolder(argv: readonly string[], env: Env = {}) {
  const [command = '', ...args] = argv
  const stdio = ['pipe', 'pipe', 'pipe'] as const
  // Detached, so that Ctrl-C on a terminal reaches it only as the end of its input.
  const child = spawn(command, args, {
    cwd: '/',
    detached: true,
    env: { ...CLEAN_ENV, ...env },
    stdio: [...stdio],
  })
  const [stdin, stdout, stderr] = child.stdio as [Writable, Readable, Readable]
  let complaints = ''
  stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints += text
  })
  const exited = once(child, 'exit')
  if ((await firstLine(stdout)) !== 'ready' || !child.pid) {
    await exited
    throw new Error(`Cannot start ${argv.join(' ')}: ${complaints}`)
  }
  release(child, stdin, stdout, stderr)
  return {
    pid: child.pid,
    /** Ends it, and returns when it and all that it held are gone. */
    async end(): Promise<void> {
      child.ref()
      stdin.end()
      await exited
    },
  }
}

/** The command line prefix that puts a program into a machine's namespaces. */
export function enter(pid: number): string[] {
  // The process of `pid` itself stands outside the PID namespace, its children stand inside.
  return ['nsenter', '-t', `${pid}`, '-m', '-n', '-u', `--pid=/proc/${pid}/ns/pid_for_children`]
}

function withEnv(env: Env): string[] {
  const all = Object.entries({ ...CLEAN_ENV, ...env })
  const set = all.flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]))
  return ['env', '-i', ...set]
}

function asUser(user: string | undefined): string[] {
  return user ? ['runuser', '-u', user, '--'] : []
}

async function firstLine(stream: Readable): Promise<string> {
  for await (const line of createInterface({ input: stream })) return line
  return ''
}

/** Lets this process end although the child is alive: the child ends then, too. */
function release(...handles: object[]): void {
  for (const handle of handles) (handle as { unref?: () => void }).unref?.()
}
