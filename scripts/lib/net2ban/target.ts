import { type Lease, NO_JAIL } from '../lease.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import { type Call, type Change, namingOf, type Target } from '../target.ts'
import { checkCall, type Call as Order } from './call.ts'
import { checkWay, type Sender, withSender } from './sender.ts'
import { Sent } from './sent.ts'
import { split } from './snapshot.ts'

/** Messages on their way at a time: enough to keep the broker busy. */
export const WINDOW = 256

/** All nodes as one target, through the action file `default_action`. */
export function nodesTarget(net2ban: Net2ban, stateDir: string, client?: string): Target {
  const file = net2ban.default_action
  const sent = new Sent(stateDir, file)
  const only = client === undefined ? {} : { client }

  const send = async (call: Call, orders: Order[]): Promise<void> => {
    if (call.dryRun) {
      for (const { action, params } of orders)
        call.show(`exec ${file} ${action} ${wordsOf(params)}`)
      return
    }
    await withSender(net2ban, call.owner, call.signal, (sender) =>
      inWindows(orders, (order) =>
        sender.send({ cmd: 'exec', ...order, params: { ...order.params }, ...only }),
      ),
    )
    if (client === undefined) await sent.record(call.owner, orders)
  }

  return {
    name: 'nodes',

    async start(call) {
      const params = { name: wireName(call.jail), ...paramsOf(file, call) }
      await send(call, [checkCall(file, 'actionstart', params)])
    },

    check: (call) => checkWay(net2ban, call.signal),
    list: (call) => sent.leases(call.owner, call.jail),

    async change(call, changes) {
      await send(
        call,
        changes.map((change) => orderOf(call, change)),
      )
      return changes.map(() => undefined)
    },

    async sync(call, leases) {
      const difference = await sent.difference(call.owner, call.jail, leases)
      const { changes, added, extended, removed, unchanged } = difference
      const counts = { added, extended, removed, unchanged }
      if (call.dryRun) return counts
      // A jail without a lease any more must be told, too; and one that was asked for by name.
      const gone = changes.map((line) => line.jail)
      const named = call.jail === undefined ? [] : [call.jail]
      const jails = new Set([...leases.map((lease) => lease.jail), ...gone, ...named])
      await withSender(net2ban, call.owner, call.signal, async (sender) => {
        for (const jail of jails) {
          const own = leases.filter((lease) => lease.jail === jail)
          await tell(sender, { ...call, jail }, own)
        }
      })
      await sent.record(call.owner, [], changes)
      return counts
    },

    // A node that lacks something asks for it itself, so what was sent need not be sent again.
    async inSync(call, leases) {
      return (await sent.difference(call.owner, call.jail, leases)).changes.length === 0
    },
  }

  function orderOf(call: Call, change: Change): Order {
    if (change.verb === 'ban') {
      const params = {
        ...banOf(change.lease),
        ...paramsOf(file, namingOf(call, change.lease.jail)),
      }
      return checkCall(file, 'actionban', params)
    }
    const name = wireName(change.jail)
    return checkCall(file, 'actionunban', { name, ip: change.address.text })
  }

  async function tell(sender: Sender, call: Call, leases: readonly Lease[]) {
    const name = wireName(call.jail)
    const params = paramsOf(file, namingOf(call, call.jail ?? NO_JAIL))
    const orders = split({ file, name, params, leases })
    await inWindows(orders, (order) => sender.send({ ...order, ...only }))
  }
}

/** Does something with all of many, in order, so many at a time. */
export async function inWindows<T>(all: readonly T[], work: (one: T) => Promise<void>) {
  for (let at = 0; at < all.length; at += WINDOW) {
    await Promise.all(all.slice(at, at + WINDOW).map(work))
  }
}

/** A ban as actions take it: when it began and how long it is, counted from now. */
function banOf({ address, jail, expires }: Lease) {
  const at = Math.floor(Date.now() / 1000)
  const end = expires === 0 ? '-1' : String(Math.max(expires - at, 1))
  const time = expires === 0 ? String(at) : String(expires - Number(end))
  return { name: wireName(jail), ip: address.text, time, bantime: end }
}

/** Action files have a name for the jail that has none. */
function wireName(jail: string | undefined): string {
  return jail === undefined || jail === NO_JAIL ? 'default' : jail
}

/**
 * The stock actions match no list of ports for all protocols, and take their other type for it; those
 * with nftables know no word for all protocols before Fail2Ban 1.1.1.
 */
function paramsOf(
  file: string,
  { ports, protocol }: { ports?: string | undefined; protocol?: string | undefined },
) {
  const protocols = protocol === 'all' && /^nftables/.test(file) ? 'tcp,udp,sctp,icmp' : protocol
  return {
    ...(ports && { port: ports }),
    ...(protocols && { protocol: protocols }),
    ...(ports === 'all' && { type: 'allports' }),
  }
}

function wordsOf(params: Readonly<Record<string, string>>): string {
  return Object.entries(params)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ')
}
