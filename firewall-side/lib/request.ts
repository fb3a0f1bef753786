import { type Address, parseAddress } from '../../scripts/lib/address.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { parseExpires, quote } from '../../scripts/lib/lease.ts'
import { type Naming, readNaming } from '../../scripts/lib/ports.ts'
import type { Entry } from './backend.ts'
import { jailOf } from './names.ts'

/** Something that an owner asks of the firewall. */
export type Request =
  | { verb: 'ban'; jail: string; address: Address; naming: Naming; expires: number }
  | { verb: 'unban'; jail: string; address: Address }
  | { verb: 'list'; jail: string | undefined }
  /** Whether and until when an address is blocked, by whomever. */
  | { verb: 'blocked'; address: Address }
  /** Without a jail: all, `but` those. */
  | { verb: 'flush'; jail: string | undefined; but?: ReadonlySet<string> }
  | { verb: 'check' | 'generation' | 'digest' }
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
const LINE_WORDS = 'ban unban flush flushrest list blocked generation digest'.split(' ')

/** Reads the words of a single command, such as `banip fail2ban-sshd 192.0.2.1 22 tcp`. */
export function parseCommand(line: string | string[]): Request {
  const [word = '', ...rest] = typeof line === 'string' ? split(line) : line
  const verb = Object.hasOwn(WORDS, word) ? WORDS[word] : undefined
  if (!verb) throw new Failure(EXIT.usage, `Unknown command ${quote(word)}`)
  return parseWords(verb, rest)
}

/** Reads one line of a `firewall` session; a `sync` is announced here and filled later. */
export function parseLine(line: string): Request & { count?: number } {
  const [word = '', ...rest] = split(line)
  if (word === 'sync') return parseSync(rest)
  if (!LINE_WORDS.includes(word)) {
    throw new Failure(EXIT.usage, `Unknown operation ${quote(word)}`)
  }
  return parseWords(word, rest)
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
  }[verb] ?? [0, 0]
  if (words.length < (count[0] ?? 0) || words.length > (count[1] ?? 0)) {
    throw new Failure(EXIT.usage, `Wrong number of words for ${verb}`)
  }
  if (verb === 'check' || verb === 'generation' || verb === 'digest') return { verb }
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
  if (!/^\d{1,9}$/.test(count)) throw new Failure(EXIT.input, `Cannot read count ${quote(count)}`)
  const naming = parseNaming(ports, protocol)
  return { verb: 'sync', jail: jailOf(chain), naming, leases: [], count: Number(count) }
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
