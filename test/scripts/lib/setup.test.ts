import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { test } from 'node:test'
import {
  keyLines,
  readFrom,
  readPublicKey,
  withKey,
  withoutKey,
} from '../../../scripts/lib/setup/access.ts'
import { $, command, tried } from '../../../scripts/lib/setup/commands.ts'
import { whyRoot } from '../../../scripts/lib/setup/delivery.ts'
import { mayWrite } from '../../../scripts/lib/setup/fail2ban.ts'
import type { InstallTarget } from '../../../scripts/lib/setup/plan.ts'
import { readFirewalls } from '../../../scripts/lib/setup/server.ts'
import { knowsHost, readHostKeys, troubles, withHostKeys } from '../../../scripts/lib/setup/ssh.ts'
import { checkOnlyRootWrites, shebang } from '../../../scripts/lib/setup/trust.ts'
import { withProtected, withValue } from '../../../scripts/lib/setup/yaml.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('setup')
const template = readFileSync('firewall-side/authorized_keys', 'utf8')

function keyPair(name: string, type = 'ed25519'): { path: string; key: string } {
  const path = `${folder}/${name}`
  execFileSync('ssh-keygen', ['-q', '-t', type, '-N', '', '-C', 'x" $(id)', '-f', path])
  const [kind, bits] = readFileSync(`${path}.pub`, 'utf8').split(' ')
  return { path, key: `${kind} ${bits}` }
}

function written(name: string, text: string): string {
  writeFileSync(`${folder}/${name}`, text)
  return `${folder}/${name}`
}

const one = keyPair('one')
const two = keyPair('two', 'ecdsa')
const fifo = `${folder}/fifo`
execFileSync('sh', ['-c', 'mkfifo "$0"', fifo])
const line = (owner: string, key: string, from: string[] = []) => ({ owner, key, from })

test('readPublicKey() takes one public key and leaves its comment behind', async () => {
  assert.equal(await readPublicKey(`${one.path}.pub`), one.key)
  assert.equal(await readPublicKey(`${two.path}.pub`), two.key)
  assert.equal(await readPublicKey(written('crlf', `${one.key} web1\r\n`)), one.key)
})

test('readPublicKey() refuses everything else (65) and says what it was', async () => {
  const cases: [string, RegExp][] = [
    [one.path, /private key/],
    [`${folder}/none`, /no such file/],
    ['/dev/zero', /not a regular file/],
    [folder, /not a regular file/],
    [fifo, /not a regular file/],
    [written('large', 'x'.repeat(100_000)), /too large/],
    [written('empty', ''), /not a public key/],
    [written('both', `${one.key}\n${two.key}\n`), /has 2 lines/],
    [written('options', `command="id" ${one.key}\n`), /not a public key/],
    [written('cut', `${one.key.slice(0, -8)}\n`), /ssh-keygen does not accept/],
    [
      written('lie', `${one.key.replace('ssh-ed25519', 'ssh-rsa')}\n`),
      /ssh-keygen does not accept/,
    ],
    [written('escape', `${one.key} \u001b[2J\n`), /not a public key/],
    [written('dss', `ssh-dss ${'A'.repeat(80)}\n`), /not a public key/],
  ]
  for (const [path, message] of cases) {
    await assert.rejects(readPublicKey(path), { code: 65, message }, path)
  }
})

test('withKey() adds a line for an owner, and replaces it in its place the next time', () => {
  const first = withKey(undefined, template, line('web1', one.key))
  const second = withKey(first, template, line('web2', two.key, ['192.0.2.10', '2001:db8::/64']))
  assert.match(first, /^# Written by f2b-setup/)
  assert.equal(withKey(second, template, line('web1', one.key)), second)
  const third = withKey(second, template, line('web1', one.key, ['192.0.2.11']))
  assert.deepEqual(keyLines(third), [
    line('web1', one.key, ['192.0.2.11']),
    line('web2', two.key, ['192.0.2.10', '2001:db8::/64']),
  ])
  assert.match(
    third,
    /^restrict,from="192\.0\.2\.11",command="\/usr\/bin\/env -i .*gate web1" ssh-/m,
  )
  assert.deepEqual(keyLines(withoutKey(third, 'web1')), [
    line('web2', two.key, ['192.0.2.10', '2001:db8::/64']),
  ])
})

test('withKey() never takes web1 for web11, keeps lines of others, and one key is one owner', () => {
  const foreign = '# mine\nssh-rsa AAAA somebody'
  const both = withKey(`${foreign}\n`, template, line('web11', one.key))
  assert.equal(withoutKey(both, 'web1'), both)
  assert.equal(withoutKey(both, 'web11'), `${foreign}\n`)
  assert.throws(() => withKey(both, template, line('web1', one.key)), {
    code: 65,
    message: /the key is that of "web11"/,
  })
})

test('readFrom() takes addresses and ranges, and nothing that means everybody', () => {
  assert.deepEqual(readFrom(['192.0.2.77/24', '::ffff:192.0.2.1', '2001:DB8::1', '2001:db8::1']), [
    '192.0.2.0/24',
    '192.0.2.1',
    '2001:db8::1',
  ])
  for (const bad of [
    '*',
    'web1',
    '0.0.0.0/0',
    '::/0',
    '192.0.2.1,*',
    '!192.0.2.1',
    'fe80::1%eth0',
  ]) {
    assert.throws(() => readFrom([bad]), { code: 65 }, bad)
  }
})

test('withValue() changes one value and not one character else', () => {
  const set = (text: string, ...keys: string[]) => withValue(text, keys, 'ipset', 'f')
  const text = '# top\nbackend: auto   # why\nhooks: [ INPUT,FORWARD ]\n'
  assert.equal(set(text, 'backend'), text.replace('auto', 'ipset'))
  assert.equal(set('# only\n', 'backend'), '# only\nbackend: ipset\n')
  assert.throws(() => set('a: [', 'backend'), { code: 78 })
  assert.throws(() => set('{}', 'backend'), { code: 78, message: /by hand/ })
  assert.throws(() => set('backend: [a]\n', 'backend'), { code: 78, message: /by hand/ })
  const nested = 'a: 1\nb:\n  c: # why\n    d: 2 # two\n'
  assert.equal(set(nested, 'b', 'c', 'd'), nested.replace('2 #', 'ipset #'))
  assert.equal(set(nested, 'b', 'c', 'e'), nested.replace('d: 2', 'e: ipset\n    d: 2'))
  assert.equal(set('b: {c: 1}\n', 'b', 'd'), 'b: { c: 1, d: ipset }\n')
})

test('withProtected() adds to never_ban and changes not one character else', () => {
  const add = (text: string, ...more: string[]): string => withProtected(text, more, 'f')
  const rest = '# top\nbackend: auto # why\n'
  assert.equal(add(rest, '192.0.2.7/24'), `${rest}never_ban: ["192.0.2.0/24"]\n`)
  const both = '2001:db8::/48'
  assert.equal(
    add(`never_ban: [] # none\n${rest}`, '192.0.2.1', both),
    `never_ban: ["192.0.2.1", "${both}"] # none\n${rest}`,
  )
  const flow = `never_ban: ["192.0.2.1"]\n${rest}`
  assert.equal(add(flow, '192.0.2.1'), flow)
  assert.equal(add(flow, both), flow.replace(']', `, "${both}"]`))
  const block = `never_ban:\n  - 192.0.2.1 # office\n  - 192.0.2.2\n${rest}`
  assert.equal(
    add(block, '192.0.2.1', both),
    block.replace('192.0.2.2\n', `192.0.2.2\n  - "${both}"\n`),
  )
  assert.throws(() => add('never_ban: {}\n', both), { code: 78, message: /by hand/ })
  assert.throws(() => add(rest, 'web1'), { code: 65 })
})

test('readFirewalls() reads [user@]host[:port]', () => {
  assert.deepEqual(
    readFirewalls(['edge1', 'me@edge2:2222', '[2001:db8::1]:22', 'me@2001:db8::2', 'local']),
    [
      { host: 'edge1', user: 'fail2ban' },
      { host: 'edge2', user: 'me', port: 2222 },
      { host: '2001:db8::1', user: 'fail2ban', port: 22 },
      { host: '2001:db8::2', user: 'me' },
      { host: 'local' },
    ],
  )
  const bad = ['', '-oProxyCommand=id', 'a b', 'a:b', 'edge1:0', 'edge1:99999', '@a', 'a@', 'a@b@c']
  for (const name of bad) assert.throws(() => readFirewalls([name]), { code: 65 }, name)
  assert.throws(() => readFirewalls(['a', 'a']), { code: 65, message: /twice/ })
})

test('readHostKeys() takes a bare key, or the entry of a known_hosts, also a hashed one', async () => {
  const edge = { host: 'edge1', port: 2222 }
  assert.deepEqual(await readHostKeys(`${one.path}.pub`, edge, true), [one.key])
  await assert.rejects(readHostKeys(`${one.path}.pub`, edge, false), { code: 65 })
  const known = written(
    'known',
    `other ${one.key}\n@revoked edge1 ${one.key}\n[edge1]:2222 ${two.key}\n`,
  )
  assert.deepEqual(await readHostKeys(known, edge, false), [two.key])
  execFileSync('ssh-keygen', ['-q', '-H', '-f', known], { stdio: 'ignore' })
  assert.deepEqual(await readHostKeys(known, edge, false), [two.key])
  await assert.rejects(readHostKeys(known, { host: 'edge3' }, true), { code: 65 })
})

test('withHostKeys() makes the keys of one firewall exactly these', () => {
  const first = withHostKeys('', 'edge1', [one.key])
  const both = withHostKeys(first, 'edge11', [two.key])
  assert.equal(withHostKeys(both, 'edge1', [one.key]), both)
  assert.equal(withHostKeys(both, 'edge1', [two.key]), `edge11 ${two.key}\nedge1 ${two.key}\n`)
  assert.ok(knowsHost(both, 'edge11') && !knowsHost(both, 'edge'))
})

test('checkOnlyRootWrites() finds whoever else could change a program, also from above', () => {
  const path = `${folder}/bin/lib/program`
  mkdirSync(`${folder}/bin/lib`, { recursive: true })
  assert.doesNotThrow(() => checkOnlyRootWrites(path)) // not there yet, and /tmp is sticky
  writeFileSync(path, '')
  const cases: [() => void, RegExp][] = [
    [() => chmodSync(path, 0o666), /everybody: chmod o-w/],
    [() => chownSync(path, 65534, 0), /belongs to user 65534: chown/],
    [() => chmodSync(`${folder}/bin`, 0o777), /bin" can be written by everybody/],
    [() => chownSync(`${folder}/bin`, 0, 50), /group 50: chmod g-w/],
  ]
  for (const [spoil, message] of cases) {
    chownSync(`${folder}/bin`, 0, 0)
    chmodSync(`${folder}/bin`, message.source.includes('group') ? 0o775 : 0o755)
    chownSync(path, 0, 0)
    chmodSync(path, 0o755)
    spoil()
    assert.throws(() => checkOnlyRootWrites(path), { code: 78, message })
  }
})

test('shebang() refuses what the kernel would cut', () => {
  assert.equal(shebang('/usr/bin/node'), '#!/usr/bin/node')
  assert.throws(() => shebang('/opt/my node/bin/node'), { code: 78 })
  assert.throws(() => shebang(`/${'n'.repeat(251)}`), { code: 78 })
})

test('troubles() reads patterns, and asks where the server comes from', () => {
  const from = (dump: string, address?: string) => troubles(dump, address).length
  for (const pattern of ['fail2ban@198.51.100.*', 'fail2ban@198.51.100.0/24', 'f?il2*']) {
    assert.equal(from(`allowusers admin\nallowusers ${pattern}\n`, '198.51.100.7'), 0, pattern)
  }
  for (const pattern of ['fail2ban@198.51.100.*', 'fail2ban@198.51.100.0/24', 'fail2ban2']) {
    assert.equal(from(`allowusers ${pattern}\n`, '192.0.2.7'), 1, pattern)
  }
  assert.equal(from('allowusers fail2ban@198.51.100.*\n'), 0, 'who knows')
  assert.equal(from('denyusers fail2ban@198.51.100.*\n', '198.51.100.7'), 1)
  const methods = (list: string) => from(`authenticationmethods ${list}\n`)
  assert.deepEqual(['any', 'publickey', 'password publickey'].map(methods), [0, 0, 0])
  assert.deepEqual(['publickey,keyboard-interactive', 'password'].map(methods), [1, 1])
})

test('troubles() finds what keeps the account out in the output of sshd -T', () => {
  assert.deepEqual(troubles('authorizedkeysfile .ssh/authorized_keys\nforcecommand none\n'), [])
  assert.deepEqual(troubles('allowusers admin\nallowusers fail2ban\n'), [])
  assert.equal(
    troubles(
      'allowusers admin\nallowgroups ssh\ndenyusers fail2ban\npubkeyauthentication no\n' +
        'authorizedkeysfile /etc/ssh/keys/%u\nforcecommand internal-sftp\n',
    ).length,
    6,
  )
})

test('whoever delivers to a FortiGate stays root, wherever its list is', async () => {
  const target = { prefix: '' } as InstallTarget
  const fortigate = { list_file: '/var/lib/fail2ban-perimeter/fortigate/list.txt' }
  const how = { stateDir: '/var/lib/fail2ban-perimeter', systemd: true }
  assert.match((await whyRoot(target, { fortigate }, how)) ?? '', /the list of fortigate/)
})

test('mayWrite() knows what hardened units let Fail2Ban write', () => {
  const QUEUE = '/var/lib/fail2ban-perimeter/queue'
  const may: [string, boolean][] = [
    ['ProtectSystem=no\nReadOnlyPaths=\nReadWritePaths=\nInaccessiblePaths=', true],
    ['ProtectSystem=full\nReadWritePaths=', true],
    ['ProtectSystem=strict\nReadWritePaths=', false],
    // ArchWiki, "Service hardening".
    ['ReadOnlyPaths=/\nReadWritePaths=/var/run/fail2ban /var/lib/fail2ban /var/log', false],
    ['ProtectSystem=strict\nReadWritePaths=-/var/run/fail2ban -/var/lib/fail2ban', false],
    [`ProtectSystem=strict\nReadWritePaths=-/var/lib/fail2ban ${QUEUE}`, true],
    [`ReadOnlyPaths=/\nReadWritePaths=-/var/lib/fail2ban-perimeter/`, true],
    ['ProtectSystem=strict\nReadWritePaths=/var', true],
    ['ReadOnlyPaths=/var/lib\nReadWritePaths=/var', false],
    [`InaccessiblePaths=-/var/lib/fail2ban-perimeter\nReadWritePaths=/var/lib`, false],
    ['ProtectSystem=strict\nReadWritePaths=/var/lib/fail2ban-perimeter/q', false],
  ]
  for (const [shown, expected] of may) assert.equal(mayWrite(shown, QUEUE), expected, shown)
})

test('a value is one word of a command, whatever is in it and whatever ZX_* say', async () => {
  const hostile = ['it\'s $(touch x) `id` "\\', '', '* ~ $HOME', '-n', 'a\nb', ';&|<>#!']
  const { stdout } = await tried`printf ${'[%s]'} ${hostile} ${'last'}`
  assert.equal(stdout, [...hostile, 'last'].map((word) => `[${word}]`).join(''))
  const script = `import(${JSON.stringify(resolve('scripts/lib/setup/commands.ts'))})
    .then(({ $ }) => $\`pwd\`).then((said) => process.stdout.write(said))`
  const env = { ZX_SHELL: '/bin/false', ZX_PREFIX: 'echo evil;', ZX_POSTFIX: '; echo evil' }
  const said = execFileSync(process.execPath, ['--import', 'tsx', '-e', script], {
    env: { ...process.env, ...env, ZX_CWD: '/', ZX_TIMEOUT: '1ms', ZX_VERBOSE: 'true' },
    encoding: 'utf8',
  })
  assert.equal(said, `${process.cwd()}\n`)
})

test('a command says what went wrong, and reads what it is given or not', async () => {
  await assert.rejects($`nosuch-program a`, { code: 75, message: 'nosuch-program: not found' })
  await assert.rejects($`false`, { code: 75, message: 'false: exit status 1' })
  const long = 'secret\n'.repeat(20_000)
  assert.equal((await command({ input: long })`wc -c`).stdout.trim(), String(long.length))
  assert.equal((await command({ input: long })`true`).code, 0)
  assert.equal((await tried`cat`).stdout, '')
})
