import { hkdfSync, pbkdf2, webcrypto } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import { quote } from '../lease.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import type { Loaded } from '../settled.ts'

/** What one party (the server, or one client) needs to speak: its keys and its broker login. */
export interface Party {
  /** `server`, or the client's name: the audience of what is sent to it. */
  name: string
  /** Where it reads. */
  queue: string
  key: SealKey
  /** Seconds that a message to it is good for. */
  validWtime: number
  user: string
  pass: string
}

/** The section `net2ban`. @throws Failure 78 without it, or if its mode is another */
export function net2banOf({ config, path }: Loaded, mode?: 'server' | 'client'): Net2ban {
  const { net2ban } = config
  if (!net2ban) throw new Failure(EXIT.config, `${path}: section "net2ban" is missing`)
  const set = net2ban.global.mode
  if (mode === undefined || set === mode) return net2ban
  throw new Failure(
    EXIT.config,
    `${path}: "net2ban.global.mode" is "${set}", and this is for mode "${mode}"`,
  )
}

/** The server as every sender needs it. @throws Failure 78 */
export function serverParty(net2ban: Net2ban): Promise<Party> {
  const { server, global } = net2ban
  if (!server) throw new Failure(EXIT.config, 'Section "net2ban" needs "server" with a "key"')
  const { user, pass } = global
  return party(net2ban, 'server', server.input, { user, pass, ...defined(server) })
}

/** A client, by its name. @throws Failure 64 if there is no such client, 78 */
export function clientParty(net2ban: Net2ban, name: string): Promise<Party> {
  const client = Object.hasOwn(net2ban.clients, name) ? net2ban.clients[name] : undefined
  if (!client) throw new Failure(EXIT.usage, `Unknown client ${quote(name)}`)
  return party(net2ban, name, net2ban.global.queue_prefix + name, defined(client))
}

/** In mode client: the one that the configuration is for. @throws Failure 78 */
export function ownParty(net2ban: Net2ban): Promise<Party> {
  const [name, ...more] = Object.keys(net2ban.clients)
  if (name === undefined || more.length > 0) {
    throw new Failure(EXIT.config, 'Mode client needs exactly one entry under "net2ban.clients"')
  }
  const { user, pass } = net2ban.global
  const own = defined(net2ban.clients[name] ?? {})
  const queue = net2ban.global.queue_prefix + name
  return party(net2ban, name, queue, { ...defined({ user, pass }), ...own })
}

/** The certificate authority as text; undefined: the system's own. @throws Failure 78 */
export function authority({ global }: Net2ban): string | undefined {
  if (!global.ca_file) return global.ca
  try {
    return readFileSync(global.ca_file, 'utf8')
  } catch (error) {
    throw new Failure(EXIT.config, ioFailure(`read "${global.ca_file}"`, error).message)
  }
}

type Own = Partial<Net2ban['clients'][string]>

async function party(net2ban: Net2ban, name: string, queue: string, own: Own): Promise<Party> {
  const { global } = net2ban
  const needed = (word: 'key' | 'secret' | 'authkey'): string => {
    const value = own[word] ?? (word === 'key' ? undefined : global[word])
    if (value !== undefined) return value
    throw new Failure(EXIT.config, `"net2ban": ${quote(name)} needs "${word}"`)
  }
  const { key, password } = await deriveKey({
    key: needed('key'),
    secret: needed('secret'),
    authkey: needed('authkey'),
    rounds: own.rounds ?? global.rounds,
  })
  return {
    name,
    queue,
    key,
    validWtime: own.valid_wtime ?? global.valid_wtime,
    user: own.user ?? global.queue_prefix + name,
    pass: own.pass ?? password,
  }
}

function defined<T extends object>(given: T): T {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as T
}

/** A key that messages are sealed with; its bytes cannot be read back. */
export type SealKey = webcrypto.CryptoKey

/** What two parties share. */
export interface Shared {
  key: string
  secret: string
  authkey: string
  rounds: number
}

/**
 * PBKDF2-HMAC-SHA256(key, salt = secret LF authkey, rounds, 32 bytes), off the main thread: 2 ms for
 * 12,000 rounds (measured), so once in a process.
 *
 * @returns the key for messages, and the broker password of a party that was given none: HKDF (RFC
 *   5869) of the same bytes under another label, so that the broker, which learns it, learns nothing
 *   else
 */
export async function deriveKey(shared: Shared): Promise<{ key: SealKey; password: string }> {
  const salt = `${shared.secret}\n${shared.authkey}`
  const bytes = await promisify(pbkdf2)(shared.key, salt, shared.rounds, 32, 'sha256')
  const uses: webcrypto.KeyUsage[] = ['encrypt', 'decrypt']
  const key = await webcrypto.subtle.importKey('raw', bytes, 'AES-GCM', false, uses)
  const password = Buffer.from(hkdfSync('sha256', bytes, '', 'net2ban broker login', 20))
  return { key, password: password.toString('hex') }
}
