import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
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
import { installed, type Release } from './fail2ban-releases.ts'
import { waitUntil } from './wait.ts'

/** A real fail2ban-server in a directory of its own, beside whatever the machine runs. */
export interface PrivateFail2ban {
  directory: string
  socket: string
  database: string
  /** The path of its log. */
  log: string
  /** The folder of the queues that our actions write to, if they do. */
  queue: string
  /** Calls fail2ban-client. @returns what it printed @throws Error if it failed */
  client(...args: string[]): Promise<string>
  /** The resolved configuration. */
  dump(): Promise<string>
  /** Starts it anew with these bans and no others, unless it has just those. */
  seed(bans: Seed[]): Promise<void>
  /** Empties the database of bans. */
  forget(): Promise<void>
  /** What a jail has restored since it was started the last time, as its log says. */
  restored(jail: string): string[]
  /** Puts bans into the database, as if they had been there for long. */
  store(bans: Seed[]): Promise<void>
  /** Bans by hand, and waits until all of it is in the database, which another thread writes. */
  ban(jail: string, ...ids: string[]): Promise<void>
  /** What its filters read: `<epoch> failure <address>`; filter `users`: `<epoch> user <name> <address>`. */
  write(line: string): void
  /** The lines of its log that say ERROR. */
  errors(): string[]
  /** Another jail.local, for the next start or reload. */
  configure(jails: string): void
  stop(): Promise<void>
  start(): Promise<void>
  /** Stops it, when its database holds the ban of this address, and starts it again. */
  restart(address: string): Promise<void>
  remove(): Promise<void>
}

/** A ban as the database has it: moments in epoch seconds, and what it has in `data`. */
export interface Seed {
  jail: string
  id: string
  began: number
  seconds: number
  ip?: string
  matches?: string[]
}

/** Writes rows, after it has forgotten all others if told so; or prints those that there are. */
const STORE = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
bans = json.load(sys.stdin)
if bans["anew"]: db.execute("DELETE FROM bips")
for ban in bans["rows"]:
    data = {"matches": ban.get("matches", []), "failures": len(ban.get("matches", []))}
    if "ip" in ban: data["ip"] = ban["ip"]
    db.execute("INSERT OR IGNORE INTO jails (name, enabled) VALUES (?, 1)", (ban["jail"],))
    db.execute("INSERT OR REPLACE INTO bips (ip, jail, timeofban, bantime, bancount, data) "
               "VALUES (?, ?, ?, ?, 2, ?)",
               (ban["id"], ban["jail"], ban["began"], ban["seconds"], json.dumps(data).encode()))
db.commit()
print(json.dumps(list(db.execute("SELECT jail, ip, timeofban, bantime FROM bips ORDER BY 1, 2"))))
`

export interface Options {
  /** The installed one if left out. */
  release?: Release
  /** Sections of jail.local; `filter`, `logpath` and so on have defaults. */
  jails: string
  /** Further files below the directory of its configuration. */
  files?: Record<string, string>
  env?: NodeJS.ProcessEnv
  /** How our actions deliver: into `queue`, or with commands that only note how they are called. */
  delivery?: 'queued' | 'direct'
}

const ACTIONS = fileURLToPath(new URL('../../action.d', import.meta.url))

/** Starts it with the files that its release ships, ours, and these jails. */
export async function openFail2ban(options: Options): Promise<PrivateFail2ban> {
  const release = options.release ?? (await installed())
  const directory = mkdtempSync(join(tmpdir(), 'f2b-server-'))
  const at = (name: string): string => join(directory, name)
  layOut(directory, release, options)
  const call = async (args: string[]): Promise<string> => {
    const base = ['-c', directory, '-s', at('sock'), '-p', at('pid')]
    const env = { ...process.env, ...options.env }
    const { code, stdout, stderr } = await run(release.client, [...base, ...args], { env })
    if (code === 0) return stdout
    throw new Error(`fail2ban-client ${args.join(' ')} ended with ${code}: ${stdout}${stderr}`)
  }
  // Its database is written by another thread.
  const stored = async (text: string): Promise<void> => {
    const holds = async () => existsSync(at('db')) && readFileSync(at('db')).includes(text)
    await waitUntil(`${text} in the database of Fail2Ban`, holds, { every: 20 })
  }
  const rows = async (anew: boolean, bans: Seed[]): Promise<string> => {
    const input = JSON.stringify({ anew, rows: bans })
    const { code, stdout, stderr } = await run('/usr/bin/python3', ['-c', STORE, at('db')], {
      input,
    })
    if (code !== 0) throw new Error(stderr)
    return stdout
  }
  const isUp = (): boolean => existsSync(at('sock'))
  // As `banned` prints it: a list of a dictionary per jail.
  const live = async (): Promise<string[]> => {
    const text = (await call(['banned'])).replaceAll("'", '"')
    const jails = JSON.parse(text) as Record<string, string[]>[]
    return jails.flatMap((jail) =>
      Object.entries(jail).flatMap(([name, ids]) => ids.map((id) => `${name} ${id}`)),
    )
  }
  const isSeeded = async (bans: Seed[]): Promise<boolean> => {
    const wanted = bans.map(({ jail, id }) => `${jail} ${id}`).sort()
    return isUp() && (await live()).sort().join() === wanted.join()
  }
  let seeded = ''
  const fail2ban: PrivateFail2ban = {
    async seed(bans) {
      const known = await rows(false, [])
      if (seeded === JSON.stringify([bans, known]) && (await isSeeded(bans))) return
      if (isUp()) await fail2ban.stop()
      seeded = JSON.stringify([bans, await rows(true, bans)])
      await fail2ban.start()
      await waitUntil('the bans', () => isSeeded(bans), { every: 50 })
    },
    forget: async () => void (await rows(true, [])),
    restored(jail) {
      const text = readFileSync(at('log'), 'utf8')
      const since = text.slice(text.lastIndexOf('Starting Fail2ban'))
      return [...since.matchAll(/\[([^\]]*)\] Restore Ban (\S+)/g)].flatMap(([, name, id = '']) =>
        name === jail ? [id] : [],
      )
    },
    store: async (bans) => void (await rows(false, bans)),
    directory,
    socket: at('sock'),
    database: at('db'),
    log: at('log'),
    queue: at('queue'),
    client: (...args) => call(args),
    dump: () => call(['-d']),
    async ban(jail, ...ids) {
      await call(['set', jail, 'banip', ...ids])
      for (const id of ids) await stored(id)
    },
    write: (line) => writeFileSync(at('watched'), `${line}\n`, { flag: 'a' }),
    errors() {
      const lines = readFileSync(at('log'), 'utf8').split('\n')
      return lines.filter((line) => / (ERROR|CRITICAL) /.test(line))
    },
    configure: (jails) => writeFileSync(at('jail.local'), jailLocal(directory, jails)),
    async stop() {
      await call(['stop'])
      const gone = async () => !existsSync(at('pid')) && !existsSync(at('sock'))
      await waitUntil('the end of Fail2Ban', gone, { every: 20 })
    },
    async start() {
      await call(['start'])
    },
    async restart(address) {
      await stored(address)
      await fail2ban.stop()
      await fail2ban.start()
    },
    async remove() {
      await call(['stop']).catch(() => '')
      rmSync(directory, { recursive: true, force: true })
    },
  }
  await fail2ban.start()
  return fail2ban
}

/**
 * Starts the installed one with one jail that only `banip` feeds.
 *
 * @param actions lines of its `action`, each the name of one of our files with its parameters
 * @param own action files that are not ours, by name
 */
export async function startPrivateFail2ban(
  jail: string,
  actions: string[],
  own: Record<string, string> = {},
): Promise<PrivateFail2ban> {
  const files = Object.entries(own).map(([name, text]) => [`action.d/${name}.conf`, text])
  const witness = join('action.d', 'witness.conf')
  const lines = [...actions, 'witness'].join('\n         ')
  const fail2ban = await openFail2ban({
    jails: `[${jail}]\naction = ${lines}\n`,
    files: {
      ...Object.fromEntries(files),
      [witness]: '[Definition]\nactionban = echo "<ip> <restored>" >>DIRECTORY/witness\n',
    },
  })
  const note = join(fail2ban.directory, 'witness')
  return {
    ...fail2ban,
    async restart(address) {
      await fail2ban.restart(address)
      // Actions of a ban run one after another, and the witness comes last.
      const restored = async () => readFileSync(note, 'utf8').includes(`${address} 1\n`)
      await waitUntil(`the restored ban of ${address}`, restored, { timeout: 30_000, every: 50 })
    },
  }
}

/** Our action files, whatever they include. */
function ours(): string[] {
  return readdirSync(ACTIONS).filter((file) => file.endsWith('.conf'))
}

function layOut(directory: string, release: Release, options: Options): void {
  const at = (name: string): string => join(directory, name)
  const write = (name: string, text: string): void => {
    writeFileSync(at(name), text.replaceAll('DIRECTORY', directory))
  }
  cpSync(release.config, directory, { recursive: true })
  for (const name of readdirSync(at('jail.d'))) rmSync(at(`jail.d/${name}`))
  mkdirSync(at('queue'))
  mkdirSync(at('bin'))
  for (const file of ours()) copyFileSync(join(ACTIONS, file), at(`action.d/${file}`))
  if (options.delivery) deliver(directory, options.delivery)
  for (const name of ['watched', 'witness', 'called']) write(name, '')
  write('filter.d/x.conf', '[Definition]\nfailregex = ^ failure <ADDR>$\ndatepattern = ^Epoch\n')
  write(
    'filter.d/users.conf',
    '[Definition]\nfailregex = ^ user <F-ID>\\S+</F-ID> <ADDR>$\ndatepattern = ^Epoch\n',
  )
  write(
    'fail2ban.local',
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
  write('jail.local', jailLocal(directory, options.jails))
  for (const [name, text] of Object.entries(options.files ?? {})) write(name, text)
}

/** What each jail needs and does not say itself; jail.conf has sections for most names. */
function jailLocal(directory: string, jails: string): string {
  const defaults = {
    enabled: 'true',
    filter: 'x',
    backend: 'polling',
    logpath: `${directory}/watched`,
    usedns: 'no',
    maxretry: '1',
    bantime: '600',
  }
  const sections = jails.replaceAll('DIRECTORY', directory).split(/^(?=\[)/m)
  const completed = sections.map((section) => {
    if (!section.startsWith('[') || section.startsWith('[DEFAULT]')) return section
    const missing = Object.entries(defaults).filter(([key]) => {
      return !new RegExp(`^${key} *=`, 'm').test(section)
    })
    return `${section}\n${missing.map((pair) => pair.join(' = ')).join('\n')}\n`
  })
  return completed.join('\n')
}

/** What `f2b-setup server` writes for a queued delivery, or commands that note their words. */
function deliver(directory: string, delivery: 'queued' | 'direct'): void {
  const bin = join(directory, 'bin')
  const names = ['banip', 'unbanip', 'f2b-firewall', 'f2b-sophosxg', 'f2b-fortigate', 'net2banctl']
  for (const name of [
    ...names,
    'f2b-mikrotik',
    'f2b-opnsense',
    'f2b-threatjammer',
    'f2b-abuseipdb',
    'f2b-sync',
  ]) {
    const note = `#!/bin/sh\nprintf '%s\\n' "\${0##*/}" "$@" . >>${directory}/called\n`
    writeFileSync(join(bin, name), note)
    chmodSync(join(bin, name), 0o755)
  }
  const commands = {
    banip: 'banip',
    unbanip: 'unbanip',
    firewall: 'f2b-firewall',
    sync: 'f2b-sync',
    sophosxg: 'f2b-sophosxg',
    mikrotik: 'f2b-mikrotik',
    opnsense: 'f2b-opnsense',
    threatjammer: 'f2b-threatjammer',
    abuseipdb: 'f2b-abuseipdb',
  }
  const lines = Object.entries(commands).map(([key, name]) => `${key} = ${bin}/${name}`)
  for (const file of ours()) {
    const name = file.replace(/\.conf$/, '')
    const own = name === 'fortigate' ? 'f2b-fortigate' : 'net2banctl'
    const text = ['[Init]', `delivery = ${delivery}`, `queue = ${directory}/queue`, ...lines]
    writeFileSync(
      join(directory, 'action.d', `${name}.local`),
      `${[...text, `command = ${bin}/${own}`].join('\n')}\n`,
    )
  }
}
