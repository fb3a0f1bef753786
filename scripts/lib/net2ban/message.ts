import { randomUUID } from 'node:crypto'
import type { ConsumeMessage } from 'amqplib'
import { CompactEncrypt, compactDecrypt } from 'jose'
import * as v from 'valibot'
import { EXIT, Failure } from '../failure.ts'
import type { SealKey } from './party.ts'

/** A message on the wire is no longer than this, sealed. */
export const MAX_BYTES = 65_536

const text = (max: number) => v.pipe(v.string(), v.maxLength(max))
const file = v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/))
const name = v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/))
const moment = v.pipe(v.number(), v.finite(), v.minValue(0), v.maxValue(1e11))
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const params = v.record(v.pipe(v.string(), v.regex(/^[a-z][a-z0-9_]{0,31}$/i)), text(1024))

const envelope = {
  jti: v.pipe(v.string(), v.regex(/^[0-9a-f-]{36}$/)),
  iss: name,
  aud: name,
  /** Epoch seconds, with fractions. */
  iat: moment,
  exp: moment,
  /** Given by the server, and the run of the server that counts. */
  seq: v.optional(count),
  run: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/))),
  /** When the server sent it on, by the server's clock. */
  sent: v.optional(moment),
  /** Only this client is meant; else all are. */
  client: v.optional(name),
}

const call = { file, action: v.pipe(v.string(), v.regex(/^action[a-z]{1,16}$/)), params }

/** So many calls may travel together. */
export const MAX_CALLS = 64

const claims = v.variant('cmd', [
  v.strictObject({
    ...envelope,
    cmd: v.literal('exec'),
    ...call,
    // Of a flood, what comes after it, in order.
    more: v.optional(v.pipe(v.array(v.strictObject(call)), v.maxLength(MAX_CALLS))),
  }),
  v.strictObject({ ...envelope, cmd: v.literal('update'), file, content: text(MAX_BYTES) }),
  // The leases that a jail shall have, from now on and exactly; `part` of `parts`, from 1.
  v.strictObject({
    ...envelope,
    cmd: v.literal('sync'),
    file,
    name: text(64),
    params,
    snapshot: v.pipe(v.string(), v.regex(/^[0-9a-f-]{36}$/)),
    part: count,
    parts: v.pipe(count, v.maxValue(100_000)),
    content: text(MAX_BYTES),
  }),
  // From the server to a node, which rejects it to say yes: has it lost messages, or is its clock off?
  // `since`: all that is in force was told, from the message with this number on.
  v.strictObject({
    ...envelope,
    cmd: v.literal('mark'),
    asks: v.picklist(['lost', 'clock']),
    since: v.optional(count),
  }),
])

/** What a message says. `jti` and `iat` are made by the first sender and kept by the server. */
export type Claims = v.InferOutput<typeof claims>
type Envelope = 'jti' | 'iss' | 'aud' | 'iat' | 'exp' | 'seq' | 'run' | 'sent'
type Without<T, K extends string> = T extends unknown ? Omit<T, K> : never
/** What a sender decides. */
export type Order = Without<Claims, Envelope>

export type Reason = 'stale' | 'future' | 'replayed' | 'forged' | 'malformed'

/** Why a message is not obeyed; as much of its claims as is known to be true. */
export class Dropped extends Error {
  readonly reason: Reason
  readonly claims: Claims | undefined

  /** What is known beyond the reason. */
  readonly why: string

  constructor(reason: Reason, claims?: Claims, why = '') {
    super(reason)
    this.reason = reason
    this.claims = claims
    this.why = why
  }
}

/** The calls of a message, in order. */
export function callsOf({ file, action, params, more = [] }: Extract<Claims, { cmd: 'exec' }>) {
  return [{ file, action, params }, ...more]
}

/** A new message. @param iss who sends @param validWtime seconds that it is good for */
export function compose(order: Order, iss: string, validWtime: number): Claims {
  const iat = Date.now() / 1000
  return { ...order, jti: randomUUID(), iss, aud: 'server', iat, exp: iat + validWtime } as Claims
}

/** Seals claims as a compact JWE. @throws Failure 65 if that is longer than a message may be */
export async function seal(claims: Claims, key: SealKey): Promise<Buffer> {
  const plain = Buffer.from(JSON.stringify(claims))
  const token = await new CompactEncrypt(plain)
    .setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
    .encrypt(key)
  if (token.length <= MAX_BYTES) return Buffer.from(token)
  throw new Failure(EXIT.input, `Cannot send more than ${MAX_BYTES} bytes in one message`)
}

/**
 * Opens what `seal` made and checks when it was made; whether it was seen before is not known here.
 *
 * @param aud who reads
 * @param at epoch seconds
 * @throws Dropped
 */
export async function open(
  token: Buffer,
  key: SealKey,
  { aud, validWtime, at }: { aud: string; validWtime: number; at: number },
): Promise<Claims> {
  if (token.length > MAX_BYTES) throw new Dropped('malformed')
  const found = parse(await decrypt(token, key))
  if (found.aud !== aud) throw new Dropped('forged', found)
  if (found.iat - at > validWtime) throw new Dropped('future', found)
  if (at - found.iat > validWtime || at > found.exp) throw new Dropped('stale', found)
  return found
}

async function decrypt(token: Buffer, key: SealKey): Promise<Uint8Array> {
  const options = {
    keyManagementAlgorithms: ['dir'],
    contentEncryptionAlgorithms: ['A256GCM'],
  }
  try {
    const { plaintext, protectedHeader } = await compactDecrypt(token, key, options)
    if (Object.keys(protectedHeader).length === 2) return plaintext
  } catch (error) {
    const { code } = error as { code?: string }
    const known = code === 'ERR_JWE_DECRYPTION_FAILED' || code === 'ERR_JOSE_ALG_NOT_ALLOWED'
    throw new Dropped(known ? 'forged' : 'malformed')
  }
  throw new Dropped('malformed')
}

function parse(plain: Uint8Array): Claims {
  try {
    const result = v.safeParse(claims, JSON.parse(Buffer.from(plain).toString('utf8')))
    if (result.success) return result.output
  } catch {
    // Not JSON.
  }
  throw new Dropped('malformed')
}

/**
 * The one line about a message that is not obeyed: `dropped message <jti> from <sender>: <reason>`.
 * Of a message that cannot be opened, the id is what it claims and the sender is the broker's login.
 */
export function dropLine(message: ConsumeMessage, error: Dropped): string {
  const { messageId, userId } = message.properties
  const jti = error.claims?.jti ?? plain(messageId)
  const sender = error.claims?.iss ?? plain(userId)
  const why = error.why && ` (${plain(error.why, 200)})`
  return `dropped message ${jti} from ${sender}: ${error.reason}${why}`
}

function plain(text: unknown, max = 64): string {
  const clean = String(text ?? '').replace(/[^\x20-\x7e]+/g, ' ')
  return clean.length > max ? `${clean.slice(0, max - 3)}...` : clean || '-'
}
