import { setTimeout as sleep } from 'node:timers/promises'
import { installPerimeter } from '../lib/installed.ts'
import type { Machine } from '../lib/machine.ts'
import { createPerimeter } from '../lib/perimeter.ts'
import { waitUntil } from '../lib/wait.ts'
import type { Row } from './table.ts'

const OWNERS = 100
const SECONDS = 60

/** What an owner's session may take of the firewall's memory, MB. */
const LIMIT = 20

/** Memory in kB and processor time in ticks of every process of a machine, as the kernel counts them. */
const SUMS = `cat /proc/[0-9]*/smaps_rollup 2>/dev/null |
  awk '/^Pss:/ { pss += $2 } /^Rss:/ { rss += $2 } END { print pss, rss }'
cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | awk '{ t += $12 + $13 } END { print t + 0 }'`

const OPEN = `for n in $(seq ${OWNERS}); do
  { echo "session 1"; echo "ban fail2ban-sshd 198.18.0.$n 22 tcp"; while sleep 15; do echo; done; } |
    ssh -S none -i /root/keys/$n -o UserKnownHostsFile=/etc/fail2ban-perimeter/known_hosts \\
      -o IdentitiesOnly=yes fail2ban@edge1 firewall >/root/keys/$n.out 2>&1 &
  sleep 0.3
done; wait`

/** What a hundred owners with an open session each take on a firewall that has nothing to do. */
export async function benchOwners(): Promise<Row[]> {
  const lab = await createPerimeter()
  const { firewall, server } = lab
  try {
    await installPerimeter(lab, { sshd: { config: ['MaxStartups 500'] } })
    await letIn(firewall, server)
    const before = await sums(firewall)
    await server.spawn(['sh', '-c', `echo begun; ${OPEN}`])
    const answered = async () =>
      Number(await server.sh('cat /root/keys/*.out | grep -c "^ok$" || true')) === 2 * OWNERS
    await waitUntil('all sessions', answered, { timeout: 600_000, every: 2000 })
    await sleep(20_000)
    const open = await sums(firewall)
    await sleep(SECONDS * 1000)
    const later = await sums(firewall)
    const alive = Number(await firewall.sh('pgrep -xc perimeter || true'))
    if (alive < OWNERS) throw new Error(`only ${alive} of ${OWNERS} sessions are open`)
    const each = (kB: number) => kB / 1024 / OWNERS
    const pss = each(open.pss - before.pss)
    const rss = each(open.rss - before.rss)
    const busy = (later.ticks - open.ticks) / SECONDS
    return [
      {
        what: 'memory of an owner’s session, PSS',
        ours: mb(pss),
        other: mb(LIMIT),
        ratio: pss / LIMIT,
        limit: 1,
      },
      {
        what: 'the same as RSS, shared pages in each',
        ours: mb(rss),
        other: '',
        ratio: rss / LIMIT,
      },
      {
        what: `processor time of ${OWNERS} idle sessions`,
        ours: `${busy.toFixed(2)} %`,
        other: 'of one core',
        ratio: busy / 100,
      },
    ]
  } finally {
    await lab.close()
  }
}

/** Each owner has a key of its own, in a line like the one that f2b-setup has written. */
async function letIn(firewall: Machine, server: Machine): Promise<void> {
  const keys = await server.sh(`mkdir /root/keys; cd /root/keys
    for n in $(seq ${OWNERS}); do ssh-keygen -q -t ed25519 -N '' -C '' -f $n; cat $n.pub; done`)
  const file = (await firewall.sh('grep -rl "gate web1" /etc /home /var/lib 2>/dev/null')).trim()
  const text = await firewall.readFile(file)
  const line = text.split('\n').find((one) => one.includes('gate web1')) ?? ''
  const lines = keys
    .trim()
    .split('\n')
    .map((key, i) => line.replace('gate web1', `gate own${i + 1}`).replace(/ssh-ed25519 .*/, key))
  await firewall.run(['sh', '-c', 'cat >>"$1"', 'sh', file], { input: `${lines.join('\n')}\n` })
}

async function sums(machine: Machine) {
  const [memory = '', ticks = ''] = (await machine.sh(SUMS)).trim().split('\n')
  const [pss = 0, rss = 0] = memory.split(' ').map(Number)
  return { pss, rss, ticks: Number(ticks) }
}

function mb(size: number): string {
  return `${size.toFixed(1)} MB`
}
