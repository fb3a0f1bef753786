import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type Ended, run } from '../../scripts/lib/run.ts'

/** A Fail2Ban server of its own, with our actions and filters, on files in a folder of its own. */
export interface Fail2Ban {
  folder: string
  /** Runs `fail2ban-client`. */
  client(...args: string[]): Promise<Ended>
  /** What the server has logged. */
  log: string
  close(): Promise<void>
}

const SETTINGS = (folder: string) => `[Definition]
loglevel = INFO
logtarget = ${folder}/fail2ban.log
syslogsocket = auto
socket = ${folder}/sock
pidfile = ${folder}/pid
dbfile = ${folder}/fail2ban.sqlite3
dbpurgeage = 1d
dbmaxmatches = 10
allowipv6 = auto
`

/**
 * Makes one; `start` it with the client.
 *
 * @param jails jail.local, as an operator would write it
 * @param env what the server's actions get, a PATH for instance
 */
export function openFail2Ban(jails: string, env: NodeJS.ProcessEnv): Fail2Ban {
  const folder = mkdtempSync(join(tmpdir(), 'f2b-server-'))
  for (const name of ['action.d', 'filter.d']) {
    mkdirSync(join(folder, name))
    cpSync(resolve(name), join(folder, name), { recursive: true })
  }
  writeFileSync(join(folder, 'fail2ban.conf'), SETTINGS(folder))
  writeFileSync(join(folder, 'jail.conf'), '[DEFAULT]\nusedns = no\nignoreself = false\n')
  writeFileSync(join(folder, 'jail.local'), jails)
  const options = ['-c', folder, '-s', join(folder, 'sock'), '-p', join(folder, 'pid')]
  const client = (...args: string[]) => run('fail2ban-client', [...options, ...args], { env })
  return {
    folder,
    client,
    log: join(folder, 'fail2ban.log'),
    async close() {
      await client('stop')
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** A PATH on which our commands are, as `npm install -g` puts them there. */
export function withCommands(folder: string, names: string[]): string {
  const bin = join(folder, 'bin')
  mkdirSync(bin, { recursive: true })
  for (const name of names) {
    symlinkSync(resolve(`dist/${name.replace(/^f2b-/, '')}.cjs`), join(bin, name))
  }
  // The sync that a stop of Fail2Ban asks for would wait ten minutes for this one to come back.
  symlinkSync('/bin/true', join(bin, 'f2b-sync'))
  return `${bin}:${process.env.PATH}`
}
