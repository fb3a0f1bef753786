import { deferred } from '../../scripts/lib/deferred.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { type Ended, run } from '../../scripts/lib/run.ts'

/** What every tool keeps open, besides us. */
let kept: number[] = []

/**
 * Has every tool hold this lock with us: if we are killed, nobody takes it before the tool that we
 * have started is done, so nobody looks at the kernel while it is still being changed.
 */
export function keepOpen(lock: number): void {
  kept = [lock]
}

type Input = string | Iterable<string>

/** A process of the tool that has not been told anything yet. */
interface Waiting {
  give: (input: Input) => void
  ended: Promise<Ended>
}

/**
 * A packet-filter tool that reads on standard input what it is to do. It may be started before that
 * is known: 5 ms for a program to start, which pass while the lock is waited for and the books are
 * read. Without any input it does nothing.
 */
export class Tool {
  readonly #file: string
  readonly #args: string[]
  #waiting: Waiting | undefined

  constructor(file: string, args: string[]) {
    this.#file = file
    this.#args = args
  }

  /** Starts it. Whoever does has to call `feed` or `dismiss`, or it waits for ever. */
  start(): void {
    this.#waiting ??= this.#launch()
  }

  /** @throws Failure 75 with the tool's first line */
  async feed(input: Input): Promise<void> {
    const { give, ended } = this.#waiting ?? this.#launch()
    this.#waiting = undefined
    give(input)
    const { code, stderr } = await ended
    if (code === 0) return
    const line = stderr.trim().split('\n')[0] || `exit status ${code}`
    throw new Failure(EXIT.temporary, `Cannot change the packet filter: ${this.#file}: ${line}`)
  }

  /** Ends it if it was started and has nothing to do. */
  dismiss(): void {
    this.#waiting?.give('')
    this.#waiting = undefined
  }

  #launch(): Waiting {
    const { promise: input, give } = deferred<Input>()
    return { give, ended: run(this.#file, this.#args, { input, says: 'errors', fds: kept }) }
  }
}
