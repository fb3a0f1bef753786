import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from '../../scripts/lib/run.ts'
import { waitUntil } from './wait.ts'

/** A real fail2ban-server in a directory of its own, beside whatever the machine runs. */
export interface PrivateFail2ban {
  /** The path of its log. */
  log: string
  /** Calls fail2ban-client. @returns what it printed @throws Error if it failed */
  client(...args: string[]): Promise<string>
  /** The resolved configuration. */
  dump(): Promise<string>
  /** Stops it, when its database holds the ban of this address, and starts it again. */
  restart(address: string): Promise<void>
  remove(): Promise<void>
}

const ACTIONS = fileURLToPath(new URL('../../action.d', import.meta.url))

/**
 * Starts it with one jail that only `banip` feeds.
 *
 * @param actions lines of its `action`, each the name of one of our files with its parameters
 * @param own action files that are not ours, by name
 */
export async function startPrivateFail2ban(
  jail: string,
  actions: string[],
  own: Record<string, string> = {},
) {
  const directory = mkdtempSync(join(tmpdir(), 'f2b-server-'))
  const at = (name: string) => join(directory, name)
  configure(directory, jail, actions, own)
  const call = async (args: string[]): Promise<string> => {
    const base = ['-c', directory, '-s', at('sock'), '-p', at('pid')]
    const { code, stdout, stderr } = await run('fail2ban-client', [...base, ...args])
    if (code === 0) return stdout
    throw new Error(`fail2ban-client ${args.join(' ')} ended with ${code}: ${stdout}${stderr}`)
  }
  await call(['start'])
  const fail2ban: PrivateFail2ban = {
    log: at('log'),
    client: (...args) => call(args),
    dump: () => call(['-d']),
    async restart(address) {
      // Its database is written by another thread.
      const stored = async () => readFileSync(at('db')).includes(address)
      await waitUntil(`${address} in the database of Fail2Ban`, stored, { every: 50 })
      await call(['stop'])
      await waitUntil('the end of Fail2Ban', async () =>
        call(['ping']).then(
          () => false,
          () => true,
        ),
      )
      await call(['start'])
      // Actions of a ban run one after another, and the witness comes last.
      const restored = async () => readFileSync(at('witness'), 'utf8').includes(`${address} 1\n`)
      await waitUntil(`the restored ban of ${address}`, restored, { every: 50 })
    },
    async remove() {
      await call(['stop']).catch(() => '')
      rmSync(directory, { recursive: true, force: true })
    },
  }
  return fail2ban
}

function configure(
  directory: string,
  jail: string,
  actions: string[],
  own: Record<string, string>,
): void {
  const write = (name: string, text: string) => writeFileSync(join(directory, name), text)
  for (const folder of ['action.d', 'filter.d']) mkdirSync(join(directory, folder))
  for (const file of readdirSync(ACTIONS)) {
    copyFileSync(join(ACTIONS, file), join(directory, 'action.d', file))
  }
  for (const [name, text] of Object.entries(own)) write(`action.d/${name}.conf`, text)
  const at = (name: string) => join(directory, name)
  write('watched', '')
  write('witness', '')
  write(
    'action.d/witness.conf',
    `[Definition]\nactionban = echo "<ip> <restored>" >>${at('witness')}\n`,
  )
  write('filter.d/x.conf', '[Definition]\nfailregex = ^ failure <ADDR>$\ndatepattern = ^Epoch\n')
  write(
    'fail2ban.conf',
    `[Definition]
loglevel = DEBUG
logtarget = ${at('log')}
syslogsocket = auto
socket = ${at('sock')}
pidfile = ${at('pid')}
dbfile = ${at('db')}
dbpurgeage = 1d
dbmaxmatches = 1
allowipv6 = auto
`,
  )
  write(
    'jail.conf',
    `[${jail}]
enabled = true
filter = x
backend = polling
logpath = ${at('watched')}
usedns = no
maxretry = 1
bantime = 600
action = ${[...actions, 'witness'].join('\n         ')}
`,
  )
}
