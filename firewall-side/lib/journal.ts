import { type ChildProcess, spawn } from 'node:child_process'

/** The system's journal, as far as it is ours. */
export class Journal {
  #logger: ChildProcess | undefined

  /**
   * Starts what writes the next lines, if it has not begun. To be called while something else is
   * waited for anyway, a lock, say: a program takes 3 ms to start.
   */
  open(): void {
    if (this.#logger) return
    const logger = spawn('logger', ['-t', 'fail2ban-perimeter', '-p', 'auth.notice'], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
    })
    logger.on('error', () => {}) // no logger, no journal: a ban does not depend on it
    logger.stdin.on('error', () => {})
    logger.unref()
    this.#logger = logger
  }

  /** Writes lines. Nobody waits for it: the pipe takes them at once, and `logger` may outlive us. */
  write(lines: string[]): void {
    if (lines.length > 0) this.open()
    this.#logger?.stdin?.end(lines.map((line) => `${line}\n`).join(''))
    this.#logger = undefined
  }
}
