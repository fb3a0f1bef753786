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
import { EXIT, Failure } from '../scripts/lib/failure.ts'
import { checkOwner, quote } from '../scripts/lib/lease.ts'
import { print } from '../scripts/lib/print.ts'
import type { Caller } from './lib/books.ts'
import { openPerimeter } from './lib/open.ts'
import type { Perimeter } from './lib/perimeter.ts'
import { LONGEST_LINE, parseCommand, type Request } from './lib/request.ts'
import { answerText, Reader, turnsOf } from './lib/session.ts'
import { takeSession } from './lib/slots.ts'

/** What `firewall` means as a request: a session of operations, one a line. */
const SESSION = 'firewall'

void main({
  name: 'firewall',
  help: `Usage: perimeter   (standard input: "owner <name> <peer>", a request, and its data)

Reached from the SSH gate through sudo. To do something by hand as root, use banip, unbanip,
listips, fluships and checkfw beside this program.`,
  options: {},
  async run(words) {
    noWords(words)
    cleanEnvironment()
    const { caller, request, rest } = readHead()
    const single = request === SESSION ? undefined : parseCommand(request)
    const { perimeter, config, paths } = await openPerimeter(caller)
    if (single) return runSingle(perimeter, single)
    await takeSession(paths.run, caller.owner)
    await runSession(perimeter, new Reader(config.max_leases), rest)
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
  // Who has said when it asks is told so: what stands before that is a greeting of somebody else's.
  if (request.said) writeSync(1, `@${request.said.at}\n`)
  if (answer.code !== EXIT.done) throw new Failure(answer.code, answer.error)
  if (answer.lines.length > 0) print(`${answer.lines.join('\n')}\n`)
}

/** Answers whatever arrives, in as few transactions as may be, until the input ends. */
async function runSession(perimeter: Perimeter, reader: Reader, first: string): Promise<void> {
  // One byte, one character: nothing that arrives can be malformed before it is looked at.
  const input = process.stdin.setEncoding('latin1')[Symbol.asyncIterator]()
  for (let chunk: string | undefined = first; chunk !== undefined; ) {
    for (const requests of turnsOf(reader.feed(chunk))) {
      const answers = await perimeter.perform(requests)
      const texts = answers.map((answer, i) => answerText(requests[i] ?? { verb: 'check' }, answer))
      // What arrived from somebody who is gone is not worked off: nobody was told that it is done.
      if (!(await write(texts.join('')))) return
      if (perimeter.isSuperseded) return
    }
    const next = await input.next()
    chunk = next.done ? undefined : next.value
  }
}

/**
 * Waits until the server takes what it is told, without any lock: nothing piles up here.
 *
 * @returns false if it is gone
 */
function write(text: string): Promise<boolean> {
  return new Promise((resolve) => print(text, (error) => resolve(!error)))
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
