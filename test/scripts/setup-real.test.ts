import assert from 'node:assert/strict'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { after, before, test } from 'node:test'
import type { Ended } from '../../scripts/lib/run.ts'
import { openSandbox, type Sandbox } from '../lib/sandbox.ts'

// Real accounts, sudo and sshd, in a copy of this machine that nobody else sees.
let box: Sandbox

const LIB = '/usr/local/lib/fail2ban-perimeter'
const AS_USER = ['--reuid=fail2ban', '--regid=fail2ban', '--clear-groups', '--reset-env']
const TREE = "find /etc /var/lib /usr/local -xdev -printf '%p %M %U %G %s %T@\\n' | sort"
const SSH = `-F none -p 2222 -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR
  -o UserKnownHostsFile=/run/known`.split(/\s+/)

before(async () => {
  box = await openSandbox()
  await box.sh(`for n in web1 web2; do ssh-keygen -q -t ed25519 -N '' -f /run/$n; done
    ssh-keygen -q -A; PATH=/usr/sbin:$PATH
    $(command -v sshd) -p 2222 -o ListenAddress=127.0.0.1 -o UsePAM=no -o 'AcceptEnv=*' -o PidFile=none
    for i in 1 2 3 4 5 6 7 8 9; do ssh-keyscan -p 2222 127.0.0.1 | grep -q . && break; sleep 0.1; done`)
})
after(() => box.close())

function setup(...args: string[]): Promise<Ended> {
  return box.run(process.execPath, [resolve('dist/setup.cjs'), ...args])
}

function addOwner(name: string): Promise<Ended> {
  return setup('firewall', '--owner', name, '--key-file', `/run/${name}.pub`, '--from', '127.0.0.1')
}

function ssh(command: string, ...options: string[]): Promise<Ended> {
  return box.run('ssh', [...SSH, '-i', '/run/web1', ...options, 'fail2ban@127.0.0.1', command])
}

function asUser(...command: string[]): Promise<Ended> {
  return box.run('setpriv', [...AS_USER, ...command])
}

test('--dry-run on a machine without us changes not a byte', async () => {
  const untouched = await box.sh(TREE)
  const args = ['--owner', 'web1', '--key-file', '/run/web1.pub', '--dry-run']
  const ended = await setup('firewall', ...args)
  assert.equal(ended.code, 0, ended.stderr)
  assert.match(ended.stdout, /^would create user fail2ban$/m)
  assert.equal(await box.sh(TREE), untouched)
})

test('a step that fails is named, and the next run goes on from there', async () => {
  const path = await box.sh(`mkdir -p /run/fake; printf '#!/bin/sh
echo "useradd: cannot lock /etc/passwd; try again later." >&2; exit 1\n' > /run/fake/useradd
    chmod 755 /run/fake/useradd; printf /run/fake`)
  const args = ['firewall', '--owner', 'web1', '--key-file', '/run/web1.pub']
  const env = { ...process.env, PATH: `${path}:${process.env.PATH}` }
  const failed = await box.run(process.execPath, [resolve('dist/setup.cjs'), ...args], { env })
  assert.equal(failed.code, 75)
  assert.equal(
    failed.stderr,
    'setup: Cannot create user fail2ban: useradd: cannot lock /etc/passwd; try again later. (what was done before stays; run it again)\n',
  )
  const next = await addOwner('web1')
  assert.equal(next.code, 0, next.stderr)
  assert.match(next.stdout, /^created user fail2ban\n/)
})

test('the account has no password, no lock, a root-owned home, and can write nothing of ours', async () => {
  assert.match(
    await box.sh('getent passwd fail2ban'),
    /:\/etc\/fail2ban-perimeter\/ssh:\/bin\/sh$/m,
  )
  assert.match(await box.sh('getent shadow fail2ban'), /^fail2ban:\*:/)
  const { stdout } = await asUser(
    ...['find', '/etc/fail2ban-perimeter', LIB, '/var/lib/fail2ban-perimeter', '-writable'],
  )
  assert.equal(stdout, '')
  const alien = await box.sh(`find /etc/fail2ban-perimeter ${LIB} /var/lib/fail2ban-perimeter \\
    ! -uid 0 -o ! -gid 0 -o -perm /022`)
  assert.equal(alien, '')
})

test('sudo lets the account start one program without arguments, and nothing else', async () => {
  const list = await box.sh('sudo -l -U fail2ban')
  const allowed = list.slice(list.indexOf('may run')).trim().split('\n').slice(1)
  assert.deepEqual(
    allowed.map((line) => line.trim()),
    [`(root) NOPASSWD: ${LIB}/perimeter ""`],
  )
  assert.match(await box.sh('visudo -c'), /sudoers\.d\/fail2ban-perimeter: parsed OK/)
  for (const command of [
    [`${LIB}/perimeter`, '--help'],
    ['NODE_OPTIONS=--require=/run/x', `${LIB}/perimeter`],
    [`${LIB}/banip`],
    ['/usr/bin/id'],
  ]) {
    assert.equal((await asUser('sudo', '-n', ...command)).code, 1, command.join(' '))
  }
})

test('the key leads through the gate to the firewall, from the named address only', async () => {
  const yes = await ssh('true')
  assert.deepEqual([yes.code, yes.stdout], [0, ''], yes.stderr)
  const list = await ssh('listips')
  assert.equal(list.code, 0, list.stderr)
  await setup('firewall', '--owner', 'web1', '--key-file', '/run/web1.pub', '--from', '192.0.2.1')
  assert.equal((await ssh('true')).code, 255)
  // A setup that does not say it leaves it as it is.
  const again = await setup('firewall', '--owner', 'web1', '--key-file', '/run/web1.pub')
  assert.match(again.stdout, /^note: the key of web1 may still come from 192\.0\.2\.1 only/m)
  assert.equal((await ssh('true')).code, 255)
  await setup('firewall', '--owner', 'web1', '--key-file', '/run/web1.pub', '--from', 'any')
  assert.doesNotMatch(await box.sh('cat /etc/fail2ban-perimeter/ssh/.ssh/authorized_keys'), /from=/)
  assert.equal((await ssh('true')).code, 0)
  await addOwner('web1')
  assert.equal((await ssh('true')).code, 0)
})

test('a key that no longer counts has no session any more, nor a connection that stays open', async () => {
  const path = '/run/master'
  await addOwner('web1')
  const shared = [
    '-o',
    'ControlMaster=auto',
    '-o',
    `ControlPath=${path}`,
    '-o',
    'ControlPersist=60',
  ]
  const session = box.start('ssh', [
    ...SSH,
    '-i',
    '/run/web1',
    ...shared,
    'fail2ban@127.0.0.1',
    'firewall',
  ])
  const ended = once(session, 'exit')
  session.stdin.write('list\n')
  await once(session.stdout, 'data')
  const said = await setup('firewall', '--remove-owner', '--owner', 'web1')
  assert.match(said.stdout, /All sessions were ended; other servers connect again/)
  await ended
  assert.equal((await ssh('true', ...shared)).code, 255)
  // The sandbox has no init that buries the dead.
  assert.equal(await box.sh("ps -u fail2ban -o stat=,args= | grep -v '^Z'"), '')
  await addOwner('web1')
  assert.equal((await ssh('true')).code, 0)
})

test('no server can have blocked what --protect names, and nothing can open the perimeter', async () => {
  const settings = '/etc/fail2ban-perimeter/firewall.yaml'
  const { code, stdout } = await setup('firewall', '--protect', '203.0.113.128/25')
  assert.equal(code, 0)
  assert.match(stdout, /^updated \S+firewall.yaml \(never_ban: 203\.0\.113\.128\/25\)$/m)
  const ban = await ssh('banip fail2ban-sshd 203.0.113.130 22 tcp')
  assert.deepEqual([ban.code, ban.stdout], [65, ''])
  assert.match(ban.stderr, /overlaps "203\.0\.113\.128\/25", which is in never_ban/)
  const before = await box.sh(`cat ${settings}`)
  const wide = await setup('firewall', '--protect', '0.0.0.0/0')
  assert.equal(wide.code, 78)
  assert.match(wide.stderr, /never_ban.* is too wide/)
  assert.equal(await box.sh(`cat ${settings}`), before)
})

test('f2b-setup firewall shows the fingerprints before a server asks about them', async () => {
  const { stdout } = await setup('firewall')
  const print = await box.sh('ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub')
  assert.ok(stdout.includes(print.split(' ')[1] ?? 'no fingerprint'), stdout)
  assert.match(stdout, /^ {2}f2b-setup server --owner NAME --firewall \S+$/m)
})

test('the gate starts with two variables, whatever the server sends and sshd accepts', async () => {
  // Shows what a gate is given: its environment as the kernel has it, and its arguments.
  await box.sh(
    `printf '#!/bin/sh\\ntr "\\\\0" "\\\\n" </proc/$$/environ; echo "args $*"\\n' >${LIB}/gate`,
  )
  const hostile = [
    'NODE_OPTIONS=--require=/run/x',
    'ZX_PREFIX=touch$IFS/run/x;',
    'LD_PRELOAD=/run/x.so',
    'BASH_ENV=/run/x',
    'ENV=/run/x',
    'BASH_FUNC_gate%%=() { touch /run/x; }',
    'PATH=/run/fake',
    'IFS=/',
    'SSH_CONNECTION=192.0.2.99 1 192.0.2.1 22',
    'SSH_ORIGINAL_COMMAND=id',
  ]
  const sent = await ssh('one two', '-o', `SetEnv=${hostile.map((s) => `"${s}"`).join(' ')}`)
  assert.equal(sent.code, 0, sent.stderr)
  const [first, second, ...rest] = sent.stdout.trimEnd().split('\n')
  assert.equal(first, 'SSH_ORIGINAL_COMMAND=one two')
  assert.match(second ?? '', /^SSH_CONNECTION=127\.0\.0\.1 \d+ 127\.0\.0\.1 2222$/)
  assert.deepEqual(rest, ['args web1'])
})

test('what the server asks for is data to the last character', async () => {
  for (const command of [
    '"; touch /run/x; echo "',
    '$(touch /run/x) `touch /run/x`',
    "'; touch /run/x; '",
    '\\"; touch /run/x; \\"',
    '\\$(touch /run/x)\\',
    'a\ntouch /run/x\nb',
    '$x`touch /run/x` $((1+1)) $HOME * ~ %s \\n',
    '" /bin/sh -c "touch /run/x',
  ]) {
    const { code, stdout } = await ssh(command)
    assert.equal(code, 0)
    assert.ok(stdout.startsWith(`SSH_ORIGINAL_COMMAND=${command}\nSSH_CONNECTION=`), stdout)
    assert.ok(stdout.endsWith('\nargs web1\n'), stdout)
  }
  assert.match(await box.sh('ls /run/x'), /No such file/)
})

test('no shell, terminal, forwarding or file transfer comes with the key', async () => {
  const terminal = await ssh('true', '-tt')
  assert.deepEqual([terminal.code, terminal.stdout], [255, ''])
  assert.match(terminal.stderr, /PTY allocation request failed/)
  const shell = await box.run('ssh', [...SSH, '-i', '/run/web1', 'fail2ban@127.0.0.1'])
  assert.match(shell.stdout, /^SSH_ORIGINAL_COMMAND=\nSSH_CONNECTION=/)
  const forward = await ssh('true', '-W', '127.0.0.1:2222')
  assert.match(forward.stderr, /stdio forwarding failed/)
  const sftp = await box.run('ssh', [...SSH, '-i', '/run/web1', '-s', 'fail2ban@127.0.0.1', 'sftp'])
  assert.match(sftp.stdout, /^SSH_ORIGINAL_COMMAND=/)
})

test('a second run puts the gate back and then changes nothing', async () => {
  assert.match((await addOwner('web1')).stdout, /^updated \S*\/gate\n\n?\S/)
  const before = await box.sh(TREE)
  assert.match((await addOwner('web1')).stdout, /^nothing to change\n/)
  assert.equal(await box.sh(TREE), before)
})

test('eight servers that are added at the same moment all get in', async () => {
  const names = Array.from({ length: 8 }, (_, i) => `srv${i}`)
  await box.sh(`for n in ${names.join(' ')}; do ssh-keygen -q -t ed25519 -N '' -f /run/$n; done`)
  const all = await Promise.all(names.map(addOwner))
  assert.deepEqual(
    all.map((ended) => ended.code),
    names.map(() => 0),
  )
  const keys = await box.sh('cat /etc/fail2ban-perimeter/ssh/.ssh/authorized_keys')
  for (const name of ['web1', ...names]) assert.ok(keys.includes(`gate ${name}" ssh-`), name)
})

test('root never runs a program that others can change (78)', async () => {
  await box.sh('chown root:staff /usr/local/lib; chmod 2775 /usr/local/lib')
  const lib = await addOwner('web1')
  assert.deepEqual([lib.code, lib.stdout], [78, ''])
  assert.match(
    lib.stderr,
    /"\/usr\/local\/lib" can be written by group 50: chmod g-w \/usr\/local\/lib/,
  )
  await box.sh('chmod 755 /usr/local/lib; chown root:root /usr/local/lib')
  await box.sh(`cp ${process.execPath} /run/node; chown nobody /run/node`)
  const node = await box.run('/run/node', [resolve('dist/setup.cjs'), 'firewall'])
  assert.deepEqual([node.code, node.stdout], [78, ''])
  assert.match(node.stderr, /"\/run\/node" belongs to user 65534: chown root:root \/run\/node/)
})

test('f2b-setup server shows the host keys, asks on a terminal, and takes only a yes', async () => {
  const command = `${process.execPath} ${resolve('dist/setup.cjs')} server --owner web1 --firewall 127.0.0.1:2222`
  const ask = (answer: string): Promise<string> =>
    box.sh(
      `(sleep 2; echo ${answer}; sleep 2) | script -qec '${command}' /dev/null; echo "status $?"`,
    )
  const print = await box.sh('ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub')
  const no = await ask('y')
  assert.match(no, /Nothing was changed: the host key of "127\.0\.0\.1" was not confirmed/)
  assert.match(await box.sh('ls /etc/fail2ban-perimeter/known_hosts'), /No such file/)
  const yes = await ask('yes')
  assert.ok(yes.includes(print.split(' ')[1] ?? 'no fingerprint'), yes)
  assert.match(yes, /status 0/)
  await box.sh('cp /etc/fail2ban-perimeter/id_ed25519.pub /run/web1.pub')
  await addOwner('web1')
  // The line that it tells the operator to test with, as it stands.
  const line = /^ {2}(ssh -i .* true)\r?$/m.exec(yes)?.[1]
  assert.equal(await box.sh(`${line}; echo "status $?"`), 'status 0\n')
})

test('f2b-setup server leaves the document’s own action alone (78)', async () => {
  await box.sh(`mkdir -p /run/package/action.d /run/package/scripts /etc/fail2ban/action.d
    cp -a ${resolve('dist')} ${resolve('firewall-side')} /run/package
    cp -a ${resolve('scripts/units')} /run/package/scripts
    echo '# Part of fail2ban-perimeter' >/run/package/action.d/iptables-remote.conf
    echo '# Fail2Ban configuration file' >/etc/fail2ban/action.d/iptables-remote.conf`)
  const install = [
    '/run/package/dist/setup.cjs',
    'server',
    '--owner',
    'web1',
    '--firewall',
    'local',
  ]
  const ended = await box.run(process.execPath, install)
  assert.deepEqual([ended.code, ended.stdout], [78, ''])
  assert.match(ended.stderr, /iptables-remote\.conf: it is not ours: move it away \(mv /)
  await box.sh('rm /etc/fail2ban/action.d/iptables-remote.conf')
  const next = await box.run(process.execPath, install)
  assert.match(next.stdout, /^created \/etc\/fail2ban\/action\.d\/iptables-remote\.conf$/m)
})

test('--uninstall takes account, sudo, programs and blocks, and leaves settings and ledger', async () => {
  await setup('server', '--uninstall', '--purge')
  await ssh('true')
  const ban = await box.run(`${LIB}/banip`, ['fail2ban-sshd', '192.0.2.66', '22', 'tcp'])
  assert.equal(ban.code, 0, ban.stderr)
  // A server that is connected, and what systemd keeps for an account after its last session.
  await setup('firewall', '--owner', 'web2', '--key-file', '/run/web2.pub')
  const session = box.start('ssh', [...SSH, '-i', '/run/web2', 'fail2ban@127.0.0.1', 'firewall'])
  session.stdin.write('list\n')
  await once(session.stdout, 'data')
  box.start('setpriv', [...AS_USER, 'sleep', '1000'])
  const ended = await setup('firewall', '--uninstall')
  assert.equal(ended.code, 0, ended.stderr)
  assert.doesNotMatch(await box.sh('nft list ruleset; ipset list -n'), /192\.0\.2\.66|f2b|fail2ban/)
  assert.equal(await box.sh('getent passwd fail2ban; getent group fail2ban'), '')
  assert.equal(
    await box.sh(`ls -d ${LIB} /etc/sudoers.d/fail2ban* /etc/cron.d/fail2ban* 2>/dev/null`),
    '',
  )
  assert.equal(await box.sh('ls /var/lib/fail2ban-perimeter/firewall.leases | wc -l'), '1\n')
  assert.match(
    ended.stdout,
    /^left \/etc\/fail2ban-perimeter\/firewall\.yaml \(--purge removes it\)$/m,
  )
  assert.equal((await setup('firewall', '--uninstall', '--purge')).code, 0)
  assert.equal(
    await box.sh('ls -d /var/lib/fail2ban-perimeter /run/fail2ban-perimeter 2>/dev/null'),
    '',
  )
})

test('an account that was somebody else’s is neither taken over nor removed (78)', async () => {
  await box.sh('useradd --create-home --home-dir /var/other fail2ban')
  const ended = await addOwner('web1')
  assert.deepEqual([ended.code, ended.stdout], [78, ''])
  assert.match(
    ended.stderr,
    /user fail2ban: it is not ours: take its sudo rights away and remove it/,
  )
  assert.match(
    (await setup('firewall', '--uninstall')).stdout,
    /^left user fail2ban \(not ours\)$/m,
  )
  assert.match(await box.sh('getent passwd fail2ban'), /\/var\/other/)
})
