import { existsSync, rmSync } from 'node:fs'
import { run } from '../run.ts'
import { call } from './account.ts'
import { type Item, say } from './changes.ts'
import { DELIVER, LIB, SOCKET, SYNC, TIMER } from './delivery-units.ts'
import { file, textOf } from './items.ts'
import type { Place } from './place.ts'
import { endProcesses } from './processes.ts'
import { accountEntry } from './rights.ts'

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

/** The service that runs f2b-deliver and its socket, anew when a unit or its program is another. */
export function deliverService(place: Place, units: Item[], parts: Item[]): Item[] {
  const names = units.length > 1 ? [SOCKET, DELIVER] : [DELIVER]
  return service(place, names, units, parts, async () => {
    await call('systemctl', ['disable', '--now', ...installed(place, [SOCKET, DELIVER])])
    await deliverRest()
  })
}

/** A socket that nobody is asked at any more. */
export function oldSocket(place: Place, unit: Item): Item[] {
  const end = () => call('systemctl', ['disable', '--now', SOCKET])
  return [unit, ...service(place, [SOCKET], [unit], [], end)].map((item) => {
    return { ...item, unwanted: true }
  })
}

/** Ends whoever delivers or syncs; the services begin again when they are looked after. */
export async function stopDelivery(place: Place): Promise<void> {
  const there = installed(place, [TIMER, SYNC, SOCKET, DELIVER])
  if (isLive(place) && there.length > 0) await call('systemctl', ['stop', ...there])
  if (place.prefix) return
  const uid = (await accountEntry())?.uid
  // Also a shared connection of a command that somebody used by hand.
  await endProcesses((one) => one.uid === uid || one.args[1] === PROGRAM)
}

function installed(place: Place, units: string[]): string[] {
  return units.filter((name) => existsSync(place.at(`/etc/systemd/system/${name}`)))
}

export function syncService(place: Place, units: Item[], parts: Item[]): Item[] {
  return service(place, [TIMER], units, parts, () => call('systemctl', ['disable', '--now', TIMER]))
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
  names: string[],
  units: Item[],
  parts: Item[],
  remove: () => Promise<void>,
): Item[] {
  if (!isLive(place)) return []
  return [
    {
      name: `systemd ${names.length > 1 ? 'units' : 'unit'} ${names.join(' and ')}`,
      async look() {
        const states = await Promise.all(units.map((unit) => unit.look()))
        if (states.includes('absent')) return 'absent'
        states.push(...(await Promise.all(parts.map((one) => one.look()))))
        const asked = ['is-enabled', 'is-active'].flatMap((verb) =>
          names.map((name) => run('systemctl', [verb, '--quiet', name])),
        )
        const codes = (await Promise.all(asked)).map(({ code }) => code)
        const isSame = [...codes, ...states].every((one) => one === 0 || one === 'same')
        return isSame ? 'same' : 'different'
      },
      async make() {
        await call('systemctl', ['daemon-reload'])
        await call('systemctl', ['enable', ...names])
        await call('systemctl', ['restart', ...names])
      },
      remove,
    },
  ]
}

function isLive(place: Place): boolean {
  return place.prefix === '' && existsSync(SYSTEMD)
}
