import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { codeOf, EXIT } from '../../../scripts/lib/failure.ts'
import type { ConfirmingChannel } from '../../../scripts/lib/net2ban/broker.ts'
import { checkCall } from '../../../scripts/lib/net2ban/call.ts'
import { ClientStatus } from '../../../scripts/lib/net2ban/client-status.ts'
import { monotonic, ServerClock } from '../../../scripts/lib/net2ban/clock.ts'
import { Dispatcher } from '../../../scripts/lib/net2ban/dispatcher.ts'
import { Forwarded } from '../../../scripts/lib/net2ban/forwarded.ts'
import { type Claims, compose } from '../../../scripts/lib/net2ban/message.ts'
import { openNode } from '../../../scripts/lib/net2ban/node.ts'
import { deriveKey } from '../../../scripts/lib/net2ban/party.ts'
import { Position } from '../../../scripts/lib/net2ban/position.ts'
import { Publisher, type Receiver } from '../../../scripts/lib/net2ban/publisher.ts'
import { Parts } from '../../../scripts/lib/net2ban/snapshot.ts'

// What server and node remember of each other, without a broker.
//
// What the server notes about its clients and jails while nothing can be written: here, because the
// folder is gone. It tries again until it can, so a try that failed must leave nothing behind.

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'f2b-net2ban-server-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const isTemporary = (error: unknown) => codeOf(error) === EXIT.temporary
const call = (action: string, params: Record<string, string>) => ({
  file: 'iptables',
  action,
  params: { name: 'sshd', ...params },
})

test('what cannot be written about a client is not known until it can', () => {
  const path = join(folder, 'gone', 'clients.json')
  const due = new ClientStatus(path)
  for (let tries = 0; tries < 3; tries++) {
    assert.throws(
      () => due.set('client1', { due: true, dead: due.of('client1').dead + 1 }),
      isTemporary,
    )
  }
  assert.deepEqual([due.clients(), due.of('client1').dead], [[], 0])
  mkdirSync(join(folder, 'gone'))
  due.set('client1', { due: true, dead: due.of('client1').dead + 1 })
  const again = new ClientStatus(path)
  assert.deepEqual([again.clients(), again.of('client1').dead], [['client1'], 1])
})

test('an order that cannot be noted sends nothing, and all of it when it can', async () => {
  const state = join(folder, 'state')
  const forwarded = new Forwarded(state, 0)
  const sent: Claims[] = []
  const told: (string | undefined)[] = []
  const publisher = {
    clients: new Map([['client1', { name: 'client1' }]]),
    send: async (claims: Claims[]) => void sent.push(...claims),
    tell: async (_: unknown, jail?: string) => void told.push(jail),
  } as unknown as Publisher
  const parts = new Parts(join(folder, 'parts'), 60)
  const dispatcher = new Dispatcher({ forwarded, parts, publisher, log: () => {} })
  const more = [call('actionstart', {}), call('actionban', { ip: '192.0.2.2', bantime: '600' })]
  const first = call('actionban', { ip: '192.0.2.1', bantime: '600' })
  const order = compose({ cmd: 'exec', ...first, more }, 'f2bsrv1', 60)

  rmSync(state, { recursive: true })
  for (let tries = 0; tries < 2; tries++) assert.throws(() => dispatcher.handle(order), isTemporary)
  assert.deepEqual([sent, told], [[], []])

  mkdirSync(state)
  await dispatcher.handle(order)
  forwarded.commit(order.iat)
  assert.deepEqual(
    sent.map((claims) => claims.cmd === 'exec' && [claims.action, claims.more?.length]),
    [['actionban', 2]],
  )
  assert.match(readFileSync(join(state, 'jails.json'), 'utf8'), /"sshd"/)
  const [snapshot] = new Forwarded(state, order.iat).snapshots(order.iat)
  assert.deepEqual(snapshot?.leases.map((lease) => lease.address.text).sort(), [
    '192.0.2.1',
    '192.0.2.2',
  ])
})

test('a node misses what lies between two numbers, and all before a server was killed, until all was told', () => {
  const path = join(folder, 'position')
  const position = new Position(path)
  const run = 'a'.repeat(16)
  position.advance({ run, seq: 1 })
  assert.ok(position.hasMissed, 'what was before is not known')
  position.told(1)
  for (const seq of [2, 3, 2]) position.advance({ run, seq })
  assert.ok(!position.hasMissed)
  position.advance({ run, seq: 5 })
  position.save(0)
  const again = new Position(path)
  again.advance({ run, seq: 6 })
  assert.ok(again.hasMissed, 'a kill does not forget it')
  again.told(5)
  assert.ok(!again.hasMissed)
  again.advance({ run, seq: 8 })
  again.told(7)
  assert.ok(again.hasMissed, 'of what was told since 7, something is missing, too')
  again.told(8)
  again.advance({ run, seq: 9 })
  again.miss({ seq: 9 })
  again.told(9)
  assert.ok(again.hasMissed, 'it could not be handled')
  again.told(10)
  assert.ok(!again.hasMissed)
  again.advance({ run: 'b'.repeat(16), seq: 1 })
  assert.ok(!again.hasMissed, 'another server took over')
  again.advance({ run: `${'b'.repeat(8)}${'c'.repeat(8)}`, seq: 1 })
  assert.ok(again.hasMissed, 'it was killed')
})

test('a server that ended in peace counts on; one that was killed begins a run of its own', () => {
  const path = join(folder, 'clients.json')
  const start = () => {
    const parts = {
      exchange: '',
      id: 'a'.repeat(8),
      forwarded: new Forwarded(folder, 0),
      validWtime: 60,
      log() {},
    }
    const party = { name: 'client1', queue: '', validWtime: 60, user: '', pass: '' }
    const clients = [{ ...party, key: {} as never }]
    const publisher = new Publisher({ ...parts, clients, due: new ClientStatus(path) })
    return { publisher, client: publisher.clients.get('client1') as Receiver }
  }
  const first = start()
  first.client.seq = 7
  first.publisher.close()
  const second = start()
  assert.deepEqual(second.client, { ...second.client, run: first.client.run, seq: 7 })
  assert.notEqual(start().client.run, first.client.run)
})

test('a connection that is cut while the server seals for the next node ends no server', async () => {
  const { key } = await deriveKey({ key: 'a', secret: 'b', authkey: 'c', rounds: 1 })
  const client = (name: string) => ({ name, queue: name, key, validWtime: 60, user: '', pass: '' })
  const publisher = new Publisher({
    exchange: '',
    id: 'a'.repeat(8),
    clients: ['client1', 'client2', 'client3'].map(client),
    forwarded: new Forwarded(folder, 0),
    due: new ClientStatus(join(folder, 'clients.json')),
    validWtime: 60,
    log() {},
  })
  publisher.use({
    send: () => Promise.reject(new Error('Channel closed')),
  } as unknown as ConfirmingChannel)
  const unhandled: unknown[] = []
  const note = (error: unknown) => unhandled.push(error)
  process.on('unhandledRejection', note)
  const order = compose({ cmd: 'exec', ...call('actionban', { ip: '192.0.2.1' }) }, 'f2bsrv1', 60)
  await assert.rejects(publisher.send([order], [...publisher.clients.values()]), /Channel closed/)
  await immediate()
  process.off('unhandledRejection', note)
  assert.deepEqual(unhandled, [])
})

test('the clock of the server is known within seconds, and no message makes it go late', () => {
  const sent = Date.now() / 1000 + 600
  const close = (clock: ServerClock, ahead: number) => Math.abs(clock.ahead - ahead) < 5
  const clock = new ServerClock(undefined)
  assert.equal(clock.ahead, 0)
  clock.hear(sent, monotonic(), false)
  assert.ok(close(clock, -600) && clock.isOff)
  clock.hear(sent - 300, monotonic(), false)
  assert.ok(close(clock, -600), 'it has waited')
  clock.hear(sent - 300, monotonic(), true)
  assert.ok(close(clock, -300))
  assert.ok(close(new ServerClock(600), 600))
  assert.equal(new ServerClock(-600).ahead, 0, 'no ban may end early')
})

test('actions hear of moments by the clock of their machine, leases end by the server', async () => {
  const said = join(folder, 'said')
  const ban = `actionban = echo <time> <bantime> >>${said}`
  writeFileSync(join(folder, 'echo.conf'), `[Definition]\n${ban}\n`)
  const at = 1_800_000_000
  const dirs = { actionDir: folder, stateDir: join(folder, 'node'), runDir: folder }
  const node = await openNode({ ...dirs, now: () => at + 600, ahead: () => 600 })
  const call = (ip: string, bantime: number) => {
    const params = { name: 'sshd', ip, time: String(at - 30), bantime: String(bantime) }
    return node.run(checkCall('echo', 'actionban', params), at)
  }
  assert.deepEqual([await call('192.0.2.1', 60), await call('192.0.2.2', 20)], ['ran', 'over'])
  assert.equal(readFileSync(said, 'utf8'), `${at + 570} 60\n`)
  assert.deepEqual(
    [...node.leases()].map(({ expires }) => expires),
    [at + 30],
  )
  await node.close()
})

test('a server that came late tells of no jail before a sender has said all of it', () => {
  const open = () => new Forwarded(folder, 1000)
  const first = open()
  assert.ok(first.isNew)
  first.begin(true)
  const ban = { ...call('actionban', { ip: '192.0.2.1' }), iss: 'f2bsrv1', iat: 1000 } as const
  first.note(ban, 1000)
  first.commit(1000)
  const second = open()
  assert.deepEqual([second.isNew, second.snapshots(1000), second.partial], [false, [], 1])
  const leases = [
    { address: parseAddress('192.0.2.2'), jail: 'sshd', expires: 0, owner: 'f2bsrv1' },
  ]
  second.replace({ file: 'iptables', name: 'sshd', params: {}, leases }, { iss: 'f2bsrv1' }, 1000)
  second.note(ban, 1000)
  assert.equal(second.snapshots(1000)[0]?.leases.length, 2)
})

test('what one client alone shall have is told to that client alone', () => {
  const forwarded = new Forwarded(folder, 0)
  const note = (action: string, ip: string, iss = 'f2bsrv1', client?: string) =>
    forwarded.note({ ...call(action, { ip }), action, iss, iat: 1000, client }, 1000)
  const told = (client?: string) => {
    const [snapshot] = forwarded.snapshots(1000, undefined, client)
    return snapshot?.leases.map(({ address }) => address.text).sort()
  }
  const sync = (ips: string[], client?: string) => {
    const leases = ips.map((ip) => {
      return { address: parseAddress(ip), jail: 'sshd', expires: 0, owner: 'f2bsrv1' }
    })
    const snapshot = { file: 'iptables', name: 'sshd', params: {}, leases }
    forwarded.replace(snapshot, { iss: 'f2bsrv1', client }, 1000)
  }
  note('actionban', '192.0.2.1')
  note('actionban', '192.0.2.2', 'f2bsrv1', 'client1')
  assert.deepEqual([...forwarded.special(1000)], ['client1'])
  assert.deepEqual([told(), told('client1')], [['192.0.2.1'], ['192.0.2.1', '192.0.2.2']])
  // A list for one is no list for the others; one for all is for this one, too.
  sync(['192.0.2.3'], 'client1')
  assert.deepEqual([told(), told('client1')], [['192.0.2.1'], ['192.0.2.1', '192.0.2.3']])
  sync(['192.0.2.4'])
  assert.deepEqual([told(), told('client1')], [['192.0.2.4'], ['192.0.2.4']])
  // What others want for one client only, the rest lets go of.
  note('actionban', '192.0.2.4', 'f2bsrv2', 'client1')
  assert.equal(note('actionunban', '192.0.2.4', 'f2bsrv1', 'client1'), 'keep')
  assert.equal(note('actionunban', '192.0.2.4', 'f2bsrv1', 'client2'), 'forward')
  assert.equal(note('actionunban', '192.0.2.4'), 'snapshot')
  assert.deepEqual([told(), told('client1')], [[], ['192.0.2.4']])
  assert.equal(note('actionunban', '192.0.2.4', 'f2bsrv2'), 'forward')
  assert.deepEqual([...forwarded.special(1000)], [])
})

test('a jail that no start was seen of is known by its bans, and what is in force in it is told', () => {
  const forwarded = new Forwarded(folder, 0)
  const note = (action: 'actionban' | 'actionunban', params: Record<string, string>) => {
    const call = { file: 'iptables', action, params: { name: 'sshd', ...params } } as const
    forwarded.note({ ...call, iss: 'f2bsrv1', iat: 1000 }, 1000)
    forwarded.commit(1000)
  }
  const told = () => {
    const [snapshot, ...more] = new Forwarded(folder, 1000).snapshots(1000)
    assert.deepEqual(more, [])
    return [snapshot?.params, snapshot?.leases.map(({ address }) => address.text)]
  }
  note('actionban', { ip: '192.0.2.1', port: 'ssh' })
  note('actionban', { ip: '192.0.2.2', port: 'http' })
  assert.deepEqual(told(), [{ name: 'sshd', port: 'ssh' }, ['192.0.2.1', '192.0.2.2']])
  note('actionunban', { ip: '192.0.2.1' })
  note('actionunban', { ip: '192.0.2.2' })
  note('actionban', { ip: '192.0.2.3', port: 'http' })
  assert.deepEqual(told(), [{ name: 'sshd', port: 'http' }, ['192.0.2.3']])
})
