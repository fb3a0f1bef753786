import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { after, before, test } from 'node:test'
import { firewallTargets } from '../../../../scripts/lib/firewall/target.ts'
import { type Lease, parseLease } from '../../../../scripts/lib/lease.ts'
import type { Config } from '../../../../scripts/lib/settings/schema.ts'
import type { Call, Target } from '../../../../scripts/lib/target.ts'
import { makeCall } from '../../../lib/call.ts'
import { standInSsh } from '../../../lib/standin-ssh.ts'

const ssh = standInSsh()
const host = `edge-${process.pid}`
const state = `${ssh.folder}/state`
const config = { owner: 'web1', state_dir: state, firewalls: [{ host }] } as unknown as Config
const usual = process.env.PATH

before(() => {
  process.env.PATH = ssh.path
  mkdirSync(state)
})
after(() => {
  process.env.PATH = usual
  const asRoot = process.getuid?.() === 0
  const folder = asRoot ? '/run/fail2ban-perimeter/ssh' : `${homedir()}/.fail2ban-perimeter`
  for (const name of readdirSync(folder).filter((file) => file.includes(host))) {
    rmSync(`${folder}/${name}`)
  }
})

function target(): Target {
  const [only] = firewallTargets({ config, path: 'config.yaml', warnings: [] })
  assert.ok(only)
  return only
}

function callOf(more: Partial<Call> = {}): ReturnType<typeof makeCall> {
  return makeCall({ config, signal: AbortSignal.timeout(100_000), ...more })
}

function leases(...lines: string[]): Lease[] {
  return lines.map((line) => parseLease(line, 'web1'))
}

test('a configuration without a firewall is refused with 78', () => {
  const empty = { config: { ...config, firewalls: [] }, path: '/x/config.yaml', warnings: [] }
  assert.throws(() => firewallTargets(empty), { code: 78, message: /^\/x\/config\.yaml: / })
})

test('a sync names the ports of each jail, and frees those that are no longer there', async () => {
  const counts = 'ok added 1, extended 2, removed 3, unchanged 4, refused 5, constructor 6'
  const rest = 'echo ok removed 7; echo abcd0123; echo ok'
  ssh.answer(host, 'firewall', `echo ${counts}; echo ${counts}; ${rest}`)
  const namings = new Map([['sshd', { ports: '22,2222', protocol: 'tcp' }]])
  const wanted = leases('203.0.113.7 sshd 0', '203.0.113.8 sshd 5', '203.0.113.7 - 0')
  const synced = await target().sync(callOf({ namings }), wanted)
  assert.deepEqual(synced, { added: 2, extended: 4, removed: 13, unchanged: 8, refused: 10 })
  assert.deepEqual(ssh.told(host), [
    'connect',
    'firewall',
    'sync fail2ban-sshd 22,2222 tcp 2',
    '203.0.113.7 0',
    '203.0.113.8 5',
    'sync fail2ban-- - - 1',
    '203.0.113.7 0',
    'flushrest',
    'generation',
  ])
})

test('a sync of nothing says that this is everything, unless it is about one jail', async () => {
  ssh.answer(host, 'firewall', 'echo ok; echo ffff0123; echo ok')
  await target().sync(callOf(), [])
  await target().sync(callOf({ jail: 'sshd' }), [])
  const everything = ['firewall', 'flushrest', 'generation']
  const one = ['firewall', 'sync fail2ban-sshd - - 0', 'generation']
  assert.deepEqual(ssh.told(host), [...everything, ...one])
})

test('a long sync is sent whole, and tells how far it is on its way', async () => {
  ssh.told(host)
  ssh.answer(host, 'firewall', 'echo ok added 20000; echo ok; echo ffff0123; echo ok')
  const ips = Array.from({ length: 20_000 }, (_, i) => `198.18.${i >> 8}.${i & 255}`)
  const shares: number[] = []
  const call = callOf({ progress: (done, total) => void shares.push(done / total) })
  await target().sync(call, leases(...ips.map((ip) => `${ip} sshd 0`)))
  assert.equal(ssh.told(host).length, ips.length + 4)
  const inOrder = shares.toSorted((a, b) => a - b)
  assert.deepEqual([shares, shares.at(-1)], [inOrder, 1])
})

test('check knows the generation that the last sync of everything filled', async () => {
  ssh.answer(host, 'checkfw', 'echo generation ffff0123; echo leases 0')
  await target().check(callOf())
  writeFileSync(`${state}/generation.${host}`, 'abcd0123\n')
  await assert.rejects(target().check(callOf()), { code: 75, message: /^lost generation: / })
  await target().start(callOf())
  await assert.rejects(target().check(callOf()), { code: 75 }, 'start forgives nothing')
})

test('a dry sync shows what is missing, has another end, or is too much, and changes nothing', async () => {
  const lines = ['203.0.113.1 sshd 0', '203.0.113.2 sshd 4000000000', '203.0.113.3 sshd 0']
  const echo = lines.map((line) => `echo ${line} web1`).join('; ')
  ssh.answer(host, 'list', echo)
  ssh.told(host)
  const call = callOf({ dryRun: true })
  const wanted = leases(lines[0] ?? '', '203.0.113.2 sshd 0', '203.0.113.1 web 0')
  const counts = { added: 1, extended: 1, removed: 1, unchanged: 1 }
  assert.deepEqual(await target().sync(call, wanted), counts)
  assert.deepEqual(call.shown, [
    `${host}: extended 203.0.113.2 sshd 0 web1`,
    `${host}: added 203.0.113.1 web 0 web1`,
    `${host}: removed 203.0.113.3 sshd 0 web1`,
  ])
  assert.deepEqual(ssh.told(host), ['list'])
})

test('what a firewall refuses in a session, or does not answer, fails the sync', async () => {
  const fails = async (script: string, code: number, message: RegExp): Promise<void> => {
    ssh.answer(host, 'firewall', script)
    const sync = target().sync(callOf(), leases('203.0.113.7 sshd 0'))
    await assert.rejects(sync, { code, message }, script)
  }
  await fails('echo error 77 max_leases 1 reached; echo abcd0123; echo ok', 77, /^max_leases 1 /)
  await fails('echo error 99 so what', 76, /^error 99: so what$/)
  await fails('echo ok added 1', 76, /^1 of 3 answers came$/)
  await fails("echo 'firewall: not root' >&2; exit 77", 77, /^not root$/)
  await fails('echo sh: no gate >&2; exit 127', 76, /failed with 127: sh: no gate$/)
})

const installed = existsSync('/usr/local/lib/fail2ban-perimeter/perimeter')
test('`local` without a firewall side says what to do', { skip: installed }, async () => {
  const local = { ...config, firewalls: [{ host: 'local' }] } as Config
  const [here] = firewallTargets({ config: local, path: '', warnings: [] })
  const message = 'no firewall side on this machine: run f2b-setup firewall'
  await assert.rejects(async () => here?.list(callOf()), { code: 78, message })
})
