import { createInterface } from 'node:readline'
import { parseAddress } from '../address.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import type { Call } from '../target.ts'
import { checkBan } from '../verbs.ts'
import { type Call as Action, checkCall } from './call.ts'
import { MAX_CALLS } from './message.ts'
import { withSender } from './sender.ts'
import { Sent } from './sent.ts'
import { WINDOW } from './target.ts'

/** Milliseconds between two notes of what has been sent, while there is much. */
const NOTE = 500

/** Characters of calls in one message: sealed, they stay well below what it may hold. */
const BATCH = 16_000

/**
 * `exec FILE ACTION k=v...`: one call, checked here and again by server and node.
 *
 * @throws Failure 65 if a word is not what it should be
 */
export function readCall(words: readonly string[], call: Call): Action {
  const [file = '', action = '', ...pairs] = words
  const params: Record<string, string> = Object.create(null)
  for (const pair of pairs) {
    const at = pair.indexOf('=')
    const name = pair.slice(0, Math.max(at, 0))
    if (at <= 0) throw new Failure(EXIT.input, `Cannot read ${quote(pair)}: not NAME=VALUE`)
    if (name in params) throw new Failure(EXIT.input, `Cannot take "${name}" twice`)
    params[name] = pair.slice(at + 1)
  }
  const checked = checkCall(file, action, { ...params })
  const bans = checked.action === 'actionban' || checked.action === 'actionprolong'
  if (bans) checkBan(parseAddress(checked.params.ip ?? ''), call.config)
  return checked
}

/** Sends one call, and remembers it. */
export async function execOne(net2ban: Net2ban, call: Call, words: string[], client?: string) {
  const action = readCall(words, call)
  if (call.dryRun) return call.show(`exec ${words.join(' ')}`)
  await withSender(net2ban, call.owner, call.signal, (sender) =>
    sender.send(orderOf([action], client)),
  )
  await remember(call, [action], client)
}

/**
 * `exec -`: a call a line on standard input, over one connection, sent while the next ones are read.
 * A bad line is not sent and does not keep the others from being sent.
 *
 * @throws Failure 65 about the first bad line, once all others are out
 */
export async function execAll(net2ban: Net2ban, call: Call, client?: string): Promise<void> {
  const bad: string[] = []
  await withSender(net2ban, call.owner, call.signal, async (sender) => {
    const way = new Set<Promise<void>>()
    let done: Action[] = []
    let noted = Date.now()
    const note = async () => {
      noted = Date.now()
      await remember(call, done.splice(0), client)
    }
    let batch: Action[] = []
    let bytes = 0
    // What is there at the same moment travels together; a lone call does not wait for another.
    const flush = () => {
      const actions = batch
      batch = []
      bytes = 0
      if (actions.length === 0) return
      const sending = sender.send(orderOf(actions, client)).then(() => {
        done.push(...actions)
        way.delete(sending)
      })
      way.add(sending)
      sending.catch(() => {})
    }
    let number = 0
    for await (const line of createInterface({ input: process.stdin })) {
      number++
      const words = line.trim().split(/\s+/)
      if (words[0] === '' || line.startsWith('#')) continue
      let action: Action
      try {
        action = readCall(words, call)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        bad.push(`line ${number}: ${messageOf(error)}`)
        continue
      }
      batch.push(action)
      bytes += line.length
      if (batch.length > MAX_CALLS || bytes > BATCH) flush()
      else if (batch.length === 1) setImmediate(flush)
      if (way.size >= WINDOW) await Promise.race(way)
      if (Date.now() - noted > NOTE) await note()
    }
    flush()
    await Promise.all(way)
    await note()
    done = []
  }).finally(() => process.stdin.destroy()) // A caller that still writes there must not keep us.
  const more = bad.length > 1 ? ` (and ${bad.length - 1} more)` : ''
  if (bad.length > 0) throw new Failure(EXIT.input, `Cannot exec: ${bad[0]}${more}`)
}

function orderOf(actions: readonly Action[], client: string | undefined) {
  const plain = actions.map(({ file, action, params }) => ({ file, action, params: { ...params } }))
  const [first = { file: '', action: '', params: {} }, ...more] = plain
  const only = client === undefined ? {} : { client }
  return { cmd: 'exec' as const, ...first, ...(more.length > 0 && { more }), ...only }
}

/** What went to one client only is not what all shall have. */
async function remember(call: Call, actions: Action[], client: string | undefined): Promise<void> {
  if (client !== undefined) return
  const files = new Set(actions.map(({ file }) => file))
  for (const file of files) {
    const own = actions.filter((action) => action.file === file)
    await new Sent(call.config.state_dir, file).record(call.owner, own)
  }
}
