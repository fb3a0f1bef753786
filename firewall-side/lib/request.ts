import { type Address, parseAddress } from '../../scripts/lib/address.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { jailOf, parseExpires, quote } from '../../scripts/lib/lease.ts'
import { type Naming, readNaming } from '../../scripts/lib/ports.ts'
import type { Entry } from './backend.ts'

/** When a server said something, by its own clock. */
export interface Said {
  /** Milliseconds, as the server wrote them. */
  at: number
  /** Grows with each single command of a server. */
  order: number
  /** By how many seconds our clock was ahead of its own when it arrived. */
  ahead: number
}

/** Something that an owner asks of the firewall. */
export type Request = Operation & { said?: Said }

type Operation =
  | { verb: 'ban'; jail: string; address: Address; naming: Naming; expires: number }
  | { verb: 'unban'; jail: string; address: Address }
  | { verb: 'list'; jail: string | undefined }
  /** Whether and until when an address is blocked, by whomever. */
  | { verb: 'blocked'; address: Address }
  /** Without a jail: all, `but` those. */
  | { verb: 'flush'; jail: string | undefined; but?: ReadonlySet<string> }
  | { verb: 'check' | 'generation' | 'digest' }
  /** Begins a session; without a number it takes the place of no other. */
  | { verb: 'session'; number: number | undefined }
  | { verb: 'sync'; jail: string; naming: Naming; leases: Entry[] }

/** Says of ports or protocol: as the firewall has them, else everything. */
export const KEEP = '-'

/** The longest line there can be, in bytes. */
export const LONGEST_LINE = 512

const WORDS: Record<string, string> = {
  banip: 'ban',
  unbanip: 'unban',
  listips: 'list',
  fluships: 'flush',
  checkfw: 'check',
  blocked: 'blocked',
}

/** What a line of a session may begin with, beside `sync`. */
const LINE_WORDS = 'ban unban flush flushrest list blocked generation digest session'.split(' ')

/** `@1790000000123`: when the server says it, by its own clock, in milliseconds. */
const SAID = /^@(\d{1,15})$/

/** Reads the words of a single command, such as `banip fail2ban-sshd 192.0.2.1 22 tcp`. */
export function parseCommand(line: string | string[]): Request {
  const { words, said } = takeSaid(typeof line === 'string' ? split(line) : line)
  const [word = '', ...rest] = words
  const verb = Object.hasOwn(WORDS, word) ? WORDS[word] : undefined
  if (!verb) throw new Failure(EXIT.usage, `Unknown command ${quote(word)}`)
  return withSaid(parseWords(verb, rest), said)
}

/** Reads one line of a `firewall` session; a `sync` is announced here and filled later. */
export function parseLine(line: string): Request & { count?: number } {
  const { words, said } = takeSaid(split(line))
  const [word = '', ...rest] = words
  if (word === 'sync') return withSaid(parseSync(rest), said)
  if (!LINE_WORDS.includes(word)) {
    throw new Failure(EXIT.usage, `Unknown operation ${quote(word)}`)
  }
  return withSaid(parseWords(word, rest), said)
}

/** True for a line that cannot have been meant as a `sync`, whatever is wrong with it. */
export function isNoSync(line: string): boolean {
  return LINE_WORDS.includes(line.trimStart().split(' ', 1)[0] ?? '')
}

/**
 * Takes `@<milliseconds>` from the end of a line, or `@<milliseconds> over <number>`, by which a
 * server whose clock was put back says that it knows of a newer command, and means this one.
 */
function takeSaid(words: string[]): { words: string[]; said: Said | undefined } {
  const over = words.at(-2) === 'over' && /^\d{1,15}$/.test(words.at(-1) ?? '')
  const rest = over ? words.slice(0, -2) : words
  const at = Number(SAID.exec(rest.at(-1) ?? '')?.[1])
  if (Number.isNaN(at)) return { words, said: undefined }
  const order = over ? Math.max(at, Number(words.at(-1)) + 1) : at
  const ahead = Math.round((Date.now() - at) / 1000)
  return { words: rest.slice(0, -1), said: { at, order, ahead } }
}

function withSaid<T extends Request>(request: T, said: Said | undefined): T {
  return said ? { ...request, said } : request
}

/** Reads an `<address> <expires>` line of a sync of a jail. */
export function parseSyncLine(line: string, jail: string): Entry {
  const blank = line.indexOf(' ')
  // One blank and two readable words, as our client writes it: 100,000 times in a sync.
  if (blank > 0 && line.length < LONGEST_LINE && line.indexOf(' ', blank + 1) < 0) {
    const expires = parseExpires(line.slice(blank + 1))
    return { address: parseAddress(line.slice(0, blank)), jail, expires }
  }
  const [address = '', expires = '', ...rest] = split(line)
  if (rest.length > 0) throw new Failure(EXIT.input, 'Cannot read sync line: more than two words')
  return { address: parseAddress(address), jail, expires: parseExpires(expires) }
}

function parseWords(verb: string, words: string[]): Request {
  const [chain, address, ports, protocol, expires] = words
  const count = {
    ban: [4, 5],
    unban: [2, 2],
    list: [0, 1],
    flush: [0, 1],
    flushrest: [0, 0],
    check: [0, 0],
    generation: [0, 0],
    digest: [0, 0],
    blocked: [1, 1],
    session: [0, 1],
  }[verb] ?? [0, 0]
  if (words.length < (count[0] ?? 0) || words.length > (count[1] ?? 0)) {
    throw new Failure(EXIT.usage, `Wrong number of words for ${verb}`)
  }
  if (verb === 'check' || verb === 'generation' || verb === 'digest') return { verb }
  if (verb === 'session') {
    return { verb, number: chain === undefined ? chain : parseCount(chain, 15) }
  }
  if (verb === 'blocked') return { verb, address: parseAddress(chain ?? '') }
  if (verb === 'flushrest') return { verb: 'flush', jail: undefined, but: new Set() }
  if (verb === 'list' || verb === 'flush') return { verb, jail: chain && jailOf(chain) }
  const jail = jailOf(chain ?? '')
  const parsed = parseAddress(address ?? '')
  if (verb === 'unban') return { verb, jail, address: parsed }
  const naming = parseNaming(ports ?? '', protocol ?? '')
  return { verb: 'ban', jail, address: parsed, naming, expires: parseExpires(expires ?? '0') }
}

function parseSync(words: string[]): Request & { count: number } {
  const [chain = '', ports = '', protocol = '', count = ''] = words
  if (words.length !== 4) throw new Failure(EXIT.usage, 'Wrong number of words for sync')
  const naming = parseNaming(ports, protocol)
  return { verb: 'sync', jail: jailOf(chain), naming, leases: [], count: parseCount(count, 9) }
}

function parseCount(text: string, digits: number): number {
  if (/^\d+$/.test(text) && text.length <= digits) return Number(text)
  throw new Failure(EXIT.input, `Cannot read count ${quote(text)}`)
}

function parseNaming(ports: string, protocol: string): Naming {
  const read = readNaming(ports === KEEP ? '' : ports, protocol === KEEP ? '' : protocol)
  return {
    ports: ports === KEEP ? KEEP : read.ports,
    protocol: protocol === KEEP ? KEEP : read.protocol,
  }
}

function split(line: string): string[] {
  if (line.length > LONGEST_LINE) {
    throw new Failure(EXIT.input, `Cannot read a line of more than ${LONGEST_LINE} bytes`)
  }
  if (/[^\x21-\x7e ]/.test(line))
    throw new Failure(EXIT.input, 'Cannot read an unprintable character')
  return line.split(' ').filter((word) => word !== '')
}
