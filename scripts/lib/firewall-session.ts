import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { EXIT, Failure } from './failure.ts'
import type { Firewall } from './settings/firewalls.ts'
import { ownConnection, refusal } from './ssh.ts'

/** The program that the firewall's gate reaches through sudo. */
export const PERIMETER = '/usr/local/lib/fail2ban-perimeter/perimeter'

/** What a firewall answers to one operation: its lines, and what stands behind `ok`. */
export interface Answer {
  lines: string[]
  ok: string
  /** Instead of `ok`. */
  error?: { code: number; text: string }
}

/** Longer than anything that a firewall says on one line. */
const LONGEST_LINE = 4096

/** A firewall of an older version has no word to begin a session with. */
const OLDER = 'error 64 Unknown operation "session"'

/** More characters than any answer has: 100,000 leases are 6 million. */
const LONGEST_ANSWER = 32_000_000
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
    return line !== OLDER
  }
}

/** Operations that wait for their answers. */
interface Question {
  count: number
  answers: Answer[]
  resolve(answers: Answer[]): void
  reject(error: Failure): void
}

/**
 * A `firewall` session that stays open: an SSH connection of its own and one interpreter on the
 * firewall, so that an operation costs one exchange (measured: 10 ms instead of 130).
 */
export class Session {
  readonly #child: ChildProcess
  readonly #reader: AnswerReader
  readonly #questions: Question[] = []
  #said = ''
  #ended: Failure | undefined

  /** @param mark what its first operation, `session`, is answered with */
  constructor(firewall: Firewall, owner: string, mark: string) {
    this.#reader = new AnswerReader(mark)
    const [file, args, head] = programOf(firewall, owner)
    this.#child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#child.on('error', () => this.#end(new Failure(EXIT.config, `${file} is not there`)))
    this.#child.on('close', (code) => this.#end(this.#whyEnded(code)))
    this.#child.stdin?.on('error', () => {}) // 'close' follows and says why
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#said = (this.#said + text).slice(-LONGEST_LINE)
    })
    this.#child.stdout?.setEncoding('utf8').on('data', (chunk: string) => this.#hear(chunk))
    if (head !== '') this.#child.stdin?.write(head)
  }

  /** False once it has ended, for whatever reason. */
  get isOpen(): boolean {
    return this.#ended === undefined
  }

  /**
   * Sends operations, one a line, and waits for as many answers.
   *
   * @returns the answers; fewer if the session has ended meanwhile
   * @throws Failure 69, 75, 76 or 77 if it has ended before the first answer
   */
  ask(operations: string[], signal: AbortSignal): Promise<Answer[]> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#ended)
      const late = (): void => this.close(new Failure(EXIT.temporary, 'no answer in time'))
      const question: Question = {
        count: operations.length,
        answers: [],
        resolve: (answers) => {
          signal.removeEventListener('abort', late)
          resolve(answers)
        },
        reject: (error) => {
          signal.removeEventListener('abort', late)
          reject(error)
        },
      }
      signal.addEventListener('abort', late, { once: true })
      this.#questions.push(question)
      this.#child.stdin?.write(operations.map((line) => `${line}\n`).join(''))
      if (signal.aborted) late()
    })
  }

  /** Ends it; what waits for an answer is told why. */
  close(why = new Failure(EXIT.temporary, 'the session was closed')): void {
    this.#end(why)
    this.#child.stdin?.destroy()
    this.#child.kill('SIGTERM')
  }

  #hear(chunk: string): void {
    try {
      for (const answer of this.#reader.feed(chunk)) {
        const [question] = this.#questions
        if (!question) throw new Failure(EXIT.unexpected, 'an answer that nobody asked for')
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
  #whyEnded(code: number | null): Failure {
    if (code === 255 || code === null) return refusal(this.#said)
    return failureOf(code, this.#said, this.#reader.greeting)
  }
}

/**
 * The firewall's own codes and sentence, whatever a login or sudo says beside it; anything else was
 * not our program that answered.
 *
 * @param greeting what was said where an answer was expected
 */
export function failureOf(code: number, stderr: string, greeting = ''): Failure {
  const lines = stderr.trim().split('\n')
  const own = lines.find((line) => line.startsWith('firewall: '))
  if (own && code !== EXIT.done) return refusalOf(code, own.slice(10))
  const said = greeting.trim() || lines[0] || 'no message'
  const text = `the firewall side ${code === 0 ? 'did not answer' : `failed with ${code}`}: ${said}`
  return new Failure(EXIT.unexpected, printable(text))
}

/** What the firewall says about itself, if it is one of ours that speaks. */
export function refusalOf(code: number, text: string): Failure {
  const known = Object.values(EXIT).find((value) => value === code && value !== EXIT.done)
  if (known) return new Failure(known, printable(text))
  return new Failure(EXIT.unexpected, printable(`error ${code}: ${text}`))
}

/** Why a session could not begin. */
export function beginFailure({ code, text }: { code: number; text: string }): Failure {
  const older = `error ${code} ${text}` === OLDER
  if (!older) return refusalOf(code, text)
  return new Failure(
    EXIT.config,
    'the firewall side is of an older version: run f2b-setup firewall',
  )
}

/** Another machine's words as they may stand in our log: one line, no control codes, not endless. */
export function printable(text: string): string {
  return text.slice(0, 300).replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
}

/** How this firewall's program is reached, and what it must be told first. */
function programOf(firewall: Firewall, owner: string): [string, string[], string] {
  if (firewall.host !== 'local') return ['ssh', [...ownConnection(firewall), 'firewall'], '']
  if (!existsSync(PERIMETER)) {
    throw new Failure(EXIT.config, 'no firewall side on this machine: run f2b-setup firewall')
  }
  const head = `owner ${owner}\nfirewall\n`
  return process.getuid?.() === 0 ? [PERIMETER, [], head] : ['sudo', ['-n', PERIMETER], head]
}
