import { $ as zx } from 'zx/core'
import { EXIT, Failure } from '../failure.ts'
import type { Ended } from '../run.ts'

type Value = string | number | readonly (string | number)[]
type Tag<T> = (pieces: TemplateStringsArray, ...values: Value[]) => Promise<T>

/** Longer than anything takes that may be waited for: a deliverer that delivers all that is queued. */
const LIMIT = '15m'

/**
 * zx as root may have it: every setting is ours, whatever ZX_* in the environment say, and each value
 * is one word to any POSIX shell, which the command replaces.
 */
const SETTINGS = {
  cwd: process.cwd(),
  shell: '/bin/sh',
  prefix: 'exec ',
  postfix: '',
  quote: (word: string) =>
    /^[\w./:=@+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`,
  quiet: true,
  verbose: false,
  nothrow: true,
  detached: false,
  preferLocal: false,
  timeout: LIMIT,
  timeoutSignal: 'SIGKILL',
  killSignal: 'SIGKILL',
  stdio: ['ignore', 'pipe', 'pipe'],
} satisfies Parameters<typeof zx>[0]

/** A command with something on its standard input, where secrets travel, or another environment. */
export function command({ input, env }: { input?: string; env?: NodeJS.ProcessEnv }): Tag<Ended> {
  const shell = zx({
    ...SETTINGS,
    ...(env && { env }),
    ...(input !== undefined && { stdio: 'pipe' }),
  })
  return async (pieces, ...values) => {
    const running = shell(pieces, ...values)
    if (input !== undefined) {
      // A program that ends without reading all of it breaks the pipe; its exit status says why.
      running.stdin.on('error', () => {})
      running.stdin.end(input)
    }
    const { exitCode, stdout, stderr } = await running
    return { code: exitCode ?? 137, stdout, stderr }
  }
}

/** Runs a command that may fail. 127 if it is not there. */
export const tried: Tag<Ended> = command({})

/** Runs a command that must succeed. @returns what it said @throws Failure 75 with what went wrong */
export const $: Tag<string> = async (pieces, ...values) => {
  const { code, stdout, stderr } = await tried(pieces, ...values)
  if (code === 0) return stdout
  const program = (pieces[0] || String(values[0])).split(' ')[0] ?? ''
  const said = code === 127 ? 'not found' : stderr.trim().replace(/\s*\n\s*/g, ' ')
  const why = said || `exit status ${code}`
  throw new Failure(EXIT.temporary, why.startsWith(program) ? why : `${program}: ${why}`)
}
