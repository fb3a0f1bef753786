import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { PROJECT } from './lib/lab.ts'
import type { Machine } from './lib/machine.ts'
import { addressOf, createPerimeter, type Perimeter } from './lib/perimeter.ts'
import type { Output } from './lib/process.ts'
import { addHost, createKey, startSshd } from './lib/ssh.ts'

// A server that has fallen into the wrong hands: it has its key, and tries everything with it.

const LIB = '/usr/local/lib/fail2ban-perimeter'
const LEDGER = '/var/lib/fail2ban-perimeter/firewall.leases'
const VICTIM = '203.0.113.51'

/** What is hidden in every command: a file and a process that must never be. */
const CANARY = 'touch /tmp/canary; sleep 31337'

type Case = readonly [command: string, code: number]

const WORDS: Case[] = [
  `; ${CANARY}`,
  `$(${CANARY})`,
  `\`${CANARY}\``,
  `true; ${CANARY}`,
  `true && ${CANARY}`,
  `true | sh -c "${CANARY}"`,
  `true\n${CANARY}`,
  `listips\n${CANARY}`,
  `firewall\n${CANARY}`,
  `'; ${CANARY}; '`,
  `"; ${CANARY}; "`,
  `\\"; ${CANARY}; \\"`,
  `\${IFS}${CANARY}`,
  'true\r',
  'true\t',
  'listips\tfail2ban-sshd',
  'listips *',
  'listips ~root',
  'listips fail2ban-{a,b}',
  'listips fail2ban-sshd > /tmp/canary',
  'listips fail2ban-sshd < /etc/shadow',
  'listips fail2ban-sshd & sleep 31337',
  'banip fail2ban-sshd $(id) 22 tcp',
  'banip fail2ban-$(id) 203.0.113.60 22 tcp',
  'banip fail2ban-sshd 203.0.113.60 22;id tcp',
  'banip fail2ban-sshd 203.0.113.60 22 tcp #x',
  'banip fail2ban-sshd ２０３.0.113.60 22 tcp',
  'banip fail2ban-sshd ٢٠٣.0.113.60 22 tcp',
  'listips fail2ban-ｓｓｈｄ',
  'NODE_OPTIONS=--require=/tmp/x listips',
  'listips --config=/x',
  'env -i listips%00',
  'banip fail2ban-sshd 203.0.113.60%eth0 22 tcp',
  'é',
  '\u202e',
  'checkfw \u0007',
  'checkfw \u001b[2J',
  '%s%s%n',
  '!!',
  '^a^b',
].map((command): Case => [command, 65])

const UNKNOWN: Case[] = [
  'id',
  'sh',
  '/bin/sh',
  'sh -c id',
  'sftp-server',
  '/usr/lib/openssh/sftp-server',
  'scp -t /tmp/canary',
  'scp -f /etc/shadow',
  'rsync --server . /tmp',
  'git-upload-pack /',
  'sudo nft flush ruleset',
  'sudo -n /usr/local/lib/fail2ban-perimeter/perimeter',
  'nft flush ruleset',
  'iptables -F',
  '-oProxyCommand',
  '--help',
  '--version',
  '--owner web2',
  '-c id',
  'true x',
  'TRUE',
  ' true',
  ' listips',
  'true/../sh',
  '../../../bin/sh',
  'ban fail2ban-sshd 203.0.113.60 22 tcp',
  'unban fail2ban-sshd 203.0.113.51',
  'flush',
  'sync fail2ban-sshd 22 tcp 0',
  'owner web2',
  'restorefw',
  'restorefw --remove',
  'sweepips',
  'constructor',
  '__proto__',
  'firewall x',
  'checkfw x',
  'banip',
  'banip ',
  'banip fail2ban-sshd',
  'banip fail2ban-sshd 203.0.113.60',
  'banip fail2ban-sshd 203.0.113.60 22',
  'banip fail2ban-sshd 203.0.113.60 22 tcp 0 web2',
  'banip fail2ban-sshd 203.0.113.60 22 tcp 0 --owner web2',
  'unbanip fail2ban-sshd 203.0.113.51 web2',
  'unbanip --owner web2 fail2ban-sshd 203.0.113.51',
  'listips fail2ban-sshd web2',
  'listips --owner web2',
  'fluships fail2ban-sshd web2',
  'fluships --owner web2',
].map((command): Case => [command, 64])

const CHAINS = ['INPUT', 'FORWARD', 'fail2ban-', 'fail2ban', 'f2b-sshd', '-F', '--help', 'web2']
  .concat(['../fail2ban-sshd', 'fail2ban-a/b', 'fail2ban-a,b', `fail2ban-${'x'.repeat(65)}`])
  .flatMap((chain) => [`banip ${chain} 203.0.113.60 22 tcp`, `fluships ${chain}`])

const ADDRESSES = ['0.0.0.0', '::', '0.0.0.0/0', '::/0', '10.0.0.0/8', '2001::/16', '01.2.3.4']
  .concat(['1.2.3', '1.2.3.4.5', '1.2.3.256', '0x7f.1', '2130706433', '1e9', '-1', '--help'])
  .concat(['localhost', 'web2', '1.2.3.4/33', '1.2.3.4/-1', '1.2.3.4/', '1.2.3.4:22', ':::'])
  .concat(['203.0.113.0/23', '127.0.0.1', '::1', '::ffff:127.0.0.1', 'fe80::1', '224.0.0.1'])
  .concat(['255.255.255.255', 'constructor', '1.2.3.4,203.0.113.9'])
  // The firewall, its gateway, the caller, and where the other owner's key may come from.
  .concat(['203.0.113.1', '198.51.100.1', '192.0.2.1', '2001:db8:a::1', '203.0.113.254'])
  .concat(['198.51.100.11', '198.51.100.12', '198.51.100.0/24', '::ffff:198.51.100.12'])
  .map((address) => `banip fail2ban-sshd ${address} 22 tcp`)

const VALUES = ['constructor tcp', 'toString tcp', '65536 tcp', '-1 tcp', '22:21 tcp', '1:2:3 tcp']
  .concat(['nosuch tcp', '1e1 tcp', '22 -j', '22 constructor', '22 tcp;', '22 ALL6'])
  .concat(['22 tcp NaN', '22 tcp -1', '22 tcp 1e9', '22 tcp 01', '22 tcp 9999999999999'])
  .concat(['22 tcp Infinity', '22 tcp web2', `${'22,'.repeat(40)}x tcp`])
  .map((rest) => `banip fail2ban-sshd 203.0.113.60 ${rest}`)

const BAD: Case[] = [
  ...[...CHAINS, ...ADDRESSES, ...VALUES].map((command): Case => [command, 65]),
  [`listips ${'x'.repeat(600)}`, 65],
  [`listips ${'x '.repeat(50_000)}`, 65],
]

/** Success, and nothing happens: not banned, not ours, already over. */
const IDLE: Case[] = [
  `unbanip fail2ban-sshd ${VICTIM}`,
  'unbanip fail2ban-sshd 0.0.0.0/0',
  'unbanip fail2ban-sshd ::/0',
  'unbanip fail2ban-sshd 203.0.113.0/24',
  'unbanip fail2ban-other 10.0.0.0/8',
  'fluships fail2ban-other',
  'banip fail2ban-over 203.0.113.60 22 tcp 1',
  'listips fail2ban-web2only',
  'true',
].map((command): Case => [command, 0])

describe('a hostile server', () => {
  let lab: Perimeter
  let edge: Machine
  let web1: Machine
  let web2: Machine
  let before_: string

  before(async () => {
    lab = await createPerimeter({ servers: 2 })
    edge = lab.firewall
    web1 = lab.server
    web2 = lab.servers[1] ?? lab.server
    const sshd = await startSshd(edge, { config: ['AcceptEnv *', 'MaxSessions 40'] })
    for (const server of [web1, web2]) await install(edge, server, sshd.hostKey)
    for (const [server, address, jail] of [
      [web1, '203.0.113.50', 'sshd'],
      [web2, VICTIM, 'sshd'],
      [web2, '203.0.113.52', 'web2only'],
    ] as const) {
      await server.run(['ssh', 'edge1', `banip fail2ban-${jail} ${address} 22 tcp`])
    }
    await Promise.all([ssh(web1, 'checkfw'), ssh(web2, 'checkfw')])
    before_ = await state(edge)
  })
  after(() => lab.close())

  /** Nothing executed, nothing changed. */
  async function assertUntouched(): Promise<void> {
    const [now, was] = [(await state(edge)).split('\n'), before_.split('\n')]
    const changed = [...was.filter((o) => !now.includes(o)), ...now.filter((o) => !was.includes(o))]
    assert.deepEqual(changed, [])
    assert.equal(await edge.sh('pgrep -f "[s]leep 31337" || :'), '')
  }

  for (const [name, cases] of Object.entries({ WORDS, UNKNOWN, BAD, IDLE })) {
    test(`${cases.length} commands: ${name}`, async () => {
      await eachOf(cases, async ([command, code]) => {
        const ended = await ssh(web1, command)
        const shown = JSON.stringify(command.slice(0, 100))
        assert.equal(ended.code, code, `${shown}: ${ended.stderr}`)
        assert.equal(ended.stdout, '', shown)
        // One line, printable.
        assert.match(ended.stderr, code === 0 ? /^$/ : /^firewall: [ -~]+\n$/, shown)
      })
      await assertUntouched()
    })
  }

  test('commands that no argument list holds run nothing', async () => {
    for (const size of [130_000, 200_000]) {
      const { code } = await ssh(web1, `true ${'x'.repeat(size - 5)}`.slice(0, 131_000))
      assert.notEqual(code, 0)
    }
    await assertUntouched()
  })

  test('lines of a session are refused one by one, in order', async () => {
    const lines: [string, RegExp][] = [
      ...[`; ${CANARY}`, '`id`', 'banip x', 'owner web2', 'constructor', '__proto__ a b'].map(
        (line): [string, RegExp] => [line, /^error 64 /],
      ),
      ...['ban\0', 'ban\r', '\x1b[2J', 'ban \xff', 'x'.repeat(600), 'ban INPUT 1.2.3.4 22 tcp']
        .concat(['ban fail2ban-sshd 1.2.3.4 constructor tcp', 'ban fail2ban-sshd :: 22 tcp'])
        .concat(['sync fail2ban-sshd 22 tcp -1', 'sync fail2ban-sshd 22 tcp NaN'])
        .concat(['sync fail2ban-sshd 22 tcp 1e9', 'sync fail2ban-sshd 22 tcp 9999999999'])
        .concat(['sync INPUT 22 tcp 0', 'sync fail2ban-sshd constructor tcp 0'])
        .concat(['sync fail2ban-sshd 22 tcp 1\n1.2.3.4 0 web2'])
        .concat(['sync fail2ban-sshd 22 tcp 2\n203.0.113.50 0\n; id'])
        .concat([`ban fail2ban-sshd ${addressOf('web2', 'mgmt')} 22 tcp`])
        .map((line): [string, RegExp] => [line, /^error 65 /]),
      ['list fail2ban-web2only', /^ok$/],
      [`unban fail2ban-web2only 203.0.113.52`, /^ok$/],
      ['flush fail2ban-web2only', /^ok$/],
    ]
    const input = lines.map(([line]) => `${line}\n`).join('')
    const { code, stdout } = await ssh(web1, 'firewall', { input })
    const answers = stdout.trimEnd().split('\n')
    assert.equal(code, 0)
    assert.equal(answers.length, lines.length, stdout)
    for (const [i, [line, answer]] of lines.entries()) assert.match(answers[i] ?? '', answer, line)
    await assertUntouched()
  })

  test('half of a sync changes nothing, also when it announces a billion', async () => {
    for (const count of ['2', '999999999']) {
      const input = `sync fail2ban-sshd 22 tcp ${count}\n203.0.113.77 0\n`
      const { stdout } = await ssh(web1, 'firewall', { input })
      assert.equal(stdout, '')
    }
    const cut = await web1.spawn(['ssh', 'edge1', 'firewall'])
    cut.stdin.write('sync fail2ban-sshd 22 tcp 3\n203.0.113.77 0\n203.0.113.78')
    await cut.kill('SIGKILL')
    await assertUntouched()
  })

  test('50 MB of garbage end, or are read past, in little memory', async () => {
    const streams: [source: string, word: string, code: number][] = [
      ['head -c 50000000 /dev/zero | tr "\\0" x', 'firewall', 0],
      ['yes x | head -c 50000000', 'firewall', 65],
      ['head -c 50000000 /dev/urandom', 'firewall', 65],
      ['head -c 50000000 /dev/zero', 'true', 0],
      ['yes listips | head -c 50000000', 'listips fail2ban-web2only', 0],
      [
        'echo sync fail2ban-sshd 22 tcp 999999999; yes 203.0.113.77 0 | head -c 50000000',
        'firewall',
        0,
      ],
    ]
    for (const [source, word, code] of streams) {
      const watch = watchMemory(edge)
      const script = `(${source}) 2>/dev/null | ssh edge1 ${word} | tail -c 1000`
      const run = await web1.exec(['bash', '-o', 'pipefail', '-c', script])
      const peak = await watch()
      // Whoever is not read to the end is killed by SIGPIPE (141) before the status of ssh counts.
      assert.ok([code, 141].includes(run.code), `${source}: ${run.code} ${run.stderr}`)
      if (code !== 0) assert.match(run.stderr, /^firewall: Cannot read this session: .*\n$/)
      assert.ok(peak < 200_000, `${source}: ${peak} kB`)
    }
    await assertUntouched()
  })

  test('nothing of the environment arrives', async () => {
    const set = ['NODE_OPTIONS=--require=/tmp/x', 'ZX_PREFIX=touch$IFS/tmp/canary;', 'ZX_SHELL=/x']
      .concat(['BASH_ENV=/tmp/x', 'ENV=/tmp/x', 'PATH=/tmp', 'IFS=/'])
      .concat(['SSH_ORIGINAL_COMMAND=id', 'SSH_CONNECTION=203.0.113.9 1 2 3', 'SUDO_UID=0'])
      .concat(['LC_ALL=tr_TR.UTF-8', 'LANG=xx', 'TZ=:/etc/shadow', 'HOME=/tmp', 'PWD=/tmp'])
    const options = ['-S', 'none', '-o', `SetEnv=${set.map((pair) => `"${pair}"`).join(' ')}`]
    const ended = await ssh(web1, 'banip INPUT 203.0.113.60 22 tcp', { options })
    assert.equal(ended.code, 65, ended.stderr)
    assert.match(ended.stderr, /^firewall: Cannot use chain "INPUT"[ -~]+\n$/)
    const own = await ssh(web1, `banip fail2ban-sshd ${addressOf('web1', 'mgmt')} 22 tcp`, {
      options,
    })
    assert.match(own.stderr, /overlaps/)
    await assertUntouched()
  })

  test('no other door than the gate', async () => {
    const doors: [options: string[], command: string, refused: RegExp][] = [
      [['-tt'], 'true', /PTY allocation request failed/],
      [['-W', '127.0.0.1:22'], '', /stdio forwarding failed/],
      [['-s'], 'sftp', /^/], // sshd drops what a subsystem says on its standard error
      [['-X'], 'id', /Unknown command/],
      [['-A'], 'id', /Unknown command/],
      [[], '', /No command/],
      [['-R', '7777:127.0.0.1:22', '-o', 'ExitOnForwardFailure=yes'], 'true', /forwarding failed/],
    ]
    for (const [options, command, refused] of doors) {
      const ended = await ssh(web1, command, { options: ['-S', 'none', ...options] })
      assert.notEqual(ended.code, 0, options.join(' '))
      assert.match(ended.stderr, refused)
    }
    const local = ['-S', 'none', '-L', '7777:127.0.0.1:22', '-N']
    const idle = await web1.spawn(['ssh', ...local, 'edge1'])
    const through = 'until bash -c "exec 3<>/dev/tcp/127.0.0.1/7777 && timeout 1 head -c1 <&3"'
    const got = await web1.sh(`${through} 2>/dev/null; do sleep 0.05; done`)
    assert.equal(got, '')
    await idle.kill()
    await web1.writeFile('/tmp/canary', 'x')
    for (const copy of [['scp'], ['scp', '-O']]) {
      const ended = await web1.exec([...copy, '/tmp/canary', 'edge1:/tmp/canary'])
      assert.notEqual(ended.code, 0)
    }
    await assertUntouched()
  })

  test('silent, deaf and flooding sessions hold nobody up', async () => {
    const silent = await web1.spawn(['ssh', 'edge1', 'firewall'])
    silent.stdin.write('sync fail2ban-sshd 22 tcp 3\n203.0.113.77 0\n')
    // Asks for much, and never reads it: the master takes no more at some point.
    const deaf = await web1.spawn(['sh', '-c', 'yes list | ssh edge1 firewall | sleep 60'])
    const busy = await web1.spawn([
      'sh',
      '-c',
      'yes flush fail2ban-x | ssh edge1 firewall >/dev/null',
    ])
    const times: number[] = []
    for (let i = 0; i < 5; i++) {
      const since = performance.now()
      const ended = await ssh(web2, `banip fail2ban-sshd ${VICTIM} 22 tcp`)
      assert.equal(ended.code, 0, ended.stderr)
      times.push(performance.now() - since)
    }
    assert.ok(Math.min(...times) < 3000, `${times} ms`)
    await Promise.all([silent.kill('SIGKILL'), deaf.kill('SIGKILL'), busy.kill('SIGKILL')])
    await edge.sh('while pgrep -f "[p]erimeter/perimeter" >/dev/null; do sleep 0.1; done')
    await assertUntouched()
  })

  test('30 sessions at once are all served', async () => {
    const all = await Promise.all(
      Array.from({ length: 30 }, (_, i) => {
        const input = `list fail2ban-web2only\nx${i}\n`
        return ssh(web1, 'firewall', { input })
      }),
    )
    const good = all.filter(({ stdout }) => stdout.startsWith('ok\nerror 64 '))
    assert.equal(good.length, 30, all.map(({ stderr }) => stderr).join(''))
    await assertUntouched()
  })

  test('killed in the middle of a transaction: it is whole or not at all, and repaired', async () => {
    const sync = Array.from({ length: 20_000 }, (_, i) => `20.1.${i >> 8}.${i & 255} 0\n`).join('')
    const input = `sync fail2ban-kill 22 tcp 20000\n${sync}`
    for (const wait of ['0.15', '0.25', '0.35']) {
      const kill = edge.exec(['sh', '-c', `sleep ${wait}; pkill -KILL -f "[p]erimeter/perimeter"`])
      await Promise.all([ssh(web1, 'firewall', { input }), kill])
      const held = await ssh(web1, 'listips fail2ban-kill')
      assert.ok([1, 20_001].includes(held.stdout.split('\n').length), held.stderr)
      assert.equal((await ssh(web1, 'checkfw')).code, 0)
    }
    assert.equal((await ssh(web1, 'fluships fail2ban-kill')).code, 0)
    await edge.run([`${LIB}/sweepips`])
    assert.equal((await ssh(web2, 'checkfw')).code, 0)
    await assertUntouched()
  })

  test('a service that is no longer known stops nobody', async () => {
    await edge.sh(`echo '# chain sshd web1 constructor tcp' >>${LEDGER}`)
    assert.equal((await ssh(web2, 'banip fail2ban-new 203.0.113.70 22 tcp')).code, 0)
    assert.match(await edge.run([`${LIB}/restorefw`]), /^restored 4 blocks in 3 chains$/m)
    assert.equal((await ssh(web1, 'banip fail2ban-sshd 203.0.113.50 22 tcp')).code, 0)
    assert.equal((await ssh(web2, 'fluships fail2ban-new')).code, 0)
    await assertUntouched()
  })

  test('an owner or a jail may be called anything', async () => {
    for (const owner of ['constructor', 'toString', 'valueOf']) {
      const by = ['--owner', owner]
      for (const jail of ['constructor', '__proto__', 'hasOwnProperty']) {
        await edge.run([`${LIB}/banip`, `fail2ban-${jail}`, '203.0.113.71', '22', 'tcp', ...by])
      }
      assert.match(await edge.run([`${LIB}/checkfw`, ...by]), /^leases 3$/m)
      await edge.run([`${LIB}/fluships`, ...by])
    }
    await assertUntouched()
  })

  test('churn fills neither the ledger nor the journal, and jails have an end', async () => {
    const long = '2001:db8:1111:2222:3333:4444:5555'
    const list = Array.from({ length: 30_000 }, (_, i) => `${long}:${i.toString(16)} 0\n`).join('')
    await web1.writeFile('/tmp/list', list)
    const turn = 'echo sync fail2ban-churn 22 tcp 30000; cat /tmp/list; echo flush fail2ban-churn'
    await web1.sh(`for i in 1 2 3; do ${turn}; done | ssh edge1 firewall`)
    const size = Number(await edge.run(['stat', '-c', '%s', LEDGER]))
    assert.ok(size < 9_000_000, `${size} bytes`)
    const jails = Array.from({ length: 300 }, (_, i) => `ban fail2ban-j${i} 20.2.2.2 22 tcp\n`)
    const { stdout } = await ssh(web1, 'firewall', { input: jails.join('') })
    assert.equal(stdout.match(/^ok$/gm)?.length, 255)
    assert.equal(stdout.match(/^error 77 /gm)?.length, 45)
    const noise = (await edge.journal()).filter((line) => line.includes('refused: 256 jails'))
    assert.ok(noise.length <= 20, `${noise.length} lines`)
    assert.equal((await ssh(web2, `banip fail2ban-own 203.0.113.70 22 tcp`)).code, 0)
  })

  test('a firewall in the wrong hands cannot do much to its servers', async () => {
    const config = `owner: web1
firewalls:
  - host: edge1
    user: fail2ban
    identity_file: /root/.ssh/id_ed25519
    known_hosts: /root/.ssh/known_hosts
`
    await web1.writeFile('/etc/fail2ban-perimeter/config.yaml', config, { mode: '600' })
    const client = (...args: string[]) =>
      web1.exec([process.execPath, `${PROJECT}/dist/firewall.cjs`, ...args], {
        input: '203.0.113.50 sshd 0\n',
      })
    const check = await client('check')
    assert.equal(check.code, 0, check.stderr)
    const ban = ['ban', '--ip', '203.0.113.60', '--name', 'sshd']
    const sync = ['sync', '--name', 'sshd']
    const lies: [gate: string, args: string[], code: number][] = [
      ['printf "firewall: \\033[2J\\007evil\\r\\n" >&2; exit 77', ban, 77],
      ['printf "\\033]0;evil" >&2; exit 99', ban, 76],
      ['exit 137', ban, 76],
      ['yes evil', ban, 76],
      ['yes evil >&2', ban, 76],
      ['echo evil', ['check'], 76],
      ['exit 0', ['check'], 76],
      ['yes "$(printf "\\033")" | head -c 1000000', ['start'], 76],
      ['cat >/dev/null; echo "error 256 evil"', sync, 76],
      ['cat >/dev/null; echo "error 0 evil"', sync, 76],
      ['cat >/dev/null; echo ok', sync, 76],
      ['cat >/dev/null', sync, 76],
      ['printf "1.2.3.4 \\033[2J 0\\n"', ['list'], 76],
    ]
    for (const [gate, args, code] of lies) {
      await edge.writeFile(`${LIB}/gate`, `#!/bin/sh\n${gate}\n`, { mode: '755' })
      const ended = await client(...args)
      assert.equal(ended.code, code, `${gate}: ${ended.stderr}`)
      assert.match(ended.stderr, /^firewall: [ -~]{1,500}\n$/, gate)
    }
  })
})

async function install(edge: Machine, server: Machine, hostKey: string): Promise<void> {
  const { name } = server
  const identityFile = '/root/.ssh/id_ed25519'
  await edge.writeFile(`/root/${name}.pub`, `${await createKey(server, identityFile)}\n`)
  const script = [process.execPath, `${PROJECT}/dist/setup.cjs`, 'firewall', '--systemd', 'no']
  const who = ['--owner', name, '--key-file', `/root/${name}.pub`]
  const options = [...who, '--from', addressOf(name, 'mgmt'), '--backend', 'nftables']
  // It starts a shell before our gate, and bash would run what PS4 says.
  assert.match(await edge.run([...script, ...options]), /^note: sshd lets .* AcceptEnv \*$/m)
  const address = addressOf('edge1', 'mgmt')
  const config = [
    'ControlMaster auto',
    'ControlPath /run/%C',
    'ControlPersist 1m',
    'LogLevel ERROR',
  ]
  await addHost(server, { host: 'edge1', address, user: 'fail2ban', identityFile, hostKey, config })
  await server.run(['ssh', 'edge1', 'true'])
}

/** Runs a command through the shared connection; nothing may take longer than half a minute. */
async function ssh(
  server: Machine,
  command: string,
  { input = '', options = [] }: { input?: string; options?: string[] } = {},
): Promise<Output> {
  const since = performance.now()
  const ended = await server.exec(
    ['ssh', ...options, '--', 'edge1', ...(command ? [command] : [])],
    {
      input,
      timeout: 30_000,
    },
  )
  assert.ok(performance.now() - since < 30_000, `hung: ${command.slice(0, 100)}`)
  return ended
}

/** A few at a time: sshd gives ten sessions to a connection. */
async function eachOf<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items]
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: 6 }, worker))
}

/** Everything that a server could have changed: files, leases, remarks, rules, canaries. */
async function state(edge: Machine): Promise<string> {
  return await edge.sh(`
    find /etc ${LIB} -type f -exec md5sum {} + | sort -k2 | md5sum
    find /etc ${LIB} /root /home /var/lib/fail2ban-perimeter -printf '%p %M %u %g\\n' | sort
    find /tmp /var/tmp /dev/shm -mindepth 1 -maxdepth 1 ! -path '${PROJECT.split('/', 3).join('/')}' | sort
    nft list ruleset | sed 's/ expires [0-9a-z]*//'
    grep -v '^#' ${LEDGER} | awk '{ end[$1 " " $2 " " $4] = $3 }
      END { for (key in end) if (end[key] != 1) print key, end[key] }' | sort
    awk '/^# chain/ { naming[$3 " " $4] = $5 " " $6 }
      END { for (key in naming) if (naming[key] != "gone ") print key, naming[key] }' ${LEDGER} | sort
    grep -c '^# widths' ${LEDGER} || :`)
}

/** @returns a function that ends it and says the most kB that a perimeter program has had */
function watchMemory(edge: Machine): () => Promise<number> {
  const script = `while [ ! -e /run/enough ]; do
    for pid in $(pgrep -f '^[^ ]*node .*/perimeter$'); do
      grep -h VmHWM /proc/$pid/status 2>/dev/null || :
    done
    sleep 0.05
  done; rm /run/enough`
  const watching = edge.exec(['sh', '-c', script])
  return async () => {
    await edge.sh(': >/run/enough')
    const sizes = (await watching).stdout.match(/\d+/g) ?? []
    return Math.max(0, ...sizes.map(Number))
  }
}
