import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
} from 'node:fs'
import { join } from 'node:path'
import { call } from './account.ts'
import type { Item } from './changes.ts'
import { accountEntry } from './rights.ts'

/**
 * A directory of the deliveries, made with the mode; it is the account's if the state directory is.
 * With `--purge` it goes with all that is in it.
 */
export function stateFolder(path: string, mode: number, owned: boolean): Item {
  return {
    name: `${path}/`,
    kept: true,
    async look() {
      const stat = lstatSync(path, { throwIfNoEntry: false })
      if (!stat) return 'absent'
      return (stat.mode & 0o7777) === mode ? 'same' : 'different'
    },
    async make() {
      mkdirSync(path, { recursive: true })
      const ids = owned ? await accountEntry() : undefined
      const fd = openSync(path, constants.O_DIRECTORY | constants.O_NOFOLLOW)
      fchownSync(fd, ids?.uid ?? 0, ids?.gid ?? 0)
      fchmodSync(fd, mode)
      closeSync(fd)
    },
    async remove() {
      await call('rm', ['-r', '--', path])
    },
  }
}

/** What the server side leaves in the state directory; what others keep there is not ours. */
export function remains(stateDir: string): Item {
  const ours =
    /^(generation\..*|sync\.lock|\.fail2ban-perimeter|sophosxg-.*|(threatjammer|abuseipdb)\..*)$/
  const paths = (): string[] => {
    const names = existsSync(stateDir) ? readdirSync(stateDir) : []
    return names.filter((name) => ours.test(name)).map((name) => join(stateDir, name))
  }
  return {
    name: `what the deliveries remember in ${stateDir}/`,
    kept: true,
    look: () => (paths().length > 0 ? 'same' : 'absent'),
    make() {},
    remove: () => call('rm', ['-r', '--', ...paths()]),
  }
}
