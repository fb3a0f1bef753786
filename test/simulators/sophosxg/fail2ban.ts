/** A real fail2ban-server beside a simulated firewall: its own directory, socket and database. */
import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../../scripts/lib/run.ts'
import { waitUntil } from '../../lib/wait.ts'
import type { Options } from '../sophosxg.ts'
import { inWorld, type World } from './world.ts'

const ROOT = join(import.meta.dirname, '../../..')

/** A real Fail2Ban with a directory, a socket and a database of its own. */
export interface Fail2ban {
  /** @returns what fail2ban-client printed @throws if it failed */
  client(args: string): Promise<string>
  log(): string
}

/** Starts both, with the jails sshd and nginx, and takes them down after the work. */
export async function inFail2ban(
  account: Options,
  work: (world: World, fail2ban: Fail2ban) => Promise<void>,
): Promise<void> {
  await inWorld(
    { simulator: account, settings: { pass: account.pass ?? 'secret' } },
    async (world) => {
      const dir = join(world.dir, 'fail2ban')
      writeConfiguration(world, dir)
      const options = ['-c', dir, '-s', join(dir, 'sock'), '-p', join(dir, 'pid')]
      const client = async (args: string): Promise<string> => {
        const ended = await run('fail2ban-client', [...options, ...args.split(' ')])
        assert.equal(ended.code, 0, `${args}: ${ended.stdout}${ended.stderr}`)
        return ended.stdout
      }
      const log = () => readFileSync(join(dir, 'log'), 'utf8')
      await client('start')
      try {
        await waitUntil('both jails', () => (log().match(/Jail '\w+' started/g) ?? []).length === 2)
        await waitUntil(
          'the groups',
          () => world.sim.box.groups.size > 1 || world.sim.faults.ipRefused,
        )
        await work(world, { client, log })
      } finally {
        await client('stop')
      }
    },
  )
}

function writeConfiguration(world: World, dir: string): void {
  for (const kind of ['action.d', 'filter.d']) mkdirSync(join(dir, kind), { recursive: true })
  for (const name of ['sophosxg.conf', 'perimeter-queue.conf', 'perimeter-blocks.conf']) {
    copyFileSync(join(ROOT, 'action.d', name), join(dir, 'action.d', name))
  }
  const command = `${process.execPath} ${world.script}`
  const local = `[Init]\nsophosxg = env FAIL2BAN_PERIMETER_CONFIG=${world.configure()} ${command}\nsync = true\n`
  writeFileSync(join(dir, 'action.d/sophosxg.local'), local)
  writeFileSync(
    join(dir, 'filter.d/none.conf'),
    '[Definition]\nfailregex = ^ no <ADDR>$\ndatepattern = ^Epoch\n',
  )
  writeFileSync(join(dir, 'watched.log'), '')
  const main = {
    // Shows when a command has ended.
    loglevel: 'DEBUG',
    logtarget: join(dir, 'log'),
    syslogsocket: 'auto',
    socket: join(dir, 'sock'),
    pidfile: join(dir, 'pid'),
    dbfile: join(dir, 'db'),
    dbpurgeage: '1d',
    dbmaxmatches: '10',
    allowipv6: 'auto',
  }
  writeFileSync(join(dir, 'fail2ban.conf'), section('Definition', main))
  const jail = {
    enabled: 'true',
    filter: 'none',
    backend: 'polling',
    logpath: join(dir, 'watched.log'),
  }
  const more = {
    maxretry: '1',
    bantime: '600',
    usedns: 'no',
    action: 'sophosxg[name=%(__name__)s]',
  }
  const jails = ['sshd', 'nginx'].map((name) => section(name, { ...jail, ...more }))
  writeFileSync(join(dir, 'jail.conf'), jails.join('\n'))
}

function section(name: string, keys: Record<string, string>): string {
  const lines = Object.entries(keys).map(([key, value]) => `${key} = ${value}`)
  return `[${name}]\n${lines.join('\n')}\n`
}

/** Fail2Ban writes its database in the background; a restart before that would know of no ban. */
export async function stored(fail2ban: Fail2ban): Promise<void> {
  const file = (await fail2ban.client('get dbfile')).match(/\/\S+/)?.[0] ?? ''
  const query =
    'import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute("select count(*) from bips").fetchone()[0])'
  await waitUntil(
    'its row in the database',
    async () => (await run('python3', ['-c', query, file])).stdout.trim() === '1',
  )
}
