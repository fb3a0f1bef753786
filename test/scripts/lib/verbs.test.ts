import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readExpiry } from '../../../scripts/lib/expires.ts'
import { EXIT, Failure } from '../../../scripts/lib/failure.ts'
import { formatLease } from '../../../scripts/lib/lease.ts'
import type { Config } from '../../../scripts/lib/settings/schema.ts'
import { readLeases } from '../../../scripts/lib/sync-input.ts'
import type { Target } from '../../../scripts/lib/target.ts'
import { describe, onEach } from '../../../scripts/lib/verbs.ts'

const config = {
  never_ban: ['198.51.100.7'],
  min_prefix: { ipv4: 24, ipv6: 48 },
} as unknown as Config
const call = { config, owner: 'web1', jail: undefined }

function read(input: string, options = {}, jail?: string): { leases: string[]; refused: number } {
  const { leases, refused } = readLeases(input, { ...call, jail }, options)
  return { leases: leases.map(formatLease), refused }
}

test('readLeases() makes every lease the caller’s own and takes the longest of two', () => {
  const input =
    '203.0.113.1 sshd 4000000000 other\n# remark\n\n203.0.113.1/32 sshd 0\n203.0.113.1 web 4000000000\n'
  const leases = ['203.0.113.1 sshd 0 web1', '203.0.113.1 web 4000000000 web1']
  assert.deepEqual(read(input), { leases, refused: 0 })
})

test('readLeases() skips and counts what may not be banned, and leaves out what is over', () => {
  const input =
    '198.51.100.0/24 a 0\n10.0.0.0/8 a 0\n127.0.0.1 a 0\n203.0.113.1 a 5\n203.0.113.2 a 0\n'
  assert.deepEqual(read(input), { leases: ['203.0.113.2 a 0 web1'], refused: 3 })
})

test('readLeases() refuses everything for one malformed line, and names it', () => {
  assert.throws(() => read('203.0.113.1 a 0\n\n203.0.113 a 0\n'), {
    code: 65,
    message: /^Cannot sync: line 3: /,
  })
})

test('readLeases() refuses empty input unless it holds a remark or is allowed', () => {
  for (const input of ['', '\n', ' \n\t\n']) assert.throws(() => read(input), { code: 65 })
  assert.deepEqual(read('# none\n').leases, [])
  assert.deepEqual(read('', { 'allow-empty': true }).leases, [])
})

test('readLeases() takes only the jail that the call is about', () => {
  assert.deepEqual(read('203.0.113.1 a 0\n203.0.113.1 b 0\n', {}, 'b').leases, [
    '203.0.113.1 b 0 web1',
  ])
})

test('readExpiry() adds ban time to its beginning', () => {
  assert.equal(readExpiry({ time: '1700000000.75', bantime: '600' }), 1_700_000_601)
  assert.equal(readExpiry({ time: '1700000000', bantime: '-1' }), 0)
  assert.equal(readExpiry({}), 0)
  for (const bantime of ['', '1h', '-2', '1.5'])
    assert.throws(() => readExpiry({ bantime }), { code: 65 })
  for (const time of ['', 'now', '-1', '1e9'])
    assert.throws(() => readExpiry({ time }), { code: 65 })
})

test('onEach() serves all, and joins what failed with the worst code', async () => {
  const served: string[] = []
  const targets = ['a', 'b', 'c'].map((name) => ({ name }) as Target)
  const work = async ({ name }: Target): Promise<void> => {
    served.push(name)
    if (name === 'a') throw new Failure(EXIT.refused, 'login refused')
    if (name === 'b') throw new Failure(EXIT.unreachable, 'cannot connect')
  }
  const message = 'Cannot ban it on "a": login refused; on "b": cannot connect'
  await assert.rejects(onEach(targets, 'ban it', work), { code: 77, message })
  assert.deepEqual(served, ['a', 'b', 'c'])
})

test('onEach() lets a bug through as what it is', async () => {
  const bug = async (): Promise<void> => {
    throw new TypeError('oops')
  }
  await assert.rejects(onEach([{ name: 'a' } as Target], 'ban', bug), TypeError)
})

test('describe() names what was refused only if something was', () => {
  const counts = { added: 1, extended: 2, removed: 3, unchanged: 4 }
  assert.equal(describe({ ...counts, refused: 0 }), 'added 1, extended 2, removed 3, unchanged 4')
  assert.match(describe({ ...counts, refused: 5 }), /, refused 5$/)
})
