import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { run } from '../../scripts/lib/run.ts'
import { inWorld, type World } from '../simulators/sophosxg/world.ts'

const ROOT = join(import.meta.dirname, '../..')

/** A real Fail2Ban with a directory, a socket and a database of its own. */
interface Fail2ban {
  /** @returns what fail2ban-client printed @throws if it failed */
  client(args: string): Promise<string>
  log(): string
}

test('the commands of the document work through a real Fail2Ban', async () => {
  await inFail2ban({}, async (world, fail2ban) => {
    assert.equal(world.sim.box.groups.has('f2b_blockings'), true, 'made at the start of the jail')
    await fail2ban.client('set sshd banip 192.168.13.37')
    assert.deepEqual(members(world), ['f2b_sshd_192.168.13.37@web1'])
    assert.match(await fail2ban.client('status sshd'), /Banned IP list:\s+192\.168\.13\.37/)
    assert.match(await fail2ban.client('get sshd banip'), /192\.168\.13\.37/)
    await fail2ban.client('set sshd unbanip 192.168.13.37')
    assert.deepEqual(members(world), [])
    await fail2ban.client('set sshd banip 2001:db8::37')
    assert.deepEqual(members(world, 'f2b_blockings_v6'), ['f2b_sshd_2001:db8::37@web1'])
    const { stdout } = await world.run('list')
    const [, , expires] = stdout.split(' ')
    const left = Number(expires) - Date.now() / 1000
    assert.ok(left > 500 && left <= 601, `the ban time of the jail arrives: ${left}`)
    assert.doesNotMatch(fail2ban.log(), /ERROR/)
  })
})

test('a jail of the same address in a real Fail2Ban is on its own', async () => {
  await inFail2ban({}, async (world, fail2ban) => {
    await fail2ban.client('set sshd banip 192.168.13.37')
    await fail2ban.client('set nginx banip 192.168.13.37')
    await fail2ban.client('set sshd unbanip 192.168.13.37')
    assert.deepEqual(members(world), ['f2b_nginx_192.168.13.37@web1'])
  })
})

test('a restart of a real Fail2Ban frees nobody, not for a moment', async () => {
  await inFail2ban({}, async (world, fail2ban) => {
    await fail2ban.client('set sshd banip 192.168.13.37')
    await stored(fail2ban)
    const mark = world.sim.log.length
    await fail2ban.client('restart')
    await until(() => /Restore Ban 192\.168\.13\.37/.test(fail2ban.log()))
    await until(() => world.sim.log.slice(mark).some((one) => one.names.length > 0))
    assert.deepEqual(world.sim.writes(mark), [], 'what is in force is not written again')
    assert.deepEqual(members(world), ['f2b_sshd_192.168.13.37@web1'])
    await fail2ban.client('set sshd unbanip 192.168.13.37')
    assert.deepEqual(members(world), [], 'an unban works also after a restart')
  })
})

test('a group that an admin deletes is made again by the next ban of a real Fail2Ban', async () => {
  await inFail2ban({}, async (world, fail2ban) => {
    world.sim.box.groups.clear()
    await fail2ban.client('set sshd banip 192.168.13.37')
    assert.deepEqual(members(world), ['f2b_sshd_192.168.13.37@web1'])
  })
})

test('a refusal is one clear line in the log of a real Fail2Ban, without the password', async () => {
  await inFail2ban({ pass: 'Ge&heim' }, async (world, fail2ban) => {
    world.sim.faults.ipRefused = true
    await fail2ban.client('set sshd banip 192.168.13.37')
    const said = /Cannot ban "192\.168\.13\.37" on "fw1": it does not let this server use the API/
    assert.match(fail2ban.log(), said)
    assert.doesNotMatch(fail2ban.log(), /heim|Traceback/)
  })
})

async function inFail2ban(
  account: { pass?: string },
  work: (world: World, fail2ban: Fail2ban) => Promise<void>,
): Promise<void> {
  await inWorld({ simulator: account, settings: account }, async (world) => {
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
      await until(() => (log().match(/Jail '\w+' started/g) ?? []).length === 2)
      await until(() => world.sim.box.groups.size > 1 || world.sim.faults.ipRefused)
      await work(world, { client, log })
    } finally {
      await client('stop')
    }
  })
}

function writeConfiguration(world: World, dir: string): void {
  for (const kind of ['action.d', 'filter.d']) mkdirSync(join(dir, kind), { recursive: true })
  copyFileSync(join(ROOT, 'action.d/sophosxg.conf'), join(dir, 'action.d/sophosxg.conf'))
  const command = `${process.execPath} ${world.script}`
  const local = `[Init]\nsophosxg = env FAIL2BAN_PERIMETER_CONFIG=${world.configure()} ${command}\n`
  writeFileSync(join(dir, 'action.d/sophosxg.local'), local)
  writeFileSync(
    join(dir, 'filter.d/none.conf'),
    '[Definition]\nfailregex = ^ no <ADDR>$\ndatepattern = ^Epoch\n',
  )
  writeFileSync(join(dir, 'watched.log'), '')
  const main = {
    loglevel: 'INFO',
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

function members({ sim }: World, group = 'f2b_blockings'): string[] {
  return [...(sim.box.groups.get(group)?.members ?? [])]
}

/** Fail2Ban writes its database in the background; a restart before that would know of no ban. */
async function stored(fail2ban: Fail2ban): Promise<void> {
  const file = (await fail2ban.client('get dbfile')).match(/\/\S+/)?.[0] ?? ''
  const query =
    'import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute("select count(*) from bips").fetchone()[0])'
  await until(async () => (await run('python3', ['-c', query, file])).stdout.trim() === '1')
}

/** Waits until something is true. @throws after 20 s */
async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 20_000; !(await check()); ) {
    if (Date.now() > end) throw new Error(`did not come true: ${check}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
