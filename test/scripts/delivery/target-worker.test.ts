import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { beforeEach, describe, test } from 'node:test'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { DesiredLeases, type Wish } from '../../../scripts/lib/delivery/desired-leases.ts'
import type { Fail2BanBans } from '../../../scripts/lib/delivery/fail2ban-bans.ts'
import { SILENT } from '../../../scripts/lib/delivery/log.ts'
import { changesFor, TargetWorker } from '../../../scripts/lib/delivery/target-worker.ts'
import { Failure } from '../../../scripts/lib/failure.ts'
import type { Lease } from '../../../scripts/lib/lease.ts'
import { RELEASED } from '../../../scripts/lib/ledger.ts'
import {
  type Call,
  type Change,
  LostGeneration,
  type Outcome,
  Refusal,
  type Target,
} from '../../../scripts/lib/target.ts'
import { temporaryFolder } from '../../lib/folder.ts'
import { waitUntil } from '../../lib/wait.ts'

/** Fail2Ban has no bans, and no jail that is odd. */
const NOTHING = {
  leases: [],
  inexact: [],
  instance: '1.1',
  namings: new Map(),
  used: true,
  direct: false,
  kept: new Set<string>(),
  keepsOthers: false,
  problems: [],
}

const folder = temporaryFolder('worker')
const END = Math.floor(Date.now() / 1000) + 600

let directory: string
let book: DesiredLeases
let told: string[]
/** What the target does with the next changes. */
let answer: (changes: readonly Change[]) => Outcome[]
/** What it has since the last sync, and what it never takes in one. */
let has: Lease[]
let refuses: string[]

const target = {
  name: 'edge1',
  async start() {},
  async check() {},
  async list() {
    return has
  },
  async sync(_, leases) {
    told.push(`sync ${leases.map(({ address }) => address.text).join(' ')}`)
    has = leases.filter(({ address }) => !refuses.includes(address.text))
    const refused = leases.length - has.length
    return { added: has.length, extended: 0, removed: 0, unchanged: 0, refused }
  },
  async change(_, changes) {
    told.push(changes.map(textOf).join(', '))
    return answer(changes)
  },
} satisfies Target

beforeEach(() => {
  directory = mkdtempSync(`${folder}/state-`)
  book = new DesiredLeases(directory, 'firewall', 'web1')
  told = []
  has = []
  refuses = []
  answer = (changes) => changes.map(() => undefined)
})

function textOf(change: Change): string {
  if (change.verb === 'unban') return `unban ${change.address.text}`
  const { address, expires } = change.lease
  return `ban ${address.text} ${expires === 0 ? 'NEVER' : expires - END}`
}

function open(): TargetWorker {
  const call = () => ({ signal: AbortSignal.timeout(60_000) }) as Call
  return new TargetWorker({
    sibling: 'firewall',
    target,
    book,
    directory,
    owner: 'web1',
    call,
    log: SILENT,
  })
}

function want(worker: TargetWorker, ip: string, expires = END): void {
  const address = parseAddress(ip)
  if (expires === RELEASED) book.take({ verb: 'unban', address, jail: 'sshd' })
  else book.take({ verb: 'ban', address, jail: 'sshd', expires, naming: undefined })
  worker.notice({ address: address.text, jail: 'sshd' })
}

describe('TargetWorker', () => {
  test('delivers in order, and only the last of several changes about one address', async () => {
    const worker = open()
    want(worker, '192.0.2.1')
    want(worker, '192.0.2.2')
    want(worker, '192.0.2.1', RELEASED)
    want(worker, '192.0.2.3', RELEASED)
    want(worker, '192.0.2.3', END + 5)
    assert.equal(await worker.deliver(), true)
    assert.deepEqual(told, ['ban 192.0.2.2 0, unban 192.0.2.1, ban 192.0.2.3 5'])
    assert.equal(worker.queued, 0)
  })

  test('sends nothing that is over, and nothing that was confirmed before', async () => {
    const worker = open()
    want(worker, '192.0.2.1', Math.floor(Date.now() / 1000) - 5)
    want(worker, '192.0.2.2')
    await worker.deliver()
    want(worker, '192.0.2.2')
    want(worker, '192.0.2.2', END - 1) // restored, with its time rounded the other way
    await worker.deliver()
    assert.deepEqual(told, ['ban 192.0.2.2 0'])
  })

  test('knows after a restart what is left to do', async () => {
    const first = open()
    want(first, '192.0.2.1')
    await first.deliver()
    answer = () => {
      throw new Failure(69, 'away')
    }
    want(first, '192.0.2.2')
    want(first, '192.0.2.1', RELEASED)
    assert.equal(await first.deliver(), false)
    book.commit('')
    book = new DesiredLeases(directory, 'firewall', 'web1')
    answer = (changes) => changes.map(() => undefined)
    const second = open()
    assert.equal(second.queued, 2)
    await second.deliver()
    assert.deepEqual(told.at(-1)?.split(', ').sort(), ['ban 192.0.2.2 0', 'unban 192.0.2.1'])
  })

  test('what was not tried comes first again; what was newer is not lost', async () => {
    const worker = open()
    for (const last of [1, 2, 3]) want(worker, `192.0.2.${last}`)
    answer = () => {
      want(worker, '192.0.2.4')
      want(worker, '192.0.2.2', RELEASED)
      const busy = new Failure(75, 'busy')
      return [undefined, busy, busy]
    }
    assert.equal(await worker.deliver(), false)
    const { lastError, failingSince, queued } = worker.state()
    assert.deepEqual([lastError?.code, failingSince > 0, queued], [75, true, 3])
    answer = (changes) => changes.map(() => undefined)
    await worker.deliver()
    assert.deepEqual(told.at(-1), 'ban 192.0.2.3 0, ban 192.0.2.4 0, unban 192.0.2.2')
    assert.equal(worker.state().failingSince, 0)
  })

  const rejected = (worker: TargetWorker) =>
    worker.state().rejected.map(({ code, change, acknowledged }) => [code, change, acknowledged])

  test('rejects what can never work, keeps what may, and delivers the rest', async () => {
    const worker = open()
    for (const last of [1, 2, 3]) want(worker, `192.0.2.${last}`)
    answer = () => [new Refusal(65, 'never'), new Refusal(77, 'full'), undefined]
    assert.equal(await worker.deliver(), true)
    assert.deepEqual(rejected(worker), [[65, 'ban 192.0.2.1 in sshd', false]])
    assert.equal(worker.queued, 1)
    assert.deepEqual(rejected(open()), rejected(worker), 'the next process knows it')
  })

  test('never sends again what was rejected, not in a sync, nor when it is restored', async () => {
    const first = open()
    answer = (changes) => changes.map(() => new Refusal(65, 'never'))
    want(first, '192.0.2.1', 0)
    await first.deliver()
    const [{ id = '' } = {}] = first.state().rejected
    assert.deepEqual(first.acknowledge('192.0.2.9'), [])
    assert.deepEqual(first.acknowledge(id).length, 1)
    book.commit('')
    book = new DesiredLeases(directory, 'firewall', 'web1')
    const worker = open()
    want(worker, '192.0.2.1', 0)
    want(worker, '192.0.2.2')
    answer = (changes) => changes.map(() => undefined)
    await worker.deliver()
    await worker.sync(NOTHING, () => {})
    await worker.compare([...book.living()], NOTHING, () => {})
    assert.deepEqual(told, [
      'ban 192.0.2.1 NEVER',
      'ban 192.0.2.2 0',
      ...Array(2).fill('sync 192.0.2.2'),
    ])
    assert.deepEqual(rejected(worker), [[65, 'ban 192.0.2.1 in sshd', true]])
  })

  test('tries another ban of what was rejected, which then has to be acknowledged anew', async () => {
    const worker = open()
    const never = (changes: readonly Change[]) => changes.map(() => new Refusal(65, 'never'))
    answer = never
    want(worker, '192.0.2.1')
    await worker.deliver()
    worker.acknowledge('all')
    want(worker, '192.0.2.1', END + 1) // the same, rounded the other way
    await worker.deliver()
    assert.deepEqual(rejected(worker), [[65, 'ban 192.0.2.1 in sshd', true]])
    want(worker, '192.0.2.1', END + 60)
    await worker.deliver()
    assert.deepEqual(rejected(worker), [[65, 'ban 192.0.2.1 in sshd', false]])
    answer = (changes) => changes.map(() => undefined)
    want(worker, '192.0.2.1', END + 120)
    await worker.deliver()
    assert.deepEqual([told.length, rejected(worker)], [3, []])
  })

  test('finds out what a sync was refused, and why, by trying it alone', async () => {
    const worker = open()
    for (const last of [1, 2, 3]) want(worker, `192.0.2.${last}`)
    refuses = ['192.0.2.2']
    answer = (changes) => changes.map(() => new Refusal(65, 'never_ban'))
    await worker.sync(NOTHING, () => {})
    assert.deepEqual(told, ['sync 192.0.2.1 192.0.2.2 192.0.2.3', 'ban 192.0.2.2 0'])
    assert.deepEqual(rejected(worker), [[65, 'ban 192.0.2.2 in sshd', false]])
    await worker.sync(NOTHING, () => {})
    assert.deepEqual(told.at(-1), 'sync 192.0.2.1 192.0.2.3')
  })

  test('fills a target that has lost everything, in one sync', async () => {
    const worker = open()
    want(worker, '192.0.2.1')
    await worker.deliver()
    answer = () => {
      throw new LostGeneration(75, 'lost generation')
    }
    want(worker, '192.0.2.2')
    assert.equal(await worker.deliver(), true)
    assert.deepEqual(told.at(-1), 'sync 192.0.2.1 192.0.2.2')
    assert.equal(worker.queued, 0)
  })

  test('follow() tries again until it works, and ends when it is told to', async () => {
    const worker = open()
    let tries = 0
    answer = (changes) => {
      if (++tries < 3) throw new Failure(69, 'away')
      return changes.map(() => undefined)
    }
    const following = worker.follow()
    want(worker, '192.0.2.1')
    await waitUntil('the third try', () => worker.queued === 0)
    assert.equal(tries, 3)
    worker.stop()
    await following
  })

  test('a broken state file or ledger line stops nothing', async () => {
    writeFileSync(`${directory}/firewall@edge1.state`, '{ this is no JSON')
    writeFileSync(`${directory}/firewall@edge1.confirmed`, 'nonsense\n192.0.2.1 sshd')
    const worker = open()
    want(worker, '192.0.2.1')
    assert.equal(await worker.deliver(), true)
    assert.deepEqual(told, ['ban 192.0.2.1 0'])
  })
})

test('changesFor() gives back first what is to end sooner', () => {
  const key = { address: '192.0.2.1', jail: 'sshd' }
  const texts = (wanted: number, has: number | undefined) =>
    changesFor(key, wanted, has, 'web1').map(textOf)
  assert.deepEqual(texts(END - 60, END), ['unban 192.0.2.1', 'ban 192.0.2.1 -60'])
  assert.deepEqual(texts(END, 0), ['unban 192.0.2.1', 'ban 192.0.2.1 0'])
  assert.deepEqual(texts(END + 60, END), ['ban 192.0.2.1 60'])
  assert.deepEqual(texts(END, END), [])
  assert.deepEqual(texts(RELEASED, undefined), ['unban 192.0.2.1'])
  assert.deepEqual(texts(RELEASED, RELEASED), [])
  assert.deepEqual(texts(END - 6000, undefined), [])
})

describe('DesiredLeases', () => {
  const lease = (ip: string, expires: number) => ({
    address: parseAddress(ip),
    jail: 'sshd',
    expires,
    owner: 'web1',
  })
  const wishes = (found: { address: string; expires: number }[] | undefined) =>
    (found ?? []).map(({ address, expires }) => `${address} ${expires - END}`).sort()
  const ban = (ip: string, expires = END) =>
    book.take({ verb: 'ban', address: parseAddress(ip), jail: 'sshd', expires, naming: undefined })

  test('merge() believes Fail2Ban, but for what the queue has said since it was asked', () => {
    ban('192.0.2.1')
    ban('192.0.2.2')
    const mark = book.mark()
    ban('192.0.2.3')
    book.take({ verb: 'unban', address: parseAddress('192.0.2.4'), jail: 'sshd' })
    const truth = [lease('192.0.2.1', END + 1), lease('192.0.2.4', END), lease('192.0.2.5', END)]
    const merged = book.merge({ ...NOTHING, leases: truth }, mark)
    // 1 ends within a second of what is known; 2 is over; 3 is newer; 4 was freed meanwhile.
    assert.deepEqual(wishes(merged), ['192.0.2.1 0', '192.0.2.3 0', '192.0.2.5 0'])
    const changed = book.become(merged ?? []).map(({ address }) => address)
    assert.deepEqual(changed.sort(), ['192.0.2.2', '192.0.2.5'])
    assert.equal(book.wants({ address: '192.0.2.2', jail: 'sshd' }), RELEASED)
  })

  test('merge() leaves as they are the leases of names that are not understood', () => {
    ban('192.0.2.1')
    book.take({
      verb: 'ban',
      address: parseAddress('192.0.2.2'),
      jail: 'web',
      expires: END,
      naming: undefined,
    })
    const merge = (truth: Partial<Fail2BanBans>): string[] =>
      wishes(book.merge({ ...NOTHING, ...truth }, book.mark()))
    assert.deepEqual(merge({}), [])
    assert.deepEqual(merge({ kept: new Set(['web']) }), ['192.0.2.2 0'])
    assert.deepEqual(merge({ keepsOthers: true }), ['192.0.2.1 0', '192.0.2.2 0'])
    const namings = new Map([['sshd', { ports: '22', protocol: 'tcp' }]])
    assert.deepEqual(merge({ keepsOthers: true, namings }), ['192.0.2.2 0'])
    // What is known of an end is better than the latest that it can be.
    assert.deepEqual(merge({ inexact: [lease('192.0.2.1', END + 500)] }), ['192.0.2.1 0'])
    assert.deepEqual(merge({ inexact: [lease('192.0.2.3', END + 500)] }), ['192.0.2.3 500'])
  })

  test('what is banned by hand lasts as long as it says, whatever Fail2Ban says', () => {
    const address = parseAddress('192.0.2.1')
    const key = { address: address.text, jail: 'sshd' }
    book.take({ verb: 'hold', address, jail: 'sshd', expires: END, naming: undefined })
    assert.deepEqual(book.merge(NOTHING, book.mark()), [])
    assert.deepEqual(book.become([]), [])
    assert.equal(book.wants(key), END)
    ban('192.0.2.1', END + 9)
    assert.equal(book.wants(key), END + 9)
    book.take({ verb: 'unban', address, jail: 'sshd' })
    assert.deepEqual(wishes([...book.living()]), ['192.0.2.1 0'])
    book.commit('1.1:1')
    const again = new DesiredLeases(directory, 'firewall', 'web1')
    assert.deepEqual(wishes(again.withHeld([])), ['192.0.2.1 0'])
    assert.equal(again.take({ verb: 'release-all', jail: 'web' }).length, 0)
    assert.equal(again.take({ verb: 'release-all', jail: 'sshd' }).length, 1)
    assert.equal(again.wants(key), RELEASED)
    ban('192.0.2.1')
    book.take({ verb: 'release', address, jail: 'sshd' })
    assert.equal(book.wants(key), RELEASED)
  })

  test('believe() releases most of all at once only when it is said for a minute', (t) => {
    for (let i = 1; i <= 30; i++) ban(`192.0.2.${i}`)
    const all = [...book.living()]
    const heldBack = (wishes: Wish[], instance = '5', sure = false): number =>
      book.believe(wishes, instance, sure).heldBack
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() })
    assert.equal(heldBack(all.slice(15)), 0) // half of them
    assert.equal(heldBack([]), 30)
    assert.deepEqual(book.believe([], '5', false).wishes.length, 30)
    assert.equal(heldBack([], '5', true), 0) // it was told to
    assert.equal(heldBack([], '6'), 0) // it was started since
    assert.equal(heldBack([], '6'), 30)
    t.mock.timers.tick(40_000)
    assert.equal(heldBack([], '6'), 30)
    book.commit('1.1:1')
    t.mock.timers.tick(20_000)
    assert.equal(
      new DesiredLeases(directory, 'firewall', 'web1').believe([], '6', false).heldBack,
      0,
    )
    assert.equal(heldBack(all, '6'), 0) // it has changed its mind
    assert.equal(heldBack([], '6'), 30)
    t.mock.timers.tick(20_000)
    assert.equal(heldBack([], '6'), 30)
  })

  test('commit() keeps ports, and how far the queue was read', () => {
    book.name('sshd', { ports: '22,2222', protocol: 'tcp' })
    ban('192.0.2.1')
    book.commit('7.8:90')
    const again = new DesiredLeases(directory, 'firewall', 'web1')
    assert.equal(again.position, '7.8:90')
    assert.deepEqual([...again.namings], [['sshd', { ports: '22,2222', protocol: 'tcp' }]])
    assert.deepEqual(wishes([...again.living()]), ['192.0.2.1 0'])
  })

  test('stays small, and forgets neither ports nor position', () => {
    book.name('sshd', { ports: 'all', protocol: 'all' })
    for (let round = 0; round < 30_000; round++) {
      ban(`198.18.${(round >> 8) & 255}.${round & 255}`, END + round)
      book.take({
        verb: 'unban',
        address: parseAddress(`198.18.${(round >> 8) & 255}.${round & 255}`),
        jail: 'sshd',
      })
      if (round % 1000 === 999) book.commit(`1.1:${round}`)
    }
    assert.ok(readFileSync(`${directory}/firewall.wanted`).length < 1_100_000)
    const again = new DesiredLeases(directory, 'firewall', 'web1')
    assert.deepEqual([again.position, again.namings.size], ['1.1:29999', 1])
  })
})
