import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Ended } from '../../scripts/lib/run.ts'
import type { Seed } from '../lib/private-fail2ban.ts'
import { useServer } from '../lib/server.ts'
import { standInSsh } from '../lib/standin-ssh.ts'
import { waitUntil } from '../lib/wait.ts'

const ssh = standInSsh()
const firewalls = 'firewalls:\n  - host: edge1\n  - host: edge2\n'
const server = useServer(ssh, `never_ban: [198.51.100.7]\n${firewalls}`)
const { state } = server
/** What the only firewall of most tests has: one to stay, one too many, one by hand. */
const HAS = ['203.0.113.1 sshd 0 web1', '203.0.113.2 web 0 web1', '203.0.113.3 - 0 web1']
const banned = (id: string, began = 2_000_000_000, seconds = -1): Seed => {
  return { jail: 'sshd', id, began, seconds }
}

beforeEach(async () => {
  for (const host of ['edge1', 'edge2']) {
    ssh.told(host)
    ssh.answer(host, 'list', HAS.map((line) => `echo ${line}`).join('; '))
  }
  await server.fail2ban.seed([banned('203.0.113.1'), banned('203.0.113.4', 4_000_000_000, 60)])
})

const sync = (...args: string[]): Promise<Ended> => server.run('sync', ...args)

test('f2b-sync --dry-run shows the drift; those without a jail stay', async () => {
  const { code, stdout, stderr } = await sync('edge1', '--dry-run')
  assert.deepEqual([code, stderr], [0, ''])
  assert.deepEqual(stdout.split('\n'), [
    'edge1: added 203.0.113.4 sshd 4000000060 web1',
    'edge1: removed 203.0.113.2 web 0 web1',
    'added 1, extended 0, removed 1, unchanged 2',
    '',
  ])
  const told = [ssh.told('edge1').filter((line) => line !== 'connect'), ssh.told('edge2')]
  assert.deepEqual(told, [['firewall', 'digest', 'list fail2ban--', 'list'], []])
})

test('f2b-sync sends everything to every firewall, with the ports of the jails', async () => {
  const script = 'for i in 1 2 3; do echo ok added 1, unchanged 2; done; echo ffff0123; echo ok'
  for (const host of ['edge1', 'edge2']) ssh.answer(host, 'firewall', script)
  const { code, stdout, stderr } = await sync()
  const counts = 'added 3, extended 0, removed 0, unchanged 6'
  assert.deepEqual([code, stderr], [0, ''])
  assert.deepEqual(stdout.split('\n').sort().slice(1), [`edge1: ${counts}`, `edge2: ${counts}`])
  const told = ssh.told('edge1')
  assert.deepEqual(told.slice(told.lastIndexOf('firewall')), [
    'firewall',
    'sync fail2ban-- - - 1',
    '203.0.113.3 0',
    'sync fail2ban-sshd 22,2222 tcp 2',
    '203.0.113.4 4000000060',
    '203.0.113.1 0',
    'flushrest',
    'generation',
  ])
  assert.equal(readFileSync(`${state}/generation.edge2`, 'utf8'), 'ffff0123\n')
})

test('f2b-sync never bans what is in never_ban, even if Fail2Ban does', async () => {
  await server.fail2ban.seed([banned('198.51.100.7'), banned('203.0.113.1')])
  const { stdout } = await sync('edge1', '--dry-run')
  assert.match(stdout, /^edge1: removed 203.0.113.2 web 0 web1\nadded 0, extended 0, removed 1/)
})

test('f2b-sync touches no firewall while Fail2Ban is down, and says so with 75', async () => {
  await server.fail2ban.stop()
  const { code, stdout, stderr } = await sync()
  assert.deepEqual([code, stdout], [75, ''])
  assert.match(stderr, /^sync: Cannot ask Fail2Ban: it does not run \(no answer at ".*"\)\n$/)
  assert.deepEqual([ssh.told('edge1'), ssh.told('edge2')], [[], []])
})

test('f2b-sync names the firewall that fails, and syncs the other', async () => {
  ssh.answer('edge1', 'list', "echo 'firewall: Cannot lock: busy' >&2; exit 75")
  const { code, stdout, stderr } = await sync('--dry-run')
  assert.deepEqual([code, stderr], [75, 'sync: Cannot sync on "edge1": Cannot lock: busy\n'])
  assert.match(stdout, /^edge2: added 1, extended 0, removed 1, unchanged 2$/m)
})

test('f2b-sync refuses a target that it does not know with 64, and names those that there are', async () => {
  const { code, stderr } = await sync('edge3')
  const list = 'firewall/edge1, firewall/edge2'
  assert.deepEqual(
    [code, stderr],
    [64, `sync: Unknown target "edge3" (one of ${list}): see --help\n`],
  )
})

test('f2b-sync --later returns at once and syncs when Fail2Ban answers, once for all who ask', async () => {
  ssh.answer('edge1', 'list', ':')
  ssh.answer('edge2', 'list', ':')
  const script = 'echo ok added 1; echo ok removed 0; echo ffff0123; echo ok'
  for (const host of ['edge1', 'edge2']) ssh.answer(host, 'firewall', script)
  await server.fail2ban.stop()
  for (const _ of [1, 2, 3]) {
    assert.deepEqual(await sync('--later'), { code: 0, stdout: '', stderr: '' })
  }
  await sleep(3000)
  await server.fail2ban.start()
  const told: string[] = []
  const look = (): boolean => {
    told.push(...ssh.told('edge1'))
    return told.includes('generation')
  }
  await waitUntil('the sync', look, { timeout: 90_000, every: 100 })
  await sleep(3000)
  look()
  assert.deepEqual(
    told.filter((line) => ['digest', 'generation'].includes(line)),
    ['digest', 'generation'],
  )
})
