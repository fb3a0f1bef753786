import { spawn } from 'node:child_process'

/**
 * Writes lines to the system's journal. Nobody waits for it: the pipe takes the lines at once and
 * `logger` outlives us if it must.
 */
export function journal(lines: string[]): void {
  if (lines.length === 0) return
  const logger = spawn('logger', ['-t', 'fail2ban-perimeter', '-p', 'auth.notice'], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  logger.on('error', () => {}) // no logger, no journal: a ban does not depend on it
  logger.stdin.on('error', () => {})
  logger.stdin.end(`${lines.join('\n')}\n`)
  logger.unref()
}
