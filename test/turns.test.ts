import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import { BACKENDS, leasesOf, openFirewall, PERIMETER, type TestFirewall } from './lib/firewall.ts'
import { waitUntil } from './lib/wait.ts'

// What one owner sends at once must not keep the others waiting: many leases are changed in pieces.

/** So many that others speak, and a process is killed, in the middle of them on any machine. */
const COUNTS = { nftables: 90_000, ipset: 90_000, iptables: 6000 }

const leases = (length: number): string[] =>
  Array.from({ length }, (_, i) => `20.${i >> 16}.${(i >> 8) & 255}.${i & 255} 0`)
const SLOW = { timeout: 240_000, every: 100 }

let fw: TestFirewall
before(async () => {
  fw = await openFirewall()
})
after(() => fw.box.close())

/** A session of web1 that has sent a sync; what it answers, once it does. */
function sync(wanted: string[]) {
  const child = fw.box.start(process.execPath, [PERIMETER])
  const request = ['owner web1 192.0.2.10', 'firewall', `sync fail2ban-many - - ${wanted.length}`]
  child.stdin.write(`${[...request, ...wanted].join('\n')}\n`)
  const answers: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => answers.push(line))
  return { child, answers, end: () => child.stdin.end() }
}

async function banned(): Promise<number> {
  return Number(
    await fw.box.sh("grep -c ' many 0 web1$' /var/lib/fail2ban-perimeter/firewall.leases || true"),
  )
}

async function isBlocked(address: string): Promise<boolean> {
  return (await fw.blocks()).some((block) => block.endsWith(` ${address}`))
}

for (const backend of BACKENDS) {
  const many = leases(COUNTS[backend])
  const last = many.at(-1)?.split(' ')[0] ?? ''

  test(`${backend}: what others say is in force before a large sync has ended, and stays`, async () => {
    await fw.reset(backend)
    for (const owner of ['web1', 'web2']) await fw.say('list', owner) // Their sessions are open.
    const { answers, end } = sync(many)
    await waitUntil('the first piece', async () => (await banned()) > 0, SLOW)
    const said = [
      fw.say('ban fail2ban-sshd 203.0.113.1 22 tcp', 'web2'),
      fw.say(`unban fail2ban-many ${last}`),
    ]
    for (const answer of await Promise.all(said)) assert.equal(answer, '')
    assert.deepEqual(answers, [])
    assert.ok((await banned()) < many.length)
    assert.ok(await isBlocked('203.0.113.1'))
    await waitUntil('the answer', async () => answers.length > 0, SLOW)
    end()
    assert.deepEqual(answers, [`ok added ${many.length}, extended 0, removed 0, unchanged 0`])
    const blocks = await fw.blocks()
    assert.equal(blocks.length, many.length, 'one more, and one less')
    assert.ok(!blocks.includes(`fail2ban-many ${last}`), 'what the same owner freed meanwhile')
    assert.deepEqual(blocks, leasesOf(await fw.ledger()))
  })

  test(`${backend}: a sync that was killed half way is made good by the next`, async () => {
    await fw.reset(backend)
    const { child, answers } = sync(many)
    await waitUntil('the first piece', async () => (await banned()) > 0, SLOW)
    await fw.box.sh("pkill -KILL -f '[f]irewall-side/perimeter'")
    await waitUntil(
      'its end',
      async () => child.exitCode !== null || child.signalCode !== null,
      SLOW,
    )
    assert.deepEqual(answers, [])
    const next = await fw.say([`sync fail2ban-many - - ${many.length}`, ...many].join('\n'))
    const [, added, unchanged] =
      /^ok added (\d+), extended 0, removed 0, unchanged (\d+)$/.exec(next) ?? []
    assert.ok(Number(added) > 0 && Number(unchanged) > 0, next)
    assert.equal(Number(added) + Number(unchanged), many.length)
    const blocks = await fw.blocks()
    assert.equal(blocks.length, many.length)
    assert.deepEqual(blocks, leasesOf(await fw.ledger()))
  })
}
