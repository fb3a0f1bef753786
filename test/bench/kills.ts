import assert from 'node:assert/strict'
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
 * Kills the firewall's program at random moments while it bans and unbans, and compares after each
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
    let longest = 1
    let ended = 0
    for (let n = 0; n < kills; n++) {
      const lines = requestsOf(n)
      const seconds = (0.02 + Math.random() * longest).toFixed(3)
      const input = ['owner web1 192.0.2.10', 'firewall', ...lines, ''].join('\n')
      const began = performance.now()
      const command = ['-s', 'KILL', seconds, process.execPath, PERIMETER]
      const { code, stdout } = await fw.box.run('timeout', command, { input })
      if (code === 0) {
        ended++
        longest = (performance.now() - began) / 1000
      } else longest *= 1.05
      const answers = stdout.split('\n')
      for (const [i, line] of lines.entries()) {
        const [verb = '', chain = '', address = ''] = line.split(' ')
        // What was not answered may have happened or not.
        if (answers[i] === 'ok') acknowledged.set(`${chain} ${address}`, verb === 'ban')
        else acknowledged.delete(`${chain} ${address}`)
      }
      if (n % ROUND === ROUND - 1) await compare(fw, acknowledged)
    }
    return `${backend}: ${kills} processes, ${kills - ended} killed, ${acknowledged.size} acknowledged: equal`
  } finally {
    await fw.box.close()
  }
}

/** Two bans and an unban of what was banned before, in three jails, some of them ranges. */
function requestsOf(n: number): string[] {
  const chain = `fail2ban-j${n % 3}`
  const address = (i: number) => `10.${i >> 8}.${i & 255}.${i % 5 === 0 ? '0/26' : '7'}`
  return [
    `ban ${chain} ${address(2 * n)} ${20 + (n % 4)} tcp`,
    `ban ${chain} ${address(2 * n + 1)} ${20 + (n % 4)} tcp`,
    ...(n >= 3 ? [`unban ${chain} ${address(2 * (n - 3))}`] : []),
  ]
}

async function compare(fw: TestFirewall, acknowledged: Map<string, boolean>): Promise<void> {
  assert.equal((await fw.ask('listips')).code, 0)
  const blocks = await fw.blocks()
  assert.deepEqual(blocks, leasesOf(await fw.ledger()))
  const held = new Set(blocks)
  for (const [block, banned] of acknowledged) assert.equal(held.has(block), banned, block)
}
