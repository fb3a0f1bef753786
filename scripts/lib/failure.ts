/**
 * The exit codes of every script. The numbers are those of sysexits(3), so that Fail2Ban's log, a
 * shell script and a monitoring plug-in read the same thing out of them.
 */
export const EXIT = {
  done: 0,
  usage: 64,
  input: 65,
  unreachable: 69,
  bug: 70,
  temporary: 75,
  unexpected: 76,
  refused: 77,
  config: 78,
} as const

export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

/** The table that `--help` prints. */
export const EXIT_TABLE = `Exit codes
  0   done, also when there was nothing to do
  64  wrong usage: unknown or missing option or verb
  65  bad input: address, port, jail, number or line of standard input
  69  target unreachable: never connected
  70  a bug in this program
  75  temporary: connected but no answer in time, busy, or cannot write now
  76  the target answered something unexpected
  77  the target refused us
  78  bad configuration`

/** An expected failure: one line for the operator and the exit code that goes with it. */
export class Failure extends Error {
  override name = 'Failure'
  readonly code: ExitCode

  constructor(code: ExitCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** The message of anything thrown, without its stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The exit code for anything thrown; what is not a Failure is a bug of ours (70). */
export function codeOf(error: unknown): ExitCode {
  return error instanceof Failure ? error.code : EXIT.bug
}

/**
 * A Failure for a system call that went wrong: cannot write now is temporary (75).
 *
 * @param doing what was tried, as in `write "/var/lib/x"`
 */
export function ioFailure(doing: string, error: unknown): Failure {
  const code = (error as NodeJS.ErrnoException).code ?? messageOf(error)
  const text: Record<string, string> = {
    ENOSPC: 'the disk is full',
    EACCES: 'permission denied',
    EPERM: 'permission denied',
    EROFS: 'the file system is read-only',
    EISDIR: 'it is a directory',
    ENOTDIR: 'it is below what is no directory',
    ENOENT: 'no such file or directory',
    EDQUOT: 'the quota is used up',
  }
  return new Failure(EXIT.temporary, `Cannot ${doing}: ${text[code] ?? code}`, { cause: error })
}
