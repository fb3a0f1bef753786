import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { parse } from 'yaml'
import { run } from '../../scripts/lib/run.ts'
import { type Daemon, type Net2banLab, openNet2ban } from '../lib/net2ban-lab.ts'
import { waitUntil } from '../lib/wait.ts'

// One real broker with TLS; a server and a node come when the last tests need them.

let lab: Net2banLab
let server: Daemon
let client1: Daemon

before(async () => {
  lab = await openNet2ban({ clients: ['client1', 'client2'], tls: true })
})
after(() => lab.close())

test('before a server has ever run, a sender is told to try again', async () => {
  const { code, stderr } = await lab.ctl(['ban', '--ip', '192.0.2.7'])
  assert.equal(code, 75)
  assert.match(stderr, /^net2banctl: Cannot ban "192\.0\.2\.7" on "nodes": .*\n$/)
})

test('login, vhost, certificate, address: each failure has its code and one line', async () => {
  const cases: [number, RegExp, Record<string, unknown>][] = [
    [77, /login refused/, { pass: 'wrong-password' }],
    [77, /vhost "other" refused/, { vhost: 'other' }],
    [69, /Cannot trust/, { ca_file: undefined }],
    [69, /Cannot trust/, { server: 'localhost.localdomain', ca_file: undefined }],
    [69, /Cannot reach/, { port: 1 }],
  ]
  for (const [code, text, global] of cases) {
    if (global.server) global.server = '127.0.0.1'
    const config = lab.config('wrong', global)
    for (const args of [
      ['ban', '--ip', '192.0.2.7'],
      ['status'],
      ['exec', 'journal', 'actionstart'],
    ]) {
      const ended = await lab.ctl(args, undefined, config)
      assert.deepEqual({ args, code: ended.code, stdout: ended.stdout }, { args, code, stdout: '' })
      assert.match(ended.stderr, text)
      assert.match(ended.stderr, /^[^\n]+\n$/)
    }
  }
})

test('the mode in the file and the word must agree; unknown clients are refused', async () => {
  const config = lab.config('server')
  const wrong = await run(process.execPath, ['dist/net2ban.cjs', 'client', '--config', config])
  assert.equal(wrong.code, 78)
  assert.match(wrong.stderr, /"net2ban\.global\.mode" is "server"/)
  assert.equal((await lab.ctl(['get_client', 'nobody'])).code, 64)
  assert.equal((await lab.ctl(['update', 'nobody', '/dev/null'])).code, 64)
  assert.equal((await lab.ctl(['sync', '--client', 'nobody'])).code, 64)
  const other = await lab.ctl(['list_clients'], '', await lab.clientConfig('client1'))
  assert.equal(other.code, 78)
})

test('gen_random needs no configuration; list_clients names them', async () => {
  const { stdout } = await run(
    process.execPath,
    [join(process.cwd(), 'dist/net2banctl.cjs'), 'gen_random'],
    {
      env: { PATH: process.env.PATH, FAIL2BAN_PERIMETER_CONFIG: undefined },
    },
  )
  assert.match(stdout, /^[0-9a-f]{40}\n$/)
  assert.equal(await lab.done('list_clients'), 'client1\nclient2\n')
})

test('get_client holds what that client needs and nothing of the others', async () => {
  const text = await lab.done('get_client', 'client1')
  const { net2ban } = parse(text)
  assert.deepEqual(Object.keys(net2ban), ['global', 'keygen', 'clients', 'default_action'])
  assert.deepEqual(net2ban.clients, { client1: { key: lab.section.clients.client1?.key } })
  assert.equal(net2ban.global.user, 'net2ban_client1')
  const { pass } = lab.login('server')
  for (const secret of [lab.section.server?.key, lab.section.clients.client2?.key, pass]) {
    assert.ok(secret && !text.includes(secret))
  }
})

test('daemons that are started without their broker come up by themselves when it is there', async () => {
  await lab.broker.kill()
  server = lab.daemon('server', lab.config('server'))
  client1 = lab.daemon('client', await lab.clientConfig('client1'))
  for (const daemon of [server, client1]) await daemon.logged(/Cannot reach the broker/)
  await lab.broker.start()
  for (const daemon of [server, client1]) await daemon.logged('connected to the broker')
  const lines =
    'server running, waiting 0, dead letters 0\nclient1 online, queue 0, dead letters 0, '
  await waitUntil('both', async () => (await lab.ctl(['status'])).stdout.startsWith(lines))
})

test('hostile parameters are refused before anything is sent', async () => {
  await lab.done('start', '--name', 'sshd', '--port', 'ssh', '--protocol', 'tcp')
  const pairs = [
    'ip=$(id)',
    'ip=`id`',
    'ip=192.0.2.1;id',
    'ip=192.0.2.1 -j ACCEPT',
    'ip=-192.0.2.1',
    'ip=',
    'ip=::1%lo',
    'name=a;b',
    'name=$(id)',
    'name=-j',
    'name=../x',
    'name=a b',
    'name=`id`',
    'port=22;id',
    'port=-1',
    'port=$(id)',
    'protocol=tcp;id',
    'protocol=-p',
    'chain=INPUT;id',
    'chain=-F',
    'bantime=1h',
    'time=now',
    'iptables=/tmp/x',
    'nftables=/tmp/x',
    'actionban=id',
    '_private=1',
    'ipset=/x',
    'lockingopt=-x',
    'x',
    '=y',
  ]
  let dropped = 0
  for (const pair of pairs) {
    const fine = pair.startsWith('ip=') ? [] : ['ip=192.0.2.40']
    const { code, stderr } = await lab.ctl(['exec', 'journal', 'actionban', ...fine, pair])
    // What is public depends on the file that the node has; it refuses the rest itself.
    if (code === 0) {
      const line = 'dropped message [0-9a-f-]{36} from web1: malformed'
      await client1.logged(new RegExp(`(${line}[^]*){${++dropped}}`))
    } else assert.deepEqual({ pair, code }, { pair, code: 65 }, stderr)
  }
  for (const file of [
    '../journal',
    '/etc/passwd',
    'journal.conf',
    '-x',
    'a b',
    '',
    'a'.repeat(65),
  ]) {
    const { code, stderr } = await lab.ctl(['exec', '--', file, 'actionstart'])
    assert.equal(code, 65, `${file}: ${stderr}`)
  }
  for (const action of ['actionx', 'ban', '__proto__', 'actionban;id']) {
    assert.equal((await lab.ctl(['exec', 'journal', action])).code, 65, action)
  }
  const { code, stderr } = await lab.ctl(['ban', '--ip', '127.0.0.1'])
  assert.equal(code, 65, stderr)
  assert.deepEqual(lab.blocked('client1'), [])
})

test('a node that asks for a sync is no dead letter', async () => {
  await lab.done('ban', '--ip', '192.0.2.43', '--name', 'sshd')
  await server.kill('SIGKILL')
  server.start()
  await lab.done('ban', '--ip', '192.0.2.44', '--name', 'sshd')
  await server.logged('client1 asks for a sync')
  assert.match(await lab.done('status'), /^server running, waiting 0, dead letters 0\n/)
})

test('a broker with an alarm is named, in time, and no connection to it is left', async () => {
  const list = () => lab.broker.ctl('-q', '--no-table-headers', 'list_connections', 'user')
  const line = 'journal actionban name=sshd ip=192.0.2.41\n'
  for (const what of ['memory', 'disk'] as const) {
    const alarm = new RegExp(`^net2banctl: [^\n]*RabbitMQ has an alarm: low on ${what}\n$`)
    await lab.broker.alarm(true, what)
    try {
      for (const args of [['ban', '--ip', '192.0.2.41'], ['exec', '-'], ['check'], ['status']]) {
        const { code, stdout, stderr } = await lab.ctl(args, line)
        assert.deepEqual({ args, code }, { args, code: 75 }, stderr)
        assert.match(stderr, alarm)
        if (args[0] === 'status') assert.match(stdout, /^server running.*\nclient1 online/)
      }
      assert.match((await endless(['exec', '-'], line)).stderr, alarm)
    } finally {
      await lab.broker.alarm(false, what)
    }
  }
  const daemons = 'net2ban_client1\nnet2ban_server\n'
  await waitUntil('the end of all others', async () => {
    return (await list()).split('\n').sort().join('\n').trim() === daemons.trim()
  })
  await lab.done('ban', '--ip', '192.0.2.42', '--name', 'sshd')
})

/** net2banctl while somebody goes on writing to it. */
async function endless(args: string[], text: string) {
  const config = ['--config', lab.config('ctl')]
  const child = spawn(process.execPath, ['dist/net2banctl.cjs', ...config, ...args])
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (more: string) => {
    stderr += more
  })
  child.stdin.on('error', () => {}).write(text)
  const [code] = await once(child, 'close', { signal: AbortSignal.timeout(120_000) })
  return { code, stderr }
}

test('no secret was printed or logged, whatever was wrong', () => {
  lab.assertNoSecret(server.log(), client1.log())
})
