import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import manifest from '../../../package.json' with { type: 'json' }
import { deliveryAccount } from '../delivery-account.ts'
import { EXIT, type ExitCode, Failure } from '../failure.ts'
import { deliveryDirectory } from './state.ts'

// How root's tools ask a running f2b-deliver: HTTP on a socket, a POST per question. An account may
// answer: what comes back is taken for something that an attacker may have written.

/** Bytes: more than the leases of any server are, and than what is said about them. */
export const LONGEST = { question: 256 * 1024 * 1024, answer: 64 * 1024 * 1024 }

/** Seconds for an answer that needs no target. */
const PATIENCE = 10

/** Tells versions that would not understand each other. */
export const VERSION = { header: 'f2b-version', value: manifest.version }

/** Made by systemd, in a folder of root's. */
const SERVICE_SOCKET = '/run/fail2ban-perimeter/deliver.sock'

/** Where a deliverer is asked: an account's is a service, root's own stands beside its books. */
export function socketPath(stateDir: string): string {
  return deliveryAccount(stateDir) ? SERVICE_SOCKET : join(deliveryDirectory(stateDir), 'socket')
}

/** No f2b-deliver listens. */
export class NotRunning extends Failure {
  constructor() {
    const start = 'start it (systemctl start fail2ban-perimeter-deliver.socket)'
    super(EXIT.temporary, `Cannot ask f2b-deliver: it does not run: ${start}`)
  }
}

export interface Question {
  body?: unknown
  /** Seconds for the answer. */
  seconds?: number
  /** What the answer is like; see `isLike`. */
  like?: unknown
}

/** @throws Failure 75 if there is no answer of use in time, or what the deliverer failed with */
export async function ask<T>(
  stateDir: string,
  path: string,
  { body, seconds = PATIENCE, like }: Question = {},
): Promise<T> {
  const signal = AbortSignal.timeout(seconds * 1000)
  try {
    const { answer, text } = await new Promise<{ answer: IncomingMessage; text: string }>(
      (resolve, reject) => {
        const where = { socketPath: socketPath(stateDir), path }
        const options = { ...where, method: 'POST', agent: false, signal }
        const asked = request(options, (answer) => {
          bodyOf(answer, LONGEST.answer).then((text) => resolve({ answer, text }), reject)
        })
        asked.on('error', reject)
        asked.end(body === undefined ? '' : JSON.stringify(body))
      },
    )
    const theirs = plain(String(answer.headers[VERSION.header] ?? 'another'))
    if (theirs !== VERSION.value) throw failed(`is of version ${theirs}, this is ${VERSION.value}`)
    const value = JSON.parse(text, (_, one) => (typeof one === 'string' ? plain(one) : one))
    if (answer.statusCode !== 200) {
      const isCode = Object.values(EXIT).includes(value?.code)
      const code = isCode ? (value.code as ExitCode) : EXIT.unexpected
      throw new Failure(code, String(value?.message))
    }
    if (like !== undefined && !isLike(value, like)) throw failed('says something unexpected')
    return value
  } catch (error) {
    if (error instanceof Failure) throw error
    const { code = '' } = error as NodeJS.ErrnoException
    if (['ENOENT', 'ECONNREFUSED'].includes(code)) throw new NotRunning()
    throw failed(signal.aborted ? `does not answer within ${seconds} s` : 'broke off its answer')
  }
}

/** Undefined if no f2b-deliver listens. */
export async function ifRunning<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof NotRunning) return undefined
    throw error
  }
}

/** @throws Failure 76 if there is more of it */
export async function bodyOf(message: IncomingMessage, longest: number): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of message as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > longest) throw new Failure(EXIT.unexpected, 'f2b-deliver says too much')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** Stands in an example for what may be missing. */
export class Optional {
  readonly like: unknown

  constructor(like: unknown) {
    this.like = like
  }
}

/**
 * True if a value has the types of the example: of its keys, and of the first item of its lists. A
 * number is a whole one; null in the example stands for anything.
 */
export function isLike(value: unknown, example: unknown): boolean {
  if (example === null) return true
  if (example instanceof Optional) {
    return value === undefined || value === null || isLike(value, example.like)
  }
  if (typeof example === 'number') return Number.isSafeInteger(value)
  if (Array.isArray(example)) {
    if (!Array.isArray(value)) return false
    return example.length === 0 || value.every((one) => isLike(one, example[0]))
  }
  if (typeof example !== 'object') return typeof value === typeof example
  if (typeof value !== 'object' || value === null) return false
  const own = value as Record<string, unknown>
  return Object.entries(example).every(([key, one]) => isLike(own[key], one))
}

function failed(how: string): Failure {
  const what = 'restart it (systemctl restart fail2ban-perimeter-deliver)'
  return new Failure(EXIT.temporary, `f2b-deliver ${how}: ${what}`)
}

/** Without what a terminal obeys. */
function plain(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
}
