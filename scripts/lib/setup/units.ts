import { existsSync } from 'node:fs'
import { run } from '../run.ts'
import { call } from './account.ts'
import { type Item, say } from './changes.ts'
import { file, textOf } from './items.ts'
import type { Place } from './place.ts'

const UNITS = [
  'fail2ban-perimeter-restore.service',
  'fail2ban-perimeter-sweep.service',
  'fail2ban-perimeter-sweep.timer',
]
const ENABLED = ['fail2ban-perimeter-restore.service', 'fail2ban-perimeter-sweep.timer']

/**
 * What blocks again at boot and frees what is over: systemd units, or a cron file where there is no
 * systemd. The other of the two is removed.
 */
export function bootItems(place: Place, systemd: boolean): Item[] {
  const running = place.prefix === '' && existsSync('/run/systemd/system')
  const units = UNITS.map((unit) => unitFile(place, unit, running))
  const cron = fromPackage(place, 'cron', '/etc/cron.d/fail2ban-perimeter')
  const all = running ? [...units, enabled(units)] : units
  // What is not wanted goes in the order of an uninstallation: a unit ends before its file does.
  return systemd
    ? [...all, { ...cron, unwanted: true }]
    : [...all.toReversed().map((item) => ({ ...item, unwanted: true })), cron]
}

/** `--systemd`; `auto` asks the machine. */
export function hasSystemd(option: string): boolean {
  return option === 'auto' ? existsSync('/run/systemd/system') : option === 'yes'
}

/** What must be added by hand where cron is to do it and there is none. */
export function adviseCron(place: Place, systemd: boolean): void {
  const daemons = ['/usr/sbin/cron', '/usr/sbin/crond', '/usr/sbin/anacron']
  if (systemd || place.prefix || daemons.some((path) => existsSync(path))) return
  say('note: there is neither systemd nor cron here: install cron, or run restorefw at boot and')
  say('      sweepips every minute (both in /usr/local/lib/fail2ban-perimeter) in your own way')
}

function fromPackage(place: Place, name: string, target: string): Item {
  return file(place.at(target), textOf(`${place.source}/firewall-side/${name}`) ?? '', 0o644)
}

function unitFile(place: Place, unit: string, running: boolean): Item {
  const item = fromPackage(place, unit, `/etc/systemd/system/${unit}`)
  return {
    ...item,
    async remove() {
      item.remove()
      if (running) await call('systemctl', ['daemon-reload'])
    },
  }
}

function enabled(units: Item[]): Item {
  return {
    name: `systemd units ${ENABLED.join(' and ')}`,
    async look() {
      const states = await Promise.all(units.map((unit) => unit.look()))
      if (states.every((state) => state === 'absent')) return 'absent'
      if (states.some((state) => state !== 'same')) return 'different'
      // Asked about several units at once, systemctl is content with one.
      const asked = ['is-enabled', 'is-active'].flatMap((verb) =>
        ENABLED.map((unit) => run('systemctl', [verb, '--quiet', unit])),
      )
      const answers = await Promise.all(asked)
      return answers.every(({ code }) => code === 0) ? 'same' : 'different'
    },
    async make() {
      await call('systemctl', ['daemon-reload'])
      await call('systemctl', ['enable', '--now', ...ENABLED])
    },
    remove: () => call('systemctl', ['disable', '--now', ...ENABLED]),
  }
}
