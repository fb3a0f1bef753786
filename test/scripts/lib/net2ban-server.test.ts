import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { codeOf, EXIT } from '../../../scripts/lib/failure.ts'
import { Due } from '../../../scripts/lib/net2ban/due.ts'
import { Forwarded } from '../../../scripts/lib/net2ban/forwarded.ts'
import { type Claims, compose } from '../../../scripts/lib/net2ban/message.ts'
import { Orders } from '../../../scripts/lib/net2ban/orders.ts'
import type { Outbox } from '../../../scripts/lib/net2ban/outbox.ts'
import { Parts } from '../../../scripts/lib/net2ban/snapshot.ts'

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
  const due = new Due(path)
  for (let tries = 0; tries < 3; tries++) {
    assert.throws(
      () => due.set('client1', { due: true, dead: due.of('client1').dead + 1 }),
      isTemporary,
    )
  }
  assert.deepEqual([due.clients(), due.of('client1').dead], [[], 0])
  mkdirSync(join(folder, 'gone'))
  due.set('client1', { due: true, dead: due.of('client1').dead + 1 })
  const again = new Due(path)
  assert.deepEqual([again.clients(), again.of('client1').dead], [['client1'], 1])
})

test('an order that cannot be noted sends nothing, and all of it when it can', async () => {
  const state = join(folder, 'state')
  const forwarded = new Forwarded(state, 0)
  const sent: Claims[] = []
  const told: (string | undefined)[] = []
  const outbox = {
    clients: new Map([['client1', { name: 'client1' }]]),
    send: async (claims: Claims[]) => void sent.push(...claims),
    tell: async (_: unknown, jail?: string) => void told.push(jail),
  } as unknown as Outbox
  const parts = new Parts(join(folder, 'parts'), 60)
  const orders = new Orders({ forwarded, parts, outbox, log: () => {} })
  const more = [call('actionstart', {}), call('actionban', { ip: '192.0.2.2', bantime: '600' })]
  const first = call('actionban', { ip: '192.0.2.1', bantime: '600' })
  const order = compose({ cmd: 'exec', ...first, more }, 'f2bsrv1', 60)

  rmSync(state, { recursive: true })
  for (let tries = 0; tries < 2; tries++) assert.throws(() => orders.obey(order), isTemporary)
  assert.deepEqual([sent, told], [[], []])

  mkdirSync(state)
  await orders.obey(order)
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
