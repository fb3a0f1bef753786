#!/usr/bin/env node
// The one program that the SSH gate may run as root. It takes no arguments: the gate writes
// `owner <name> <peer>` and the request on its standard input, and whatever the server sends after.
//
//   printf '%s\n' 'owner web1 192.0.2.10' 'banip fail2ban-sshd 192.0.2.1 22 tcp' | sudo perimeter
//
// Exit codes: perimeter --help
import { readSync, writeSync } from 'node:fs'
import { parseAddress } from '../scripts/lib/address.ts'
import { main, noWords } from '../scripts/lib/command.ts'
import { stampOf } from '../scripts/lib/durable.ts'
import { EXIT, Failure } from '../scripts/lib/failure.ts'
import { checkOwner, quote } from '../scripts/lib/lease.ts'
import { print } from '../scripts/lib/print.ts'
import type { Caller } from './lib/books.ts'
import { type Opened, openPerimeter, pathsHere, upToDate } from './lib/open.ts'
import type { Perimeter } from './lib/perimeter.ts'
import { LONGEST_LINE, parseCommand, type Request } from './lib/request.ts'
import { answerText, Reader, turnsOf } from './lib/session.ts'
import { takePlace } from './lib/slots.ts'

/** A session in which nothing is heard for so long is one whose server is gone; it speaks every 15 s. */
const SILENCE = 120_000

/** A server that takes nothing of its answer for so long does not read it. */
const UNREAD = 10_000

/** After so long without a word a session lets go of what it has read. */
const REST = 5_000

/** So much of an answer is handed over at a time, in characters. */
const PIECE = 65_536

/** What `firewall` means as a request: a session of operations, one a line. */
const SESSION = 'firewall'

void main({
  name: 'firewall',
  help: `Usage: perimeter   (standard input: "owner <name> <peer>", a request, its data)

Reached from the SSH gate through sudo. To do something by hand as root, use
banip, unbanip, listips, fluships and checkfw beside this program.`,
  options: {},
  async run(words) {
    noWords(words)
    cleanEnvironment()
    const { caller, request, rest } = readHead()
    const single = request === SESSION ? undefined : parseCommand(request)
    const paths = pathsHere()
    await takePlace(paths.run, caller.owner)
    const opened = await openPerimeter(caller, paths)
    if (single) return runSingle(opened.perimeter, single)
    await runSession(opened, caller, rest)
    process.stdin.destroy()
  },
})

/** Not every sudo has a secure_path: what we start must not be looked up where the caller says. */
function cleanEnvironment(): void {
  if (process.env.SUDO_UID === undefined) return // root itself
  for (const name of Object.keys(process.env)) delete process.env[name]
  process.env.PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
  process.env.LC_ALL = 'C'
}

async function runSingle(perimeter: Perimeter, request: Request): Promise<void> {
  const [answer] = await perimeter.perform([request])
  if (!answer) return
  if (answer.code !== EXIT.done) throw new Failure(answer.code, answer.error)
  // Who has said when it asks is told so: what stands before that is a greeting of somebody else's.
  if (request.said) writeSync(1, `@${request.said.at}\n`)
  if (answer.lines.length > 0) await write(`${answer.lines.join('\n')}\n`)
}

/**
 * Answers whatever arrives, in as few transactions as may be, until the input ends, or an upgrade has
 * replaced this program: two versions at a time would undo each other's work, each minute.
 */
async function runSession(first: Opened, caller: Caller, begun: string): Promise<void> {
  const [, program = ''] = process.argv
  const version = stampOf(program)
  let opened = first
  const reader = new Reader(opened.config.max_leases)
  // One byte, one character: nothing that arrives can be malformed before it is looked at.
  const input = process.stdin.setEncoding('latin1')[Symbol.asyncIterator]()
  for (let chunk: string | undefined = begun; chunk !== undefined; ) {
    if (stampOf(program) !== version) return
    for (const requests of turnsOf(reader.feed(chunk))) {
      opened = await upToDate(opened, caller)
      const answers = await opened.perimeter.perform(requests)
      const texts = answers.map((answer, i) => answerText(requests[i] ?? { verb: 'check' }, answer))
      // What arrived from somebody who is gone is not worked off: nobody was told that it is done.
      if (!(await write(texts.join('')))) return
      if (opened.perimeter.isSuperseded) return
    }
    chunk = await nextOf(input, opened.perimeter)
  }
}

/** What arrives next; undefined at the end of the input, and for a server that has gone silent. */
async function nextOf(
  input: AsyncIterator<string>,
  perimeter: Perimeter,
): Promise<string | undefined> {
  const silent = new AbortController()
  const rest = setTimeout(() => perimeter.rest(), REST)
  const end = setTimeout(() => silent.abort(), SILENCE)
  try {
    const gone = new Promise<undefined>((resolve) => {
      silent.signal.addEventListener('abort', () => resolve(undefined))
    })
    const next = await Promise.race([input.next(), gone])
    return next?.done ? undefined : next?.value
  } finally {
    clearTimeout(rest)
    clearTimeout(end)
  }
}

/**
 * Waits until the server takes what it is told, without any lock: nothing piles up here. A server that
 * does not read it is not waited for.
 *
 * @returns false if it is gone
 */
async function write(text: string): Promise<boolean> {
  for (let at = 0; at < text.length; at += PIECE) {
    const piece = text.slice(at, at + PIECE)
    const unread = setTimeout(() => process.exit(EXIT.temporary), UNREAD)
    const taken = await new Promise((resolve) => print(piece, (error) => resolve(!error)))
    clearTimeout(unread)
    if (!taken) return false
  }
  return true
}

/**
 * Reads the gate's line and the request. Both are checked here again: the gate may be wrong.
 *
 * The gate has written them before we start, so there is nothing to wait for; a stream would cost a
 * ban 2 ms (profiled). What a session has sent already is the `rest`.
 */
function readHead(): { caller: Caller; request: string; rest: string } {
  const buffer = Buffer.alloc(LONGEST_LINE)
  let text = ''
  while (text.split('\n').length < 3) {
    const length = readSync(0, buffer)
    if (length === 0 || text.length > 2 * LONGEST_LINE) {
      throw new Failure(EXIT.usage, 'No request on standard input')
    }
    text += buffer.toString('latin1', 0, length)
  }
  const [head = '', request = '', ...rest] = text.split('\n')
  const [word, owner = '', peer = ''] = head.split(' ')
  if (word !== 'owner') throw new Failure(EXIT.usage, `Cannot read the gate's line ${quote(head)}`)
  const known = peer === '' ? undefined : parseAddress(peer).text
  return { caller: { owner: checkOwner(owner), peer: known }, request, rest: rest.join('\n') }
}
