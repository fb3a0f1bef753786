// A node for the tests: opens it on this machine and does what standard input says, one JSON list a
// line, such as ["run", "iptables", "actionban", {"ip": "192.0.2.7"}]. Arguments: the folders of the
// action files, of the state, and the one that a boot empties.
import { createInterface } from 'node:readline'
import { parseAddress } from '../../scripts/lib/address.ts'
import { codeOf, messageOf } from '../../scripts/lib/failure.ts'
import { type ActionName, checkCall } from '../../scripts/lib/net2ban/call.ts'
import { type Node, openNode } from '../../scripts/lib/net2ban/node.ts'

type Params = Record<string, string>
type Wish =
  | ['run', string, ActionName, Params, number?]
  | ['sync', string, string, [string, number][], Params]
  | ['expire']
  | ['leases']
  | ['bench', string, string[], Params]

async function main(): Promise<void> {
  const [actionDir = '', stateDir = '', runDir = ''] = process.argv.slice(2)
  const log: string[] = []
  const node = await openNode({ actionDir, stateDir, runDir, log: (line) => log.push(line) })
  process.stdout.write('ready\n')
  for await (const line of createInterface({ input: process.stdin })) {
    const begun = performance.now()
    const answer = await fulfil(node, JSON.parse(line) as Wish).then(
      (result) => ({ result: result ?? null }),
      (error: unknown) => ({ code: codeOf(error), error: messageOf(error) }),
    )
    process.stdout.write(
      `${JSON.stringify({ ...answer, ms: performance.now() - begun, log: log.splice(0) })}\n`,
    )
  }
  await node.close()
}

async function fulfil(node: Node, wish: Wish): Promise<unknown> {
  if (wish[0] === 'expire') return await node.expire()
  if (wish[0] === 'leases') {
    return Array.from(node.leases(), (l) => `${l.address.text} ${l.jail} ${l.expires}`)
  }
  if (wish[0] === 'run') {
    const [, file, action, params, sentAt = Date.now() / 1000] = wish
    return await node.run(checkCall(file, action, params), sentAt)
  }
  if (wish[0] === 'bench') return await bench(node, wish[1], wish[2], wish[3])
  const [, file, name, lines, params] = wish
  const leases = lines.map(([address, expires]) => {
    return { address: parseAddress(address), jail: name, expires, owner: 'x' }
  })
  return await node.sync(file, name, leases, params)
}

/** Milliseconds for banning each of these addresses, one after another. */
async function bench(node: Node, file: string, ips: string[], params: Params): Promise<number[]> {
  const times: number[] = []
  for (const ip of ips) {
    const begun = performance.now()
    await node.run(checkCall(file, 'actionban', { ...params, ip }), Date.now() / 1000)
    times.push(performance.now() - begun)
  }
  return times
}

void main()
