import { fork } from 'node:child_process'
import { join } from 'node:path'
import { type Address, parseAddress } from '../address.ts'
import { appendToQueue } from '../delivery/append.ts'
import { queueDirectory } from '../delivery/state.ts'
import { askTruth, type Truth } from '../delivery/truth.ts'
import { replaceDurably } from '../durable.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import { becomeOwner, otherOwner } from '../identity.ts'
import { checkJail } from '../lease.ts'
import type { Loaded } from '../settled.ts'
import { KINDS } from '../siblings.ts'
import { bansOf, type Known, unbanIn } from './bans.ts'

/** Mode of the file for node_exporter, which is another user. */
const METRICS_MODE = 0o644

/** What only root may do: ask Fail2Ban and its database, and write where root alone writes. */
export interface Desk {
  truth(): Promise<Map<string, Truth>>
  bans(address: string): Promise<Known>
  unban(address: string): Promise<number>
  /** Queues an unban for a sibling. */
  queue(sibling: string, address: string, jail: string): Promise<void>
  /** Writes the file that `--metrics` named, and no other. */
  metrics(text: string): Promise<void>
}

type Question = { id: number; name: keyof Desk; words: string[] }
type Reply = { id: number; value?: unknown; failure?: { code: Failure['code']; message: string } }

/**
 * Opens the desk. Where the state directory is an account's, we become that account for good, since
 * all that targets keep is its own (scripts/lib/identity.ts), and a process of ours stays root.
 */
export function openDesk(loaded: Loaded, metrics: string | undefined): Desk {
  if (!otherOwner(loaded.config.state_dir)) return ownDesk(loaded, metrics)
  const [, script = '', ...args] = process.argv
  const child = fork(script, ['--desk', ...args], { serialization: 'advanced' })
  becomeOwner(loaded.config.state_dir)
  let asked = 0
  const ask = <T>(name: keyof Desk, ...words: string[]): Promise<T> =>
    new Promise((resolve, reject) => {
      const id = ++asked
      const gone = () => reject(new Failure(EXIT.bug, 'the part that stayed root has ended'))
      const hear = (reply: Reply): void => {
        if (reply.id !== id) return
        child.off('message', hear).off('exit', gone)
        if (reply.failure) reject(new Failure(reply.failure.code, reply.failure.message))
        else resolve(reply.value as T)
      }
      child.on('message', hear).once('exit', gone)
      child.send({ id, name, words } satisfies Question)
    })
  return {
    truth: () => ask('truth'),
    bans: (address) => ask('bans', address),
    unban: (address) => ask('unban', address),
    queue: (sibling, address, jail) => ask('queue', sibling, address, jail),
    metrics: (text) => ask('metrics', text),
  }
}

/** Serves the process that has become the account, and ends with it. */
export async function serveDesk(loaded: Loaded, metrics: string | undefined): Promise<void> {
  const desk = ownDesk(loaded, metrics)
  process.on('message', ({ id, name, words }: Question) => {
    const work = desk[name] as (...words: string[]) => Promise<unknown>
    work(...words).then(
      (value) => process.send?.({ id, value } satisfies Reply),
      (error) => {
        const failure = { code: codeOf(error), message: messageOf(error) }
        process.send?.({ id, failure } satisfies Reply)
      },
    )
  })
  await new Promise<void>((resolve) => process.once('disconnect', resolve))
}

function ownDesk(loaded: Loaded, metrics: string | undefined): Desk {
  const { fail2ban, state_dir } = loaded.config
  const read = (text: string): Address => parseAddress(text)
  return {
    truth: () => askTruth(loaded),
    bans: (address) => bansOf(fail2ban, read(address)),
    unban: (address) => unbanIn(fail2ban, read(address)),
    async queue(sibling, address, jail) {
      const kind = KINDS.find(({ name }) => name === sibling)
      if (!kind) throw new Failure(EXIT.bug, 'no such sibling')
      const words = ['unban', read(address).text, checkJail(jail)]
      appendToQueue(join(queueDirectory(state_dir), kind.name), words)
    },
    async metrics(text) {
      if (metrics !== undefined) replaceDurably(metrics, text, METRICS_MODE)
    },
  }
}
