import { parseAddress } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import type { Lease } from '../lease.ts'
import type { Line } from '../ledger.ts'
import { lock } from '../lock.ts'
import type { Fortigate } from '../settings/fortigate.ts'
import type { Call } from '../target.ts'
import { BY_HAND } from './line.ts'
import type { BlockList } from './list.ts'
import type { Device } from './push.ts'

/** What the device shows of the list, where push is configured; else every verb does nothing. */
export class Mirror {
  readonly #settings: Fortigate
  readonly #list: BlockList

  constructor(settings: Fortigate, list: BlockList) {
    this.#settings = settings
    this.#list = list
  }

  /** Makes the device agree with the list about one address. */
  async follow(call: Call, address: string): Promise<void> {
    await this.#withDevice(call, async (device) => {
      // Looked up under the lock: the last of two pushes about an address must carry the last state.
      const command = this.#list.holds(address) ? 'add' : 'remove'
      call.say(`${device.name}: ${command} ${address}`)
      await device.change(command, [address], call.signal)
    })
  }

  /** Makes the device agree with the list about everything. */
  async refresh(call: Call): Promise<void> {
    await this.#withDevice(call, async (device) => {
      const entries = this.#addresses()
      call.say(`${device.name}: snapshot of ${entries.length} addresses`)
      await device.replace(entries, call.signal)
    })
  }

  /** @throws Failure 75 if the device lacks or has what the list does not */
  async check(call: Call): Promise<void> {
    await this.#withDevice(call, async (device) => {
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
    await this.#withDevice(call, async (device) => {
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

  async #withDevice(call: Call, work: (device: Device) => Promise<void>): Promise<void> {
    const { push, list_file } = this.#settings
    if (!push) return
    // Only who pushes pays for loading the HTTP client.
    const { Device } = await import('./push.ts')
    const release = await lock(`${list_file}.push.lock`, 20, call.signal)
    const device = new Device(push)
    try {
      await work(device)
    } finally {
      await device.close()
      release()
    }
  }
}

/** A line as a lease of the caller, if it is one that he asks about. */
export function ours(line: Line, call: Call): Lease[] {
  const mine = line.owner === call.owner || line.owner === BY_HAND
  if (!mine || (call.jail !== undefined && line.jail !== call.jail)) return []
  return [{ ...line, address: parseAddress(line.address), owner: call.owner }]
}
