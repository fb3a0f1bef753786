import { type ChildProcess, spawn } from 'node:child_process'
import { dirname, normalize } from 'node:path'
import { createInterface } from 'node:readline'

/** How a command ended. */
export interface Executed {
  ok: boolean
  /** Exit status, if it ended by itself. */
  code?: number | undefined
  /** Why not, in a few words: `exit code 1: iptables: Bad rule`. */
  reason: string
  /** What an operator must do first, if no later try helps. */
  need?: string | undefined
}

/** Where an action's programs are looked for. */
export const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Everything that an action finds in its environment; Fail2Ban's own has little more. */
export const ENV = { PATH, LANG: 'C.UTF-8' }

/** Milliseconds between TERM and KILL, as Fail2Ban has it. */
const GRACE = 200

/** So much of each output is kept for a message; the rest is read and thrown away. */
const KEPT = 4096

/**
 * Runs a piece of shell as Fail2Ban does: `/bin/sh -c`, in `/`, with umask 0077 and a process group
 * of its own, which is killed when the time is over. Whatever it leaves running is not waited for.
 *
 * @param seconds until it is killed
 * @param fds file descriptors that it and its children hold for as long as they live
 */
export function execute(text: string, seconds: number, fds: number[] = []): Promise<Executed> {
  return new Promise((resolve) => {
    const child = spawn('/bin/sh', ['-c', `umask 0077\n${text}`], {
      cwd: '/',
      env: ENV,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', ...fds],
    })
    const output = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const) {
      child[name]?.setEncoding('utf8').on('data', (more: string) => {
        if (output[name].length < KEPT) output[name] += more.slice(0, KEPT)
      })
    }
    let late = false
    const timer = setTimeout(() => {
      late = true
      killGroup(child)
    }, seconds * 1000)
    const end = (code: number | null, signal: string | null): void => {
      clearTimeout(timer)
      // A child in the background may keep the pipes: what it still says is not read.
      child.stdout?.destroy()
      child.stderr?.destroy()
      const how = late
        ? `killed after ${seconds} seconds`
        : signal
          ? `killed by ${signal}`
          : `exit code ${code}`
      const said = (output.stderr.trim() || output.stdout.trim()).split('\n').at(-1)?.slice(0, 200)
      const need = late ? undefined : needOf(output.stderr, code)
      resolve({
        ok: code === 0 && !late && need === undefined,
        code: code ?? undefined,
        reason: said ? `${how}: ${said}` : how,
        ...(need !== undefined && { need }),
      })
    }
    child.once('error', (error) => {
      clearTimeout(timer)
      resolve({ ok: false, reason: error.message })
    })
    child.once('exit', (code, signal) => {
      // What it said on its way out may still be on its way to us.
      if (code === 0) return end(code, signal)
      const last = setTimeout(end, GRACE, code, signal)
      child.once('close', () => {
        clearTimeout(last)
        end(code, signal)
      })
    })
  })
}

/** What the shell and the usual tools say of it, Python, and ufw. */
const UNWRITABLE = [
  /(\/[^\s:'"]*)['"]?: Read-only file system/,
  /Read-only file system: '(\/[^']*)'/,
  /'(\/[^']*)' is not writable/,
]

/** Of a file that cannot be written, also the exit status 0 of what follows says nothing. */
function needOf(stderr: string, code: number | null): string | undefined {
  const lacking = /(?:^|[\s'])([\w./+-]+)'?: (?:command not found|not found|No such file)/m
  const [, program] = (code === 127 && lacking.exec(stderr)) || []
  if (program) return `this node has no "${program}", install it`
  const [path] = UNWRITABLE.flatMap((shape) => shape.exec(stderr)?.[1] ?? [])
  return path && `it may not write there, ${dropIn(dirname(normalize(path)))}`
}

/** How the unit of a node is told that its actions write below a folder. */
export function dropIn(folder: string): string {
  return `"systemctl edit net2ban-client" and add [Service] ReadWritePaths=${folder}`
}

/** Ends a process and all that it started: TERM, and KILL a moment later. */
export function killGroup({ pid }: ChildProcess): void {
  const kill = (signal: NodeJS.Signals): void => {
    try {
      if (pid !== undefined) process.kill(-pid, signal)
    } catch {
      // All of it has ended.
    }
  }
  kill('SIGTERM')
  setTimeout(kill, GRACE, 'SIGKILL')
}

/**
 * Starts each command as `execute` does, one after another. What they say is not read; when we are
 * killed, it ends with the command that runs, since its next exit status finds no reader.
 */
const RUNNER = `umask 0077
for text; do
  /bin/sh -c "$text" 3>&- </dev/null >/dev/null 2>&1
  echo $? >&3
done`

/**
 * Runs many pieces of shell, one after another. To start a process costs us, who are large, three
 * times what it costs a shell: so one shell of ours starts them all.
 *
 * @param seconds for each; when one takes longer, it is killed and the rest is not run
 * @param fds see `execute`
 * @returns true for each that ended well; false for all others, also those that were not run
 */
export function executeMany(
  texts: readonly string[],
  seconds: number,
  fds: number[] = [],
): Promise<boolean[]> {
  return new Promise((resolve) => {
    const done: boolean[] = []
    const child = spawn('/bin/sh', ['-c', RUNNER, 'sh', ...texts], {
      cwd: '/',
      env: ENV,
      detached: true,
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', ...fds],
    })
    const statuses = child.stdio[3]
    let timer = setTimeout(killGroup, seconds * 1000, child)
    const end = (): void => {
      clearTimeout(timer)
      statuses?.destroy()
      resolve(texts.map((_, i) => done[i] === true))
    }
    if (statuses && 'read' in statuses) {
      createInterface({ input: statuses }).on('line', (status) => {
        done.push(status === '0')
        clearTimeout(timer)
        timer = setTimeout(killGroup, seconds * 1000, child)
      })
    }
    child.once('error', end)
    child.once('close', end)
  })
}
