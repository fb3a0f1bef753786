import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { after, before, test } from 'node:test'
import type { Ended } from '../../scripts/lib/run.ts'
import { openSandbox, type Sandbox } from '../lib/sandbox.ts'
import { standInSsh } from '../lib/standin-ssh.ts'

// f2b-firewall with two firewalls behind an ssh that is not one, on a machine of its own.
const ssh = standInSsh()
const state = `${ssh.folder}/state`
const file = `${ssh.folder}/config.yaml`
const firewalls = 'firewalls:\n  - host: edge1\n  - host: edge2\n'
writeFileSync(file, `owner: web1\nstate_dir: ${state}\n${firewalls}`)

let box: Sandbox
before(async () => {
  box = await openSandbox()
  for (const host of ['edge1', 'edge2']) {
    ssh.answer(host, 'checkfw', 'echo generation abcd0123; echo leases 0')
  }
})
after(() => box.close())

function firewall(args: string, input = ''): Promise<Ended> {
  const env = { ...process.env, PATH: ssh.path }
  const words = [...args.split(' '), '--config', file]
  return box.run(process.execPath, [resolve('dist/firewall.cjs'), ...words], { env, input })
}

async function ok(args: string, input?: string): Promise<string> {
  const { code, stdout, stderr } = await firewall(args, input)
  assert.deepEqual({ args, code, stderr }, { args, code: 0, stderr: '' })
  return stdout
}

function told(): string[][] {
  return [ssh.told('edge1'), ssh.told('edge2')]
}

test('start connects once to every firewall and learns its generation; stop closes', async () => {
  assert.equal(await ok('start --name sshd'), '')
  assert.deepEqual(told(), [
    ['connect', 'checkfw'],
    ['connect', 'checkfw'],
  ])
  assert.ok(existsSync(`${state}/generation.edge1`))
  await ok('start')
  assert.deepEqual(told(), [['checkfw'], ['checkfw']])
  await ok('stop')
  await ok('stop')
  assert.deepEqual(told(), [['close'], ['close']])
})

test('ban, unban and flush are one silent line to each, with what is not given as -', async () => {
  const table = [
    [
      'ban --ip 203.0.113.7/32 --name sshd --port ssh --protocol tcp --time 4000000000 --bantime 60',
      'ban fail2ban-sshd 203.0.113.7 22 tcp 4000000060',
    ],
    ['ban --ip 2001:DB8::7 --bantime -1', 'ban fail2ban-- 2001:db8::7 - - 0'],
    ['unban --ip 203.0.113.7 --name sshd', 'unban fail2ban-sshd 203.0.113.7'],
    ['flush --name sshd', 'flush fail2ban-sshd'],
    ['flush', 'flush'],
  ] as const
  await ok('start')
  told()
  for (const [args, line] of table) {
    assert.equal(await ok(args), '')
    assert.deepEqual(told(), [[line], [line]])
    const would = await ok(`${args} --dry-run`)
    assert.equal(would, `edge1: ${line}\nedge2: ${line}\n`)
    assert.deepEqual(told(), [[], []])
  }
})

test('list joins what all have, sorted, the longest of each, also as JSON', async () => {
  ssh.answer('edge1', 'list', 'echo 203.0.113.9 sshd 0 web1; echo 203.0.113.7 sshd 5 web1')
  ssh.answer('edge2', 'list', 'echo 203.0.113.7 sshd 4000000000 web1')
  const lines = '203.0.113.7 sshd 4000000000 web1\n203.0.113.9 sshd 0 web1\n'
  assert.equal(await ok('list'), lines)
  const [first = ''] = (await ok('list --json --name sshd')).split('\n')
  const lease = { address: '203.0.113.7', jail: 'sshd', expires: 4000000000, owner: 'web1' }
  assert.deepEqual(JSON.parse(first), lease)
  assert.equal(told()[0]?.at(-1), 'list fail2ban-sshd')
})

test('sync sends a session to each and says what changed where', async () => {
  const unchanged = 'echo ok added 0, extended 0, removed 0, unchanged 1'
  const generation = 'echo abcd0123; echo ok'
  ssh.answer('edge1', 'firewall', `${unchanged}; echo ok removed 1; ${generation}`)
  ssh.answer('edge2', 'firewall', `${unchanged}; echo ok removed 0; ${generation}`)
  const counts = 'added 0, extended 0, removed'
  const out = await ok('sync', '203.0.113.7 sshd 0 web1\n127.0.0.1 sshd 0 web1\n')
  assert.deepEqual(out.split('\n').sort().slice(1), [
    `edge1: ${counts} 1, unchanged 1, refused 1`,
    `edge2: ${counts} 0, unchanged 1, refused 1`,
  ])
  const sync = ['firewall', 'sync fail2ban-sshd - - 1', '203.0.113.7 0', 'flushrest', 'generation']
  assert.deepEqual(told(), [sync, sync])
  const { code, stderr } = await firewall('sync')
  assert.deepEqual([code, told()], [65, [[], []]])
  assert.match(stderr, /^firewall: Cannot sync: standard input is empty/)
})

test('a long sync with one bad line at its end tells no firewall anything', async () => {
  const lines = Array.from({ length: 20_000 }, (_, i) => `198.18.${i >> 8}.${i & 255} sshd 0\n`)
  const { code, stderr } = await firewall('sync', `${lines.join('')}nonsense\n`)
  assert.deepEqual([code, told()], [65, [[], []]])
  assert.match(stderr, /^firewall: Cannot sync: line 20001: /)
})

test('those that fail share one line and the worst code, and the others are served', async () => {
  ssh.answer('edge1', 'ban', "echo 'firewall: max_leases 5 reached' >&2; exit 77")
  assert.deepEqual(await firewall('ban --ip 203.0.113.7 --name sshd'), {
    code: 77,
    stdout: '',
    stderr: 'firewall: Cannot ban "203.0.113.7" on "edge1": max_leases 5 reached\n',
  })
  const line = 'ban fail2ban-sshd 203.0.113.7 - - 0'
  assert.deepEqual(told(), [[line], [line]])
  await ok('stop')
  ssh.refuse('edge2', 'ssh: connect to host edge2 port 22: Connection refused')
  const two = await firewall('ban --ip 203.0.113.7 --name sshd')
  const refused = 'cannot connect: connect to host edge2 port 22: Connection refused'
  assert.equal(two.code, 77)
  assert.equal(
    two.stderr,
    `firewall: Cannot ban "203.0.113.7" on "edge1": max_leases 5 reached; on "edge2": ${refused}\n`,
  )
  assert.equal((await firewall('unban --ip 203.0.113.7')).code, 69)
})

test('check tells with 75 of a firewall that began anew', async () => {
  ssh.answer('edge1', 'checkfw', 'echo generation ffff0123')
  ssh.answer('edge2', 'checkfw', 'echo "restored 3 blocks"; echo generation abcd0123')
  await box.sh(`rm ${ssh.folder}/edge2.refused`)
  const { code, stderr } = await firewall('check')
  const lost = 'lost generation: the firewall began anew, run f2b-sync'
  assert.deepEqual([code, stderr], [75, `firewall: Cannot check on "edge1": ${lost}\n`])
  assert.match((await firewall('check --verbose')).stderr, /^edge2: restored 3 blocks$/m)
})
