import { join } from 'node:path'
import { type Address, parseAddress } from '../address.ts'
import { appendToQueue } from '../delivery/append.ts'
import { queueDirectory } from '../delivery/state.ts'
import { askTruth, type Truth } from '../delivery/truth.ts'
import { replaceDurably } from '../durable.ts'
import { EXIT, Failure } from '../failure.ts'
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
  /** Queues that an address is to be free in a jail, also if somebody banned it by hand. */
  release(sibling: string, address: string, jail: string): Promise<void>
  /** Writes the file that `--metrics` named, and no other. */
  metrics(text: string): Promise<void>
}

export function openDesk(loaded: Loaded, metrics: string | undefined): Desk {
  const { fail2ban, state_dir } = loaded.config
  const read = (text: string): Address => parseAddress(text)
  return {
    truth: () => askTruth(loaded),
    bans: (address) => bansOf(fail2ban, read(address)),
    unban: (address) => unbanIn(fail2ban, read(address)),
    async release(sibling, address, jail) {
      const kind = KINDS.find(({ name }) => name === sibling)
      if (!kind) throw new Failure(EXIT.bug, 'no such sibling')
      const words = ['release', read(address).text, checkJail(jail)]
      appendToQueue(join(queueDirectory(state_dir), kind.name), words)
    },
    async metrics(text) {
      if (metrics !== undefined) replaceDurably(metrics, text, METRICS_MODE)
    },
  }
}
