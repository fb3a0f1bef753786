import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type ChannelModel, connect } from 'amqplib'
import { CompactEncrypt } from 'jose'
import { deriveKey } from '../../scripts/lib/net2ban/party.ts'
import { type Daemon, journalAction, type Net2banLab, openNet2ban } from '../lib/net2ban-lab.ts'
import { waitUntil } from '../lib/wait.ts'

// One real broker with TLS, one server, two nodes; the tests build on each other in order.

/** Seconds; short, so that messages can be seen to grow stale. */
const VALID = 12

let lab: Net2banLab
let server: Daemon
let client1: Daemon
let client2: Daemon

before(async () => {
  lab = await openNet2ban({ clients: ['client1', 'client2'], tls: true, validWtime: VALID })
})
after(() => lab.close())

function done(...args: string[]): Promise<string> {
  return lab.done(...args)
}

/** Waits until a node's actions have left exactly these addresses blocked. */
async function blocks(name: string, addresses: string[], timeout = 60_000): Promise<void> {
  const equal = () => lab.blocked(name).join(' ') === [...addresses].sort().join(' ')
  await waitUntil(`${name} to block ${addresses}`, equal, { timeout }).catch((error) => {
    throw new Error(
      `${error.message}, not ${lab.blocked(name).join(' ')}\n${server.log()}\n--\n${client1.log()}`,
    )
  })
}

test('what is sent runs on every node: start, ban, exec, unban, list', async () => {
  server = lab.daemon('server', lab.config('server'))
  await server.logged('connected')
  client1 = lab.daemon('client', await lab.clientConfig('client1'))
  client2 = lab.daemon('client', await lab.clientConfig('client2'))
  await client1.logged('connected')
  await client2.logged('connected')
  await done('check')
  await done('start', '--name', 'sshd', '--port', 'ssh', '--protocol', 'tcp')
  await done('ban', '--ip', '192.0.2.7', '--name', 'sshd', '--bantime', '600')
  await done('exec', 'journal', 'actionban', 'name=sshd', 'ip=2001:db8::7', 'bantime=600')
  await done('ban', '--ip', '192.0.2.8', '--name', 'sshd', '--bantime', '600')
  await done('unban', '--ip', '192.0.2.8', '--name', 'sshd')
  for (const name of ['client1', 'client2']) await blocks(name, ['192.0.2.7', '2001:db8::7'])
  assert.match(await done('list'), /^192\.0\.2\.7 sshd \d+ web1\n2001:db8::7 sshd \d+ web1\n$/)
  const status = await lab.ctl(['status', '--json'], undefined, lab.config('server'))
  const [first] = status.stdout.split('\n')
  const { client, online, queue } = JSON.parse(first ?? '')
  assert.deepEqual({ client, online, queue }, { client: 'client1', online: true, queue: 0 })
})

test('an address stays blocked until its last sender lets go', async () => {
  const web2 = lab.config('web2')
  writeFileSync(web2, readFileSync(web2, 'utf8').replace('owner: web1', 'owner: web2'))
  const args = ['--ip', '192.0.2.7', '--name', 'sshd']
  assert.equal((await lab.ctl(['ban', ...args, '--bantime', '600'], undefined, web2)).code, 0)
  await done('unban', ...args)
  await server.logged('Keeping: journal actionunban 192.0.2.7 from web1')
  await done('ban', '--ip', '192.0.2.9', '--name', 'sshd', '--bantime', '600')
  await blocks('client1', ['192.0.2.7', '192.0.2.9', '2001:db8::7'])
  assert.equal((await lab.ctl(['unban', ...args], undefined, web2)).code, 0)
  await blocks('client1', ['192.0.2.9', '2001:db8::7'])
})

test('flush frees what this owner banned, and sync makes it exactly the list', async () => {
  await done('flush', '--name', 'sshd')
  await blocks('client1', [])
  const lines = Array.from({ length: 850 }, (_, i) => `198.51.${100 + (i >> 8)}.${i & 255} sshd 0`)
  const ended = await lab.ctl(['sync'], `${lines.join('\n')}\n`)
  assert.equal(ended.stdout, 'added 850, extended 0, removed 0, unchanged 0\n', ended.stderr)
  const all = lines.map((line) => line.split(' ')[0] ?? '')
  for (const name of ['client1', 'client2']) await blocks(name, all)
  const few = lines.slice(0, 3)
  assert.match(
    (await lab.ctl(['sync'], few.join('\n'))).stdout,
    /^added 0, .*removed 847, unchanged 3/,
  )
  for (const name of ['client1', 'client2']) await blocks(name, all.slice(0, 3))
})

const KEPT = ['198.51.100.0', '198.51.100.1', '198.51.100.2']

test('a node rebuilt from nothing is filled by sync', async () => {
  await client2.kill()
  rmSync(join(lab.folder, 'state/client2'), { recursive: true })
  rmSync(join(lab.folder, 'client2.journal'))
  client2.start()
  const before = lab.journal('client1').length
  const { code } = await lab.ctl(
    ['sync', '--client', 'client2'],
    KEPT.map((ip) => `${ip} sshd 0`).join('\n'),
  )
  assert.equal(code, 0)
  await blocks('client2', KEPT)
  assert.equal(lab.journal('client1').length, before, 'the other was not told')
})

test('a node that missed messages asks, and is told', async () => {
  await client2.kill()
  await done('ban', '--ip', '192.0.2.20', '--name', 'sshd', '--bantime', '600')
  await done('unban', '--ip', KEPT[0] ?? '', '--name', 'sshd')
  await blocks('client1', [...KEPT.slice(1), '192.0.2.20'])
  const model = await broker()
  const channel = await model.createChannel()
  const queue = 'net2ban_client2'
  await waitUntil('the queue', async () => (await channel.checkQueue(queue)).messageCount >= 2)
  await channel.purgeQueue(queue)
  await model.close()
  client2.start()
  await done('ban', '--ip', '192.0.2.21', '--name', 'sshd', '--bantime', '600')
  await server.logged('client2 asks for a sync')
  await blocks('client2', [...KEPT.slice(1), '192.0.2.20', '192.0.2.21'])
})

test('a node that was away for longer than messages live is told everything when it is back', async () => {
  await client2.kill()
  await done('ban', '--ip', '192.0.2.22', '--name', 'sshd', '--bantime', '600')
  await done('unban', '--ip', '192.0.2.20', '--name', 'sshd')
  const model = await broker()
  const channel = await model.createChannel()
  const expired = async () => (await channel.checkQueue('net2ban_client2')).messageCount === 0
  await waitUntil('the messages to expire', expired, { every: 200 })
  await model.close()
  client2.start()
  await blocks('client2', [...KEPT.slice(1), '192.0.2.21', '192.0.2.22'])
})

test('a failing address does not hold up the others, and is tried again', async () => {
  const actions = join(lab.folder, 'actions/client1/journal.conf')
  const text = readFileSync(actions, 'utf8')
  const gate = join(lab.folder, 'gate')
  const failing = 'actionban = test <ip> != 192.0.2.30 -o -e '
  writeFileSync(actions, text.replace('actionban = ', `${failing}${gate} && `))
  await client1.kill()
  client1.start()
  await done('ban', '--ip', '192.0.2.30', '--name', 'sshd', '--bantime', '600')
  for (const ip of ['192.0.2.31', '192.0.2.32']) await done('ban', '--ip', ip, '--name', 'sshd')
  const others = [...KEPT.slice(1), '192.0.2.21', '192.0.2.22', '192.0.2.31', '192.0.2.32']
  await blocks('client1', others)
  await client1.logged('trying again')
  await client1.kill()
  client1.start()
  writeFileSync(gate, '')
  await blocks('client1', [...others, '192.0.2.30'])
  await done('flush')
  await blocks('client1', [])
})

test('a node without the program of an action says so once, and so does the status', async () => {
  const program = join(lab.folder, 'program')
  for (const name of ['client1', 'client2']) {
    const ban = name === 'client1' ? `${program} <ip>` : 'true'
    const text = `[Definition]\nactionban = ${ban}\nactionunban = rm -f ${program}.<ip>\n`
    writeFileSync(join(lab.folder, 'actions', name, 'lacking.conf'), text)
  }
  await done('exec', 'lacking', 'actionstart', 'name=x')
  for (const ip of ['192.0.2.61', '192.0.2.62', '192.0.2.63'])
    await done('exec', 'lacking', 'actionban', 'name=x', `ip=${ip}`)
  const said = `Cannot use lacking for x: this node has no "${program}", install it`
  await client1.logged(said)
  const complaint = 'cannot carry out lacking for x: its journal says why'
  // Written by the server whose state this configuration names.
  const asked = () => lab.ctl(['status'], undefined, lab.config('server'))
  await waitUntil('the status', async () => (await asked()).stdout.includes(complaint))
  assert.equal(client1.log().split(said).length, 2)
  assert.doesNotMatch(client1.log(), /lacking.*(try|ask)ing again/)
  writeFileSync(program, `#!/bin/sh\n: >${program}.$1\n`, { mode: 0o755 })
  const all = () => ['61', '62', '63'].every((end) => existsSync(`${program}.192.0.2.${end}`))
  await waitUntil('the bans', async () => all(), { timeout: 180_000, every: 200 })
  const fine = async () => !(await asked()).stdout.includes(complaint)
  await waitUntil('a status without complaint', fine, { timeout: 180_000, every: 500 })
  await done('exec', 'lacking', 'actionflush', 'name=x')
})

test('update: off by default; then parsed first, and the previous version kept', async () => {
  const file = join(lab.folder, 'journal.conf')
  const old = readFileSync(join(lab.folder, 'actions/client2/journal.conf'), 'utf8')
  writeFileSync(file, `# new\n${journalAction(join(lab.folder, 'client2.journal'))}`)
  await done('update', 'client2', file)
  await client2.logged(
    /dropped message [0-9a-f-]{36} from web1: malformed \(.*allow_update is off\)/,
  )
  await client2.kill()
  await lab.clientConfig('client2', { allow_update: true })
  client2.start()
  await done('update', 'client2', file)
  await client2.logged('File "journal" updated')
  const path = join(lab.folder, 'actions/client2/journal.conf')
  assert.equal(readFileSync(path, 'utf8'), readFileSync(file, 'utf8'))
  assert.equal(readFileSync(`${path}.previous`, 'utf8'), old)
  assert.ok(!existsSync(join(lab.folder, 'actions/client1/journal.conf.previous')))
  writeFileSync(file, 'no action file at all')
  assert.equal((await lab.ctl(['update', 'client2', file])).code !== 0, true)
})

test('hostile messages: nothing runs, nothing is blocked, one line each, at both hops', async () => {
  const model = await broker()
  const channel = await model.createChannel()
  for (const hop of [
    { to: 'server', daemon: server, exchange: 'net2ban_in', key: 'input_net2ban' },
    { to: 'client1', daemon: client1, exchange: 'net2ban_out', key: 'client1' },
  ]) {
    const marks = hop.daemon.log().length
    const bodies = await hostile(hop.to)
    for (const body of bodies) {
      channel.publish(hop.exchange, hop.key, body, {
        persistent: true,
        userId: 'net2ban_server',
        messageId: 'a\nb\x1b[31m',
      })
    }
    const drops = () =>
      hop.daemon
        .log()
        .slice(marks)
        .match(/^dropped message .*$/gm) ?? []
    await waitUntil('all to be dropped', () => drops().length >= bodies.length - 1).catch(
      (error) => {
        throw new Error(
          `${error.message}: ${drops().length} of ${bodies.length}\n${drops().join('\n')}`,
        )
      },
    )
    const good = `192.0.2.${hop.to === 'server' ? 50 : 51}`
    await done('ban', '--ip', good, '--name', 'sshd', '--bantime', '600')
    await hop.daemon.logged(hop.to === 'server' ? `actionban ${good}` : `IP ${good} banned`)
    assert.equal(drops().length, bodies.length - 1, drops().join('\n'))
    for (const line of drops()) {
      assert.match(
        line,
        /^dropped message \S.* from \S+: (stale|future|replayed|forged|malformed)( \(.*\))?$/,
      )
    }
  }
  await model.close()
  await blocks('client1', ['192.0.2.50', '192.0.2.51'])
  const journal = lab.journal('client1').join('\n')
  assert.ok(!journal.includes('192.0.2.66'), journal)
})

test('a second server stands by, and takes over', async () => {
  const second = lab.daemon('server', lab.config('server2'))
  await second.logged('connected')
  // A server that is new learns what was before from one sync of each sender.
  const told = ['192.0.2.50', '192.0.2.51', '192.0.2.60']
  const before = await done('list')
  assert.equal((await lab.ctl(['sync', '--name', 'sshd'], before)).code, 0)
  await done('ban', '--ip', '192.0.2.60', '--name', 'sshd', '--bantime', '600')
  await blocks('client1', ['192.0.2.50', '192.0.2.51', '192.0.2.60'])
  assert.ok(!second.log().includes('Forwarding'))
  await server.kill()
  await done('ban', '--ip', '192.0.2.61', '--name', 'sshd', '--bantime', '600')
  await done('unban', '--ip', '192.0.2.61', '--name', 'sshd')
  await done('ban', '--ip', '192.0.2.62', '--name', 'sshd', '--bantime', '600')
  await blocks('client1', ['192.0.2.50', '192.0.2.51', '192.0.2.60', '192.0.2.62'])
  assert.ok(second.log().includes('Forwarding'))
  await blocks('client2', [...told, '192.0.2.62'])
  // It knows what the other one had forwarded while it stood by, and tells a node that lost all.
  await client2.kill()
  rmSync(join(lab.folder, 'state/client2'), { recursive: true })
  rmSync(join(lab.folder, 'client2.journal'))
  client2.start()
  await done('ban', '--ip', '192.0.2.63', '--name', 'sshd', '--bantime', '600')
  await second.logged('telling client2 all of 1 jails')
  await blocks('client2', [...told, '192.0.2.62', '192.0.2.63'])
  await done('unban', '--ip', '192.0.2.63', '--name', 'sshd')
})

test('a broker that hangs keeps nobody for longer than the deadline', async () => {
  await lab.broker.freeze()
  const began = performance.now()
  const { code } = await lab.ctl(['ban', '--ip', '192.0.2.50', '--name', 'sshd'])
  await lab.broker.thaw()
  assert.ok(code === 69 || code === 75, String(code))
  assert.ok(performance.now() - began < 30_000)
})

test('a node whose broker is gone keeps ending its own bans', async () => {
  await done('ban', '--ip', '192.0.2.70', '--name', 'sshd', '--bantime', '4')
  await blocks('client1', ['192.0.2.50', '192.0.2.51', '192.0.2.60', '192.0.2.62', '192.0.2.70'])
  await lab.broker.kill()
  await blocks('client1', ['192.0.2.50', '192.0.2.51', '192.0.2.60', '192.0.2.62'], 15_000)
  await client1.logged(/connection lost|Cannot reach/)
  assert.equal((await lab.ctl(['ban', '--ip', '192.0.2.71'])).code, 69)
})

test('no secret was printed or logged by anybody', () => {
  lab.assertNoSecret(server.log(), client1.log(), client2.log())
})

async function broker(): Promise<ChannelModel> {
  const { user, pass } = lab.login('server')
  const url = `amqp://${user}:${pass}@127.0.0.1:${lab.broker.port}/net2ban`
  return connect(url)
}

/** Some forty messages, one of them fine, that must not be obeyed by whoever this key belongs to. */
async function hostile(to: string): Promise<Buffer[]> {
  const { key } = await deriveKey(lab.login(to).shared)
  const { key: other } = await deriveKey({ ...lab.login(to).shared, key: 'x'.repeat(40) })
  const now = Date.now() / 1000
  const exec = {
    cmd: 'exec',
    file: 'journal',
    action: 'actionban',
    params: { name: 'sshd', ip: '192.0.2.66' },
  }
  const claims = (more: object = {}) => {
    return { ...exec, jti: randomUUID(), iss: 'evil', aud: to, iat: now, exp: now + VALID, ...more }
  }
  const sealed = async (content: unknown, how: object = {}, with_ = key) => {
    const text = typeof content === 'string' ? content : JSON.stringify(content)
    const header = { alg: 'dir', enc: 'A256GCM', ...how }
    return Buffer.from(
      await new CompactEncrypt(Buffer.from(text)).setProtectedHeader(header).encrypt(with_),
    )
  }
  const good = await sealed(
    claims({
      params: { name: 'sshd', ip: '192.0.2.67' },
      action: 'actionunban',
      seq: 0,
      run: '0'.repeat(16),
    }),
  )
  const texts = ['', 'x', '{}', '....', 'a.b.c.d.e', '\0\0\0', `${good}.x`, 'null']
  const bad = [
    { iat: now - VALID - 60, exp: now + VALID },
    { exp: now - 60 },
    { iat: now + VALID + 60, exp: now + 3 * VALID },
    { aud: 'client2' },
    { jti: '../../etc/passwd' },
    { jti: 7 },
    { iss: 'a\nb' },
    { iat: 'now' },
    { iat: null },
    { cmd: 'shell' },
    { cmd: 'exec', extra: 1 },
    { file: '../journal' },
    { file: 'journal\0' },
    { action: 'action' },
    { action: 'actionevil' },
    { params: { ip: '$(touch /tmp/f2b-owned)', name: 'sshd' } },
    { params: { ip: '192.0.2.66', name: '-x' } },
    { params: { ip: '192.0.2.66', name: 'a;b' } },
    { params: { ip: '192.0.2.66', actionban: 'id' } },
    { params: { ip: ['192.0.2.66'] } },
    { more: [{ file: '../x', action: 'actionban', params: {} }] },
    { more: Array(65).fill({ file: 'journal', action: 'actionflush', params: {} }) },
    { params: 'ip=192.0.2.66' },
    { params: { ip: '192.0.2.66', name: 'x'.repeat(2000) } },
    { cmd: 'sync', name: 'sshd', snapshot: '../../x', part: 1, parts: 1, content: '' },
    { cmd: 'update', content: '[Definition]' },
  ]
  return [
    ...texts.map((text) => Buffer.from(text)),
    good.subarray(0, good.length - 9),
    Buffer.concat([good.subarray(0, 60), Buffer.from('A'), good.subarray(61)]),
    await sealed(claims(), {}, other),
    await sealed(claims(), { zip: 'DEF' }).catch(() => Buffer.from('no zip')),
    await sealed(claims(), { kid: 'x' }),
    Buffer.alloc(100_000, 'x'),
    await sealed('[]'),
    await sealed('{'),
    // Obeyed once, though it has no effect; what comes after it is the same once more.
    good,
    good,
    ...(await Promise.all(bad.map((more) => sealed(claims(more))))),
  ]
}
