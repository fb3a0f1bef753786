import { existsSync, rmSync } from 'node:fs'
import { run } from '../run.ts'
import { call } from './account.ts'
import { type Item, say } from './changes.ts'
import { DELIVER, LIB, TIMER } from './delivery-units.ts'
import { file, textOf } from './items.ts'
import type { Place } from './place.ts'
import { endProcesses } from './processes.ts'

const SYSTEMD = '/run/systemd/system'
const CRON = '/etc/cron.d/fail2ban-perimeter-server'
const PROGRAM = `${LIB}/deliver.cjs`

export function unitFile(place: Place, name: string, text: string): Item {
  const path = place.at(`/etc/systemd/system/${name}`)
  return {
    ...file(path, text, 0o644),
    async remove() {
      rmSync(path)
      if (isLive(place)) await call('systemctl', ['daemon-reload'])
    },
  }
}

/** The service that runs f2b-deliver, anew when its unit or program is another. */
export function deliverService(place: Place, unit: Item, programs: Item[]): Item[] {
  return service(place, DELIVER, [unit], programs, async () => {
    await call('systemctl', ['disable', '--now', DELIVER])
    await deliverRest()
  })
}

export function syncService(place: Place, units: Item[]): Item[] {
  return service(place, TIMER, units, [], () => call('systemctl', ['disable', '--now', TIMER]))
}

/** The table for cron. The deliverer that it has started ends when the table changes. */
export function cronItem(place: Place, table: string): Item {
  const item = file(place.at(CRON), table, 0o644)
  const end = async () => {
    if (!place.prefix) await endProcesses(({ args }) => args[1] === PROGRAM)
  }
  return {
    ...item,
    async make() {
      const before = textOf(item.name) ?? ''
      item.make()
      await end()
      const isOver = before.includes(PROGRAM) && !table.includes(PROGRAM)
      if (isOver && !place.prefix) await deliverRest()
    },
    async remove() {
      item.remove()
      await end()
      if (!place.prefix) await deliverRest()
    },
  }
}

/** What was queued before: nobody would take it on. */
async function deliverRest(): Promise<void> {
  const { code, stderr } = await run(process.execPath, [PROGRAM])
  if (code !== 0) say(`note: not all that was queued could be delivered: ${stderr.trim()}`)
}

function service(
  place: Place,
  name: string,
  units: Item[],
  programs: Item[],
  remove: () => Promise<void>,
): Item[] {
  if (!isLive(place)) return []
  return [
    {
      name: `systemd unit ${name}`,
      async look() {
        const states = await Promise.all(units.map((unit) => unit.look()))
        if (states.includes('absent')) return 'absent'
        states.push(...(await Promise.all(programs.map((one) => one.look()))))
        const verbs = ['is-enabled', 'is-active']
        const answers = verbs.map((verb) => run('systemctl', [verb, '--quiet', name]))
        const codes = (await Promise.all(answers)).map(({ code }) => code)
        const isSame = [...codes, ...states].every((one) => one === 0 || one === 'same')
        return isSame ? 'same' : 'different'
      },
      async make() {
        await call('systemctl', ['daemon-reload'])
        await call('systemctl', ['enable', name])
        await call('systemctl', ['restart', name])
      },
      remove,
    },
  ]
}

function isLive(place: Place): boolean {
  return place.prefix === '' && existsSync(SYSTEMD)
}
