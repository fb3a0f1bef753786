import type { BackendName } from '../lib/firewall.ts'
import { installPerimeter } from '../lib/installed.ts'
import type { Machine } from '../lib/machine.ts'
import { createPerimeter } from '../lib/perimeter.ts'
import { median, type Row } from './table.ts'

const LEASES = 99_000
const BANS = 30

/** What one owner does without end, in shell. */
const LOADS = {
  nothing: ':',
  [`syncs of ${LEASES}`]:
    'while :; do for list in a b; do f2b-firewall sync --name aa </root/$list; done; done',
  'twelve lists':
    'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do while :; do f2b-firewall list; done & done; wait',
  'checks of all': 'while :; do ssh edge1 checkfw; done',
}

/** How long another owner's ban takes, end to end, whatever one owner does; at most a second. */
export async function benchTurns(backend: BackendName): Promise<Row[]> {
  const lab = await createPerimeter({ servers: 2 })
  const [busy, other] = lab.servers as [Machine, Machine]
  try {
    await installPerimeter(lab, { backend })
    for (const [i, list] of ['a', 'b'].entries()) await busy.writeFile(`/root/${list}`, listOf(i))
    const rows: Row[] = []
    let bans = 0
    for (const [what, command] of Object.entries(LOADS)) {
      const load = await busy.spawn(['sh', '-c', `echo begun; { ${command}; } >/dev/null 2>&1`])
      await new Promise((resolve) => setTimeout(resolve, 3000))
      const took: number[] = []
      let failed = 0
      for (let n = 0; n < BANS; n++, bans++) {
        const began = performance.now()
        const address = `198.18.${bans >> 8}.${bans & 255}`
        const { code } = await other.exec(['banip', 'fail2ban-x', address, '22', 'tcp'])
        took.push(performance.now() - began)
        if (code !== 0) failed++
      }
      await load.kill('SIGKILL')
      const worst = Math.max(...took)
      rows.push({
        what: `${backend}: a ban beside ${what} of another owner`,
        ours: `median ${Math.round(median(took))} ms, worst ${Math.round(worst)} ms, ${failed} failed`,
        other: '1000 ms',
        ratio: worst / 1000,
        limit: 1,
      })
    }
    return rows
  } finally {
    await lab.close()
  }
}

function listOf(which: number): string {
  const lines = Array.from({ length: LEASES }, (_, i) => {
    const n = i + 256 + which * 200_000
    return `20.${n >> 16}.${(n >> 8) & 255}.${n & 255} aa 0\n`
  })
  return lines.join('')
}
