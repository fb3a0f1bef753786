import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { after, test } from 'node:test'
import { run } from '../../../scripts/lib/run.ts'
import { missingActions } from '../../../scripts/lib/status/jail-actions.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('jail-actions')
const at = (name: string): string => `${folder}/${name}`
const settings = { client: 'fail2ban-client', config_dir: folder, socket: at('sock') }
const call = async (...args: string[]): Promise<string> => {
  const base = ['-c', folder, '-s', at('sock'), '-p', at('pid')]
  const { code, stdout, stderr } = await run('fail2ban-client', [...base, ...args])
  assert.equal(code, 0, stdout + stderr)
  return stdout
}
const jail = (actions: string): void =>
  writeFileSync(
    at('jail.conf'),
    `[sshd]\nenabled = true\nfilter = x\nbackend = polling\nlogpath = ${at('watched')}\n${actions}`,
  )
const found = () => missingActions(settings, (command) => command.includes('f2b-firewall'))
after(() => call('stop').catch(() => ''))

test('a jail that a reload left without its new action is named, and a restart ends it', async () => {
  for (const name of ['action.d', 'filter.d']) mkdirSync(at(name))
  writeFileSync(at('watched'), '')
  writeFileSync(at('filter.d/x.conf'), '[Definition]\nfailregex = ^ failure <ADDR>$\n')
  writeFileSync(at('action.d/ours.conf'), '[Definition]\nactionban = true f2b-firewall <ip>\n')
  writeFileSync(at('action.d/theirs.conf'), '[Definition]\nactionban = true <ip>\n')
  writeFileSync(
    at('fail2ban.conf'),
    `[Definition]\nloglevel = INFO\nlogtarget = ${at('log')}\nsyslogsocket = auto\nsocket = ${at('sock')}
pidfile = ${at('pid')}\ndbfile = None\ndbpurgeage = 1d\ndbmaxmatches = 1\nallowipv6 = auto\n`,
  )
  jail('')
  assert.deepEqual(await found(), [], 'Fail2Ban does not run')
  await call('start')
  assert.deepEqual(await found(), [])
  jail('action = ours\n         theirs\n')
  await call('reload')
  assert.deepEqual(await found(), [
    {
      name: 'Fail2Ban',
      code: 78,
      severity: 'critical',
      text: 'jail "sshd" runs without ours: its bans go nowhere: restart Fail2Ban (a reload is not enough)',
    },
  ])
  await call('restart')
  assert.deepEqual(await found(), [])
})
