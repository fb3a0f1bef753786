import { parseAddress } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import type { Lease } from '../lease.ts'
import { type Line, RELEASED } from '../ledger.ts'
import type { Fortigate } from '../settings/fortigate.ts'
import { type Call, type Change, describeChange, type Target } from '../target.ts'
import { BY_HAND } from './line.ts'
import { BlockList } from './list.ts'
import { Mirror, ours } from './mirror.ts'

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
      await list.prepare(call.signal)
      await mirror.refresh(call)
    },

    async check(call) {
      const unreadable = list.unreadable()
      if (!unreadable) throw new Failure(EXIT.temporary, `"${list.path}" is missing`)
      for (const line of unreadable) {
        process.stderr.write(`fortigate: warning: ${list.path}: cannot read line ${line}\n`)
      }
      await mirror.check(call)
    },

    list: (call) => (ofDevice ? mirror.list(call) : Promise.resolve(ownLeases(list, call))),

    async change(call, changes) {
      const lines = changes.map((change) => lineOf(change, call.owner))
      if (call.dryRun) {
        for (const change of changes) call.show(describeChange(call, change))
        return changes.map(() => undefined)
      }
      await list.change(lines, call.signal)
      if (lines.length > SNAPSHOT) await mirror.refresh(call)
      else for (const { address } of lines) await mirror.follow(call, address)
      return changes.map(() => undefined)
    },

    async sync(call, leases) {
      if (call.dryRun) return list.preview(call.owner, call.jail, leases)
      const counts = await list.become(call.owner, call.jail, leases, call.signal)
      await mirror.refresh(call)
      return counts
    },

    async listAll() {
      const all = list.living()
      const leases = all.map((line) => ({ ...line, address: parseAddress(line.address) }))
      return { leases, others: [] }
    },

    complaint() {
      const [first, ...more] = list.unreadable() ?? []
      const others = more.length > 0 ? ` and ${more.length} more: f2b-fortigate check` : ''
      return first && `cannot read line ${first} of the list${others}`
    },
  }
}

function lineOf(change: Change, owner: string): Line {
  if (change.verb === 'ban') return { ...change.lease, address: change.lease.address.text }
  return { address: change.address.text, jail: change.jail, owner, expires: RELEASED }
}

function ownLeases(list: BlockList, call: Call): Lease[] {
  return list.living().flatMap((line) => (line.owner === BY_HAND ? [] : ours(line, call)))
}
