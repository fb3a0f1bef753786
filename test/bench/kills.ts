import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import {
  type BackendName,
  leasesOf,
  openFirewall,
  PERIMETER,
  type TestFirewall,
} from '../lib/firewall.ts'

/** So many processes are killed between two comparisons. */
const ROUND = 20

/**
 * Kills the firewall's program at random moments of a session, and compares after each
 * round, with one command in between: what the kernel blocks is what the ledger says, and what was
 * acknowledged is in both.
 *
 * @throws AssertionError with what differs
 */
export async function killFirewall(backend: BackendName, kills: number): Promise<string> {
  const fw = await openFirewall()
  try {
    await fw.reset(backend)
    const acknowledged = new Map<string, boolean>()
    // When a process that is left alone has answered once, and all; the first ones are.
    let [first, longest] = [0, 0]
    let killed = 0
    let answered = 0
    for (let n = 0; killed < kills; n++) {
      const lines = requestsOf(n)
      const isLeftAlone = n % ROUND < 2
      const limit = isLeftAlone ? 60 : first / 2 + Math.random() * (longest - first / 2)
      const times = await converse(fw, lines, limit)
      if (isLeftAlone) [first, longest] = [times[0] ?? 0, times.at(-1) ?? 0]
      if (times.length < lines.length) killed++
      answered += times.length
      for (const [i, line] of lines.entries()) {
        const [verb = '', chain = '', address = ''] = line.split(' ')
        // What was not answered may have happened or not.
        if (i < times.length) acknowledged.set(`${chain} ${address}`, verb === 'ban')
        else acknowledged.delete(`${chain} ${address}`)
      }
      if (n % ROUND === ROUND - 1) await compare(fw, acknowledged)
    }
    await compare(fw, acknowledged)
    return `${backend}: ${killed} killed before they had answered all, ${answered} answers: equal`
  } finally {
    await fw.box.close()
  }
}

/** One request after the other, each when the one before is answered. @returns when, in seconds */
async function converse(fw: TestFirewall, lines: string[], limit: number): Promise<number[]> {
  const command = ['-s', 'KILL', limit.toFixed(3), process.execPath, PERIMETER]
  const child = fw.box.start('timeout', command)
  const gone = once(child, 'close')
  const began = performance.now()
  const times: number[] = []
  child.stdin.on('error', () => {}) // it has been killed
  child.stdin.write('owner web1 192.0.2.10\nfirewall\n')
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  for (const line of lines) {
    child.stdin.write(`${line}\n`)
    const { value: answer, done } = await answers.next()
    if (done) break
    assert.equal(answer, 'ok', line)
    times.push((performance.now() - began) / 1000)
  }
  child.stdin.end()
  await gone
  return times
}

/** Bans, and unbans of what was banned before, in three jails, some of them ranges. */
function requestsOf(n: number): string[] {
  const chain = `fail2ban-j${n % 3}`
  const address = (i: number) => `10.${i >> 8}.${i & 255}.${i % 5 === 0 ? '0/26' : '7'}`
  const ban = (i: number) => `ban ${chain} ${address(4 * n + i)} ${20 + (n % 4)} tcp`
  const unban = (i: number) => (n >= 3 ? [`unban ${chain} ${address(4 * (n - 3) + i)}`] : [])
  return [ban(0), ban(1), ...unban(0), ban(2), ...unban(1), ban(3)]
}

async function compare(fw: TestFirewall, acknowledged: Map<string, boolean>): Promise<void> {
  assert.equal((await fw.ask('listips')).code, 0)
  const blocks = await fw.blocks()
  assert.deepEqual(blocks, leasesOf(await fw.ledger()))
  const held = new Set(blocks)
  for (const [block, banned] of acknowledged) assert.equal(held.has(block), banned, block)
}
