import { type ChildProcess, spawn } from 'node:child_process'
import { EXIT, Failure } from '../failure.ts'
import type { Firewall } from '../settings/firewalls.ts'
import type { Call } from '../target.ts'
import { ownConnection, programOf, refusal, TRANSPORT, throughShared } from './ssh.ts'

/** What a firewall answers to one operation: its lines, and what stands behind `ok`. */
export interface Answer {
  lines: string[]
  ok: string
  /** Instead of `ok`. */
  error?: Refused
}

interface Refused {
  code: number
  text: string
}

/** Longer than anything that a firewall says on one line. */
const LONGEST_LINE = 4096

/** A firewall of an older version has no word to begin a session with. */
const OLDER = 'error 64 Unknown operation "session"'

/** What a shell says of a program that was killed. */
const KILLED = 137

/** So often something is said that turns out to be older than what the firewall has heard. */
export const TRIES = 3

/** More characters than any answer has: 100,000 leases are 6 million. */
export const LONGEST_ANSWER = 32_000_000

/** More characters than an sshrc greets with, or a program complains with. */
const LONGEST_GREETING = 65_536

/** So many characters are handed over at a time. */
const SLICE = 262_144

/** What a line takes in memory beside its characters. */
const LINE = 32

/** Splits what a firewall says in a session into answers. */
export class AnswerReader {
  #rest = ''
  #lines: string[] = []
  #size = 0
  #mark: string | undefined
  #greeting = ''

  /**
   * @param mark the line that the first answer begins with: all before it was said by others, such as
   * an sshrc that greets
   */
  constructor(mark?: string) {
    this.#mark = mark
  }

  /** What was said before the first answer, while it has not come. */
  get greeting(): string {
    return this.#mark === undefined ? '' : this.#greeting
  }

  /** What is complete now. @throws Failure 76 for what no firewall of ours would say */
  feed(chunk: string): Answer[] {
    const answers: Answer[] = []
    const lines = (this.#rest + chunk).split('\n')
    this.#rest = lines.pop() ?? ''
    if (this.#rest.length > LONGEST_LINE) {
      throw new Failure(EXIT.unexpected, 'the firewall says a line without end')
    }
    for (const line of lines) {
      if (this.#isGreeting(line)) continue
      const [, code, text = ''] = /^error (\d+) (.*)$/.exec(line) ?? []
      const done = line === 'ok' || line.startsWith('ok ')
      if (!code && !done) {
        this.#size += line.length + LINE
        if (line.length > LONGEST_LINE || this.#size > LONGEST_ANSWER) {
          throw new Failure(EXIT.unexpected, 'the firewall says an answer without end')
        }
        if (line !== '') this.#lines.push(line)
        continue
      }
      const answer: Answer = { lines: this.#lines, ok: done ? line.slice(3) : '' }
      if (code) answer.error = { code: Number(code), text }
      this.#lines = []
      this.#size = 0
      answers.push(answer)
    }
    return answers
  }

  #isGreeting(line: string): boolean {
    if (this.#mark === undefined) return false
    const begins = line === this.#mark
    if (begins || line === OLDER) this.#mark = undefined
    else this.#greeting = `${this.#greeting}${line} `.slice(0, LONGEST_LINE)
    this.#size = this.#mark === undefined ? 0 : this.#size + line.length + LINE
    if (this.#size > LONGEST_GREETING) {
      throw new Failure(EXIT.unexpected, 'the firewall greets without end')
    }
    return line !== OLDER
  }
}

/** Told how far the last operations of a session are on their way. */
type Last = Pick<Call, 'progress'>

/** Operations that wait for their answers. */
interface Question {
  count: number
  answers: Answer[]
  resolve(answers: Answer[]): void
  reject(error: Failure): void
}

/**
 * A `firewall` session: one interpreter on the firewall that takes operations, one a line, and answers
 * each. It is over with one line, as for a ban by hand, or stays open on an SSH connection of its own,
 * where an operation costs one exchange (measured: 10 ms instead of 130).
 */
export class Session {
  readonly #child: ChildProcess
  readonly #reader: AnswerReader
  readonly #questions: Question[] = []
  #said = ''
  /** Characters of it since the last answer. */
  #complained = 0
  #ended: Failure | undefined
  /** The exit status of its program, once it has one. */
  code: number | undefined

  /**
   * @param mark what its first operation, `session`, is answered with
   * @param connection the arguments of ssh, as `throughShared` gives them
   */
  constructor(firewall: Firewall, owner: string, mark: string, connection?: string[]) {
    this.#reader = new AnswerReader(mark)
    const own = connection ?? ownConnection(firewall)
    const [file, args, head] = programOf(firewall, owner, 'firewall', own)
    this.#child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#child.on('error', () => this.#end(new Failure(EXIT.config, `${file} is not there`)))
    this.#child.on('close', (code) => {
      this.code = code ?? TRANSPORT
      this.#end(this.#whyEnded(this.code))
    })
    this.#child.stdin?.on('error', () => {}) // 'close' follows and says why
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#said = (this.#said + text).slice(-LONGEST_LINE)
      this.#complained += text.length
      if (this.#complained < LONGEST_GREETING) return
      this.close(new Failure(EXIT.unexpected, 'the firewall complains without end'))
    })
    this.#child.stdout?.setEncoding('utf8').on('data', (chunk: string) => this.#hear(chunk))
    if (head !== '') this.#child.stdin?.write(head)
  }

  /** False once it has ended, for whatever reason. */
  get isOpen(): boolean {
    return this.#ended === undefined
  }

  /** Why it has ended. */
  get failure(): Failure | undefined {
    return this.#ended
  }

  /**
   * Sends operations and waits for as many answers.
   *
   * @param last given if nothing comes after them
   * @returns the answers; fewer if the session has ended meanwhile
   * @throws Failure 69, 75, 76 or 77 if it has ended before the first answer
   */
  async ask(operations: string[], signal: AbortSignal, last?: Last): Promise<Answer[]> {
    const late = (): void => this.close(new Failure(EXIT.temporary, 'no answer in time'))
    const asked = new Promise<Answer[]>((resolve, reject) => {
      if (this.#ended) return reject(this.#ended)
      this.#questions.push({ count: operations.length, answers: [], resolve, reject })
      this.#write(operations.map((line) => `${line}\n`).join(''), last)
      if (signal.aborted) late()
    })
    signal.addEventListener('abort', late, { once: true })
    return await asked.finally(() => signal.removeEventListener('abort', late))
  }

  /** Ends it; what waits for an answer is told why. */
  close(why = new Failure(EXIT.temporary, 'the session was closed')): void {
    this.#end(why)
    this.#child.kill('SIGTERM')
    // An ssh that was killed has handed its pipes on to the shared connection: they do not end with it.
    for (const pipe of this.#child.stdio) pipe?.destroy()
  }

  #write(text: string, last: Last | undefined, at = 0): void {
    const { stdin } = this.#child
    const [slice, end] = [text.slice(at, at + SLICE), at + SLICE]
    if (text.length > SLICE) last?.progress(Math.min(end, text.length), text.length)
    if (end < text.length) stdin?.write(slice, () => this.#write(text, last, end))
    else if (last) stdin?.end(slice)
    else stdin?.write(slice)
  }

  #hear(chunk: string): void {
    try {
      for (const answer of this.#reader.feed(chunk)) {
        const [question] = this.#questions
        if (!question) throw new Failure(EXIT.unexpected, 'an answer to no question')
        this.#complained = 0
        question.answers.push(answer)
        if (question.answers.length < question.count) continue
        this.#questions.shift()
        question.resolve(question.answers)
      }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.close(error)
    }
  }

  #end(why: Failure): void {
    if (this.#ended) return
    this.#ended = why
    for (const { answers, resolve, reject } of this.#questions.splice(0)) {
      if (answers.length > 0) resolve(answers)
      else reject(why)
    }
  }

  /** ssh ends with 255 when the transport failed; the firewall's own program names itself. */
  #whyEnded(code: number): Failure {
    if (code === TRANSPORT) return refusal(this.#said)
    return failureOf(code, this.#said, this.#reader.greeting)
  }
}

/**
 * Sends a session as a whole, over the connection that all commands share.
 *
 * @param linesOf makes `session` and the operations, while SSH, sudo and an interpreter start there:
 *   100,000 lines take as long
 * @returns an answer for each, or up to one that was refused
 * @throws Failure why not all came
 */
export async function askOnce(
  firewall: Firewall,
  call: Call,
  linesOf: () => string[],
): Promise<Answer[]> {
  const attempt = async (connection: string[]): Promise<Answer[] | undefined> => {
    const mark = saidNow()
    const session = new Session(firewall, call.owner, mark, connection)
    try {
      const [begin, ...operations] = linesOf()
      const answers = await session.ask([`${begin} ${mark}`, ...operations], call.signal, call)
      if (answers.length > operations.length || answers.some(({ error }) => error)) return answers
      if (session.code !== EXIT.done) throw session.failure
      const count = `${answers.length - 1} of ${operations.length}`
      throw new Failure(EXIT.unexpected, `${count} answers came`)
    } catch (error) {
      if (session.code === TRANSPORT) return undefined
      throw error
    } finally {
      session.close()
    }
  }
  return await throughShared(firewall, call.signal, attempt)
}

/** Runs a program to its end, as zx does it. */
export type Runner = (
  file: string,
  args: string[],
  input: string,
) => PromiseLike<{ exitCode: number | null; stdout: string; stderr: string }>

/**
 * Runs one of the document's words as a command of its own, over the connection that all commands
 * share.
 *
 * @returns the lines it prints
 */
export async function sayWord(
  firewall: Firewall,
  { owner, signal }: Call,
  word: string,
  runner: Runner,
): Promise<string[]> {
  let over = ''
  for (let tries = 1; ; tries++) {
    const mark = saidNow()
    const { exitCode, stdout, stderr } = await throughShared(
      firewall,
      signal,
      async (connection) => {
        const ended = await runner(
          ...programOf(firewall, owner, `${word} ${mark}${over}`, connection),
        )
        return ended.exitCode === TRANSPORT || signal.aborted ? undefined : ended
      },
    )
    if (exitCode === EXIT.done) return linesBehind(mark, stdout, stderr)
    const failure = failureOf(exitCode ?? KILLED, stderr)
    const newer = newerThan(failure.message)
    if (newer === undefined || tries === TRIES) throw failure
    over = ` over ${newer}` // our clock was put back
  }
}

/** The firewall begins with what we said, whatever others say before. */
function linesBehind(mark: string, stdout: string, stderr: string): string[] {
  const lines = stdout.split('\n')
  const at = lines.indexOf(mark)
  if (at < 0) throw failureOf(EXIT.done, stderr, lines.join(' '))
  return lines.slice(at + 1).filter((line) => line !== '')
}

/** The number of something newer, because of which the firewall has refused what we said. */
export function newerThan(refusal: string): number | undefined {
  const [, newer] = /^superseded: (\d{1,15}) is newer$/.exec(refusal) ?? []
  return newer === undefined ? undefined : Number(newer)
}

/** What a line ends with: when we say it, by our own clock, for the firewall's may be another. */
export function saidNow(): string {
  return `@${Date.now()}`
}

/**
 * The firewall's own codes and sentence, whatever a login or sudo says beside it; anything else was
 * not our program that answered.
 *
 * @param greeting what was said where an answer was expected
 */
function failureOf(code: number, stderr: string, greeting = ''): Failure {
  const lines = stderr.trim().split('\n')
  const own = lines.find((line) => line.startsWith('firewall: '))
  if (own && code !== EXIT.done) return refusalOf({ code, text: own.slice(10) })
  const said = greeting.trim() || lines[0] || 'no message'
  const text = `the firewall side ${code === 0 ? 'did not answer' : `failed with ${code}`}: ${said}`
  return new Failure(EXIT.unexpected, printable(text))
}

/** What the firewall says about itself, if it is one of ours that speaks. */
export function refusalOf({ code, text }: Refused): Failure {
  const known = Object.values(EXIT).find((value) => value === code && value !== EXIT.done)
  if (known) return new Failure(known, printable(text))
  return new Failure(EXIT.unexpected, printable(`error ${code}: ${text}`))
}

/** Why a session could not begin. */
export function beginFailure(refused: Refused): Failure {
  if (`error ${refused.code} ${refused.text}` !== OLDER) return refusalOf(refused)
  const what = 'the firewall side is of an older version: run f2b-setup firewall'
  return new Failure(EXIT.config, what)
}

/** Another machine's words as they may stand in our log: one line, no control codes, not endless. */
export function printable(text: string): string {
  return text.slice(0, 300).replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
}
