import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { ENV, killGroup } from './exec.ts'

/**
 * Starts each command as `execute` does, one after another. What they say is for nobody; when we are
 * killed, it ends with the command that runs, since nobody takes the next exit status.
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
