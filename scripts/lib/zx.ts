import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { $ as zx } from 'zx/core'

/** Characters; a program that says more is killed. */
const MOST = 1_000_000

/**
 * zx as root may use it. No shell reads the line: what stands in braces is an argument, or a list of
 * them, whatever is in it. It says nothing by itself, and a failure is an exit code.
 */
export const $ = zx({
  quiet: true,
  nothrow: true,
  detached: false,
  prefix: '',
  postfix: '',
  quote: encodeURIComponent,
  spawn: ((line: string, _: string[], options: SpawnOptions & { input?: string }) => {
    const [file = '', ...args] = line.split(' ').map(decodeURIComponent)
    const stdin = options.input ? 'pipe' : 'ignore'
    return limited(spawn(file, args, { ...options, shell: false, stdio: [stdin, 'pipe', 'pipe'] }))
  }) as typeof spawn,
})

function limited(child: ChildProcess): ChildProcess {
  let said = 0
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      said += chunk.length
      if (said > MOST) child.kill('SIGKILL')
    })
  }
  child.on('exit', (_, killed) => {
    // An ssh that was killed has handed its pipes on to the shared connection: do not wait for it.
    if (killed) for (const stream of child.stdio) stream?.destroy()
  })
  // A program that ends without reading all of its input breaks the pipe; its exit code says why.
  child.stdin?.on('error', () => {})
  return child
}
