import { spawn } from 'node:child_process'

/** What a program said and how it ended. */
export interface Ended {
  /** Exit status; 127 if the program is not there, 128 + n if signal n ended it. */
  code: number
  stdout: string
  stderr: string
}

export interface RunOptions {
  /** Written to standard input; without it the program reads nothing. */
  input?: string | Buffer
  /** Kills the program when it fires. */
  signal?: AbortSignal
  env?: NodeJS.ProcessEnv
  /** File descriptors that the program gets as 3, 4, ... */
  fds?: number[]
}

/**
 * Runs a program with its arguments as a list. No shell is involved, so no value can be parsed as
 * one; zx starts a shell for each command and costs 20 to 40 ms a process (measured), which a ban
 * cannot afford.
 */
export function run(file: string, args: string[], options: RunOptions = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(file, args, {
      stdio: [
        options.input === undefined ? 'ignore' : 'pipe',
        'pipe',
        'pipe',
        ...(options.fds ?? []),
      ],
      env: options.env ?? process.env,
      ...(options.signal && { signal: options.signal, killSignal: 'SIGKILL' as const }),
    })
    let stdout = ''
    let stderr = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') resolve({ code: 127, stdout, stderr: `${file}: not found` })
    })
    child.on('close', (code) => resolve({ code: code ?? 137, stdout, stderr }))
    // A program that ends without reading all of its input breaks the pipe; its exit status says why.
    child.stdin?.on('error', () => {})
    if (options.input !== undefined) child.stdin?.end(options.input)
  })
}
