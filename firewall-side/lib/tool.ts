import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { type Ended, run } from '../../scripts/lib/run.ts'

type Input = string | Iterable<string>

/**
 * A packet-filter tool that reads on standard input what it is to do. It may be started before that
 * is known: 5 ms for a program to start, which pass while the lock is waited for and the books are
 * read. Without any input it does nothing.
 */
export class Tool {
  readonly #file: string
  readonly #args: string[]
  #waiting: { give: (input: Input) => void; ended: Promise<Ended> } | undefined

  constructor(file: string, args: string[]) {
    this.#file = file
    this.#args = args
  }

  /** Starts it. Whoever does has to call `feed` or `dismiss`, or it waits for ever. */
  start(): void {
    if (this.#waiting) return
    let give: (input: Input) => void = () => {}
    const input = new Promise<Input>((resolve) => {
      give = resolve
    })
    this.#waiting = { give, ended: run(this.#file, this.#args, { input, says: 'errors' }) }
  }

  /** @throws Failure 75 with the tool's first line */
  async feed(input: Input): Promise<void> {
    this.start()
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.give(input)
    const ended = await waiting?.ended
    if (!ended || ended.code === 0) return
    const line = ended.stderr.trim().split('\n')[0] || `exit status ${ended.code}`
    throw new Failure(EXIT.temporary, `Cannot change the packet filter: ${this.#file}: ${line}`)
  }

  /** Ends it if it was started and has nothing to do. */
  dismiss(): void {
    this.#waiting?.give('')
    this.#waiting = undefined
  }
}
