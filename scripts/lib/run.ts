import { type ChildProcess, spawn } from 'node:child_process'

/** What a program said and how it ended. */
export interface Ended {
  /** Exit status; 127 if the program is not there, 137 if it was killed. */
  code: number
  stdout: string
  stderr: string
}

export interface RunOptions {
  /**
   * Written to standard input: at once, when it is known, or piece by piece as it is made, while the
   * program works already. Without it the program reads nothing.
   */
  input?: string | Iterable<string> | Promise<string | Iterable<string>>
  /** Kills the program when it fires. */
  signal?: AbortSignal
  env?: NodeJS.ProcessEnv
  /** Kills the program when it has said more characters than this. */
  limit?: number
  /** File descriptors that the program gets as 3, 4, ... */
  fds?: number[]
  /** What anybody reads of what it says, if not everything: a pipe costs a ban up to a millisecond. */
  says?: 'nothing' | 'errors'
}

/** So much input is handed over at a time. */
const SLICE = 262_144

/**
 * Runs a program with its arguments as a list. No shell is involved, so no value can be parsed as
 * one; zx starts a shell for each command and costs 20 to 40 ms a process (measured), which a ban
 * cannot afford.
 */
export function run(file: string, args: string[], options: RunOptions = {}): Promise<Ended> {
  const { input, signal, fds = [], says } = options
  const stdout = says ? 'ignore' : 'pipe'
  const stderr = says === 'nothing' ? 'ignore' : 'pipe'
  return new Promise((resolve) => {
    const child = spawn(file, args, {
      stdio: [input === undefined ? 'ignore' : 'pipe', stdout, stderr, ...fds],
      env: options.env ?? process.env,
      ...(signal && { signal, killSignal: 'SIGKILL' as const }),
    })
    const output = collect(child, options.limit)
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') return // aborted: 'close' follows
      resolve({ code: 127, stdout: '', stderr: `${file}: not found` })
    })
    child.on('exit', (_, killed) => {
      if (!killed) return
      // An ssh that was killed has handed its pipes on to the shared connection, which may keep them
      // open for as long as it lives: do not wait for their end.
      child.stdout?.destroy()
      child.stderr?.destroy()
    })
    child.on('close', (code) => resolve({ code: code ?? 137, ...output }))
    // A program that ends without reading all of its input breaks the pipe; its exit status says why.
    child.stdin?.on('error', () => {})
    const give = (known: string | Iterable<string>): void =>
      feed(child, typeof known === 'string' ? slicesOf(known) : known)
    if (input instanceof Promise) void input.then(give)
    else if (input !== undefined) give(input)
  })
}

function collect(child: ChildProcess, limit = Infinity): { stdout: string; stderr: string } {
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      if (output[name].length + text.length > limit) child.kill('SIGKILL')
      else output[name] += text
    })
  }
  return output
}

function* slicesOf(text: string): Generator<string> {
  for (let at = 0; at < text.length; at += SLICE) {
    yield text.slice(at, at + SLICE)
  }
}

function feed({ stdin }: ChildProcess, pieces: Iterable<string>): void {
  const rest = pieces[Symbol.iterator]()
  let piece = rest.next()
  const next = (): void => {
    const { value, done } = piece
    if (!done) piece = rest.next()
    // With the last piece goes the end: what waits for it need not wait for our next turn.
    if (piece.done) stdin?.end(value)
    else if (stdin?.write(value)) setImmediate(next)
    else stdin?.once('drain', next)
  }
  next()
}
