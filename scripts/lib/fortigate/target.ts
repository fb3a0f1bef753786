import { parseAddress } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { formatLease, type Lease } from '../lease.ts'
import { type Line, RELEASED } from '../ledger.ts'
import { lock } from '../lock.ts'
import type { Fortigate } from '../settings/fortigate.ts'
import type { Call, Change, Target } from '../verbs.ts'
import { BlockList, BY_HAND } from './list.ts'
import type { Device } from './push.ts'

/** More changes than this go to the device as a snapshot of the list. */
const SNAPSHOT = 8

/**
 * The list file as a target, and the device behind it if push is configured. The file is written
 * first and stands if the push fails: the feed serves it, and the next `sync` pushes it whole.
 *
 * @param ofDevice `list` shows what the device has, not what the file says
 */
export function fortigateTarget(settings: Fortigate, ofDevice: boolean): Target {
  const list = new BlockList(settings.list_file, settings.list_mode)
  const mirror = new Mirror(settings, list)
  return {
    name: settings.list_file,

    async start(call) {
      if (call.dryRun) return call.show(`make an empty "${list.path}" unless there is one`)
      await list.prepare()
      await mirror.refresh(call)
    },

    // The leases stay: they end by themselves, and the feed drops them then.
    async stop() {},

    async check(call) {
      for (const line of list.unreadable()) {
        process.stderr.write(`fortigate: warning: ${list.path}: cannot read line ${line}\n`)
      }
      await mirror.check(call)
    },

    async flush(call) {
      if (call.dryRun) return call.show(`release all leases of ${call.owner} ${call.jail ?? ''}`)
      await list.become(call.owner, call.jail, [])
      await mirror.refresh(call)
    },

    async ban(call, lease) {
      if (call.dryRun) return call.show(`ban ${formatLease(lease)}`)
      await list.enter(lease)
      await mirror.follow(call, lease.address.text)
    },

    async unban(call, address, jail) {
      if (call.dryRun) return call.show(`unban ${address.text} ${jail} ${call.owner}`)
      await list.remove(address, jail, call.owner)
      await mirror.follow(call, address.text)
    },

    list: (call) => (ofDevice ? mirror.list(call) : Promise.resolve(ownLeases(list, call))),

    async sync(call, leases) {
      if (call.dryRun) return list.preview(call.owner, call.jail, leases)
      const counts = await list.become(call.owner, call.jail, leases)
      await mirror.refresh(call)
      return counts
    },

    async change(call, changes) {
      const lines = changes.map((change) => lineOf(change, call.owner))
      await list.change(lines)
      if (lines.length > SNAPSHOT) await mirror.refresh(call)
      else for (const { address } of lines) await mirror.follow(call, address)
      return { results: changes.map(() => undefined) }
    },

    holders: async () =>
      list.living().map((line) => ({ ...line, address: parseAddress(line.address) })),

    // Without the lines that a person wrote: they would become ours.
    async byHand(call) {
      const own = list.living().filter(({ owner, jail }) => owner === call.owner && jail === '-')
      return own.flatMap((line) => ours(line, call))
    },
  }
}

function lineOf(change: Change, owner: string): Line {
  if (change.verb === 'ban') return { ...change.lease, address: change.lease.address.text }
  return { address: change.address.text, jail: change.jail, owner, expires: RELEASED }
}

/** What the device shows of the list, where push is configured; else every verb does nothing. */
class Mirror {
  readonly #settings: Fortigate
  readonly #list: BlockList

  constructor(settings: Fortigate, list: BlockList) {
    this.#settings = settings
    this.#list = list
  }

  /** Makes the device agree with the list about one address. */
  async follow(call: Call, address: string): Promise<void> {
    await this.#withDevice(async (device) => {
      // Looked up under the lock: the last of two pushes about an address must carry the last state.
      const command = this.#list.holds(address) ? 'add' : 'remove'
      call.say(`${device.name}: ${command} ${address}`)
      await device.change(command, [address], call.signal)
    })
  }

  /** Makes the device agree with the list about everything. */
  async refresh(call: Call): Promise<void> {
    await this.#withDevice(async (device) => {
      const entries = this.#addresses()
      call.say(`${device.name}: snapshot of ${entries.length} addresses`)
      await device.replace(entries, call.signal)
    })
  }

  /** @throws Failure 75 if the device lacks or has what the list does not */
  async check(call: Call): Promise<void> {
    await this.#withDevice(async (device) => {
      const wanted = this.#addresses()
      const known = new Set(wanted)
      const found = new Set(await device.entries(call.signal))
      const missing = wanted.filter((address) => !found.has(address)).length
      const extra = [...found].filter((address) => !known.has(address)).length
      if (missing + extra === 0) return
      const text = `"${device.name}" lacks ${missing} entries and has ${extra} too many (run f2b-sync)`
      throw new Failure(EXIT.temporary, text)
    })
  }

  /** The device's entries as leases: those of ours by what the list knows, others as jail `-`. */
  async list(call: Call): Promise<Lease[]> {
    if (!this.#settings.push)
      throw new Failure(EXIT.config, 'there is no "push" in the configuration')
    const found: Lease[] = []
    await this.#withDevice(async (device) => {
      const held = new Map<string, Line[]>()
      for (const line of this.#list.living()) {
        held.set(line.address, [...(held.get(line.address) ?? []), line])
      }
      for (const entry of await device.entries(call.signal)) {
        const lines = held.get(entry) ?? [
          { address: entry, jail: '-', expires: 0, owner: call.owner },
        ]
        found.push(...lines.flatMap((line) => ours(line, call)))
      }
    })
    return found
  }

  #addresses(): string[] {
    return [...new Set(this.#list.living().map((line) => line.address))]
  }

  async #withDevice(work: (device: Device) => Promise<void>): Promise<void> {
    const { push, list_file } = this.#settings
    if (!push) return
    // Only who pushes pays for loading the HTTP client.
    const { Device } = await import('./push.ts')
    const release = await lock(`${list_file}.push.lock`)
    const device = new Device(push)
    try {
      await work(device)
    } finally {
      await device.close()
      release()
    }
  }
}

function ownLeases(list: BlockList, call: Call): Lease[] {
  return list.living().flatMap((line) => (line.owner === BY_HAND ? [] : ours(line, call)))
}

function ours(line: Line, call: Call): Lease[] {
  const mine = line.owner === call.owner || line.owner === BY_HAND
  if (!mine || (call.jail !== undefined && line.jail !== call.jail)) return []
  return [{ ...line, address: parseAddress(line.address), owner: call.owner }]
}
