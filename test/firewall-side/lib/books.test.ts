import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, test } from 'node:test'
import { Books, type Plan, SLACK } from '../../../firewall-side/lib/books.ts'
import type { FirewallConfig } from '../../../firewall-side/lib/config.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { Failure } from '../../../scripts/lib/failure.ts'
import { now } from '../../../scripts/lib/lease.ts'
import { neverBan } from '../../../scripts/lib/never.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync('/tmp/f2b-books-')
  writeFileSync(`${folder}/leases`, '# generation abcd0123 1\n')
})
afterEach(() => rmSync(folder, { recursive: true }))

/** What nobody may ban on this machine. */
const NEVER = neverBan([])

function booksOf(owner: string, max_leases = 10): Books {
  const config = { never_ban: [], min_prefix: { ipv4: 24, ipv6: 48 }, max_leases }
  const paths = { config: '', keys: '', state: folder, ledger: `${folder}/leases`, run: folder }
  const books = new Books(config as unknown as FirewallConfig, paths, { owner, peer: undefined })
  books.open(NEVER)
  return books
}

const naming = { ports: '22', protocol: 'tcp' }

function ban(books: Books, text: string, jail = 'sshd', expires = 0): void {
  books.ban({ verb: 'ban', address: parseAddress(text), jail, naming, expires })
}

function unban(books: Books, text: string, jail = 'sshd'): void {
  books.unban({ verb: 'unban', address: parseAddress(text), jail })
}

function sync(books: Books, leases: [string, number][], jail = 'sshd'): string {
  const parsed = leases.map(([text, expires]) => ({ address: parseAddress(text), jail, expires }))
  return carryOut(books, books.plan({ verb: 'sync', jail, naming, leases: parsed }))
}

function flush(books: Books, jail?: string, but?: ReadonlySet<string>): string {
  return carryOut(books, books.plan({ verb: 'flush', jail, ...(but && { but }) }))
}

function carryOut(books: Books, plan: Plan): string {
  for (let next = 0; !plan.answer; ) next = books.step(plan, next, 3)
  return plan.answer.join('\n')
}

function done(books: Books): void {
  books.commit()
  books.settle()
}

/** The same rules once more, over a plain map of `<address> <jail> <owner>` to its end. */
class Model {
  ends = new Map<string, number>()
  at = 0

  owned(owner: string, jail?: string): [string, number][] {
    return [...this.ends].filter(([key, end]) => {
      const [, of, by] = key.split(' ')
      return by === owner && (jail ?? of) === of && (end === 0 || end > this.at)
    })
  }

  ban(key: string, end: number): void {
    const own = this.ends.get(key) ?? 1
    const held = own === 0 || own > this.at
    if (end !== 0 && end <= this.at) return
    this.ends.set(key, held && (own === 0 || end === 0) ? 0 : Math.max(held ? own : 0, end))
  }

  latest(address: string, jail: string): number | undefined {
    const living = [...this.ends].filter(
      ([key, end]) => key.startsWith(`${address} ${jail} `) && (end === 0 || end > this.at),
    )
    if (living.length === 0) return undefined
    const ends = living.map(([, end]) => end)
    return ends.includes(0) ? 0 : Math.max(...ends)
  }
}

test('300 random changes by three owners come out as in a simple map', () => {
  const seed = Date.now() % 1_000_000
  let state = seed
  const below = (n: number): number => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return Math.floor((state / 2_147_483_648) * n)
  }
  const max = 5
  const owners = ['w1', 'w2', 'w3'].map((owner) => ({ owner, books: booksOf(owner, max) }))
  const addresses = ['203.0.113.', '198.51.100.'].flatMap((net) => [
    `${net}1`,
    `${net}2`,
    `${net}0/24`,
  ])
  const model = new Model()
  const start = 4_000_000_000
  const end = (): number => (below(3) === 0 ? 0 : model.at - 5 + below(60))

  for (let step = 0; step < 300; step++) {
    const { owner, books } = owners[below(3)] ?? { owner: '', books: booksOf('') }
    books.open(NEVER)
    model.at = start + step
    books.at = model.at
    const before = new Map(model.ends)
    const jail = `j${below(2)}`
    const some = addresses.filter(() => below(2) === 0)
    const [address = '203.0.113.1'] = some
    const expires = end()
    let refused = false
    try {
      const what = below(10)
      if (what < 5) {
        model.ban(`${address} ${jail} ${owner}`, expires)
        ban(books, address, jail, expires)
      } else if (what < 7) {
        model.ends.delete(`${address} ${jail} ${owner}`)
        unban(books, address, jail)
      } else if (what < 8) {
        for (const [key] of model.owned(owner, jail)) model.ends.delete(key)
        flush(books, jail)
      } else {
        const wanted = some.map((text): [string, number] => [text, end()])
        for (const [key] of model.owned(owner, jail)) model.ends.delete(key)
        for (const [text, until] of wanted) model.ban(`${text} ${jail} ${owner}`, until)
        sync(books, wanted, jail)
      }
    } catch (error) {
      assert.ok(error instanceof Failure && error.code === 77, String(error))
      refused = true
    }
    const where = `seed ${seed}, step ${step}`
    const more = model.owned(owner).length
    model.at = start + step
    if (refused) {
      assert.ok(more > max, where)
      model.ends = before
    } else {
      assert.ok(more <= max || more <= [...before].filter(([k]) => k.endsWith(owner)).length, where)
    }
    if (below(10) === 0) {
      books.commit()
      books.revert()
      model.ends = before
    } else {
      done(books)
    }
    for (const each of owners) {
      each.books.open(NEVER)
      each.books.at = model.at
      const own = model.owned(each.owner).map(([key, until]) => {
        const [text, of, by] = key.split(' ')
        return `${text} ${of} ${until} ${by}`
      })
      assert.deepEqual(each.books.list(undefined).sort(), own.sort(), where)
    }
    for (const text of addresses) {
      assert.equal(books.ends(text, jail).now, model.latest(text, jail), where)
    }
  }
})

test('the kernel is told an end only as the latest of all owners, before and after', () => {
  const [one, two] = [booksOf('w1'), booksOf('w2')]
  ban(one, '203.0.113.1', 'sshd', 4_000_000_000)
  assert.deepEqual(one.ends('203.0.113.1', 'sshd'), { before: undefined, now: 4_000_000_000 })
  done(one)
  two.open(NEVER)
  ban(two, '203.0.113.1')
  assert.deepEqual(two.ends('203.0.113.1', 'sshd'), { before: 4_000_000_000, now: 0 })
  unban(two, '203.0.113.1')
  assert.deepEqual(two.ends('203.0.113.1', 'sshd'), { before: 4_000_000_000, now: 4_000_000_000 })
  done(two)
  // What has just ended may still be in the kernel, which then has to be told as of a change.
  two.at = 4_000_000_000 + SLACK - 1
  ban(two, '203.0.113.1', 'sshd', 5_000_000_000)
  assert.deepEqual(two.ends('203.0.113.1', 'sshd'), { before: 4_000_000_000, now: 5_000_000_000 })
})

test('a chain has the union of its owners’ ports and goes with the last of them', () => {
  const [one, two] = [booksOf('w1'), booksOf('w2')]
  ban(one, '203.0.113.1')
  done(one)
  two.open(NEVER)
  two.ban({
    verb: 'ban',
    address: parseAddress('203.0.113.1'),
    jail: 'sshd',
    naming: { ports: '2222', protocol: 'tcp' },
    expires: 0,
  })
  const services = (books: Books) => books.chains().map((chain) => chain.services)
  assert.deepEqual(services(two), [
    [
      {
        protocol: 'tcp',
        ports: [
          [22, 22],
          [2222, 2222],
        ],
      },
    ],
  ])
  ban(two, '203.0.113.2')
  assert.deepEqual(services(two), [[{ protocol: 'tcp', ports: [[22, 22]] }]])
  flush(two, 'sshd')
  assert.equal(two.chains().length, 1)
  done(two)
  one.open(NEVER)
  flush(one)
  assert.deepEqual(one.chains(), [])
})

test('a range of a new length is looked for in its chain only', () => {
  const books = booksOf('w1')
  unban(books, '203.0.113.0/24')
  assert.equal(books.touched.size, 0)
  ban(books, '203.0.113.0/24')
  assert.deepEqual(books.chains()[0]?.widths, ['inet4/24'])
  done(books)
  ban(books, '198.51.100.0/24')
  unban(books, '2001:db8::/64')
  assert.deepEqual([...(books.touched.get('sshd')?.keys() ?? [])], ['198.51.100.0/24'])
})

test('an owner has ranges of 16 lengths of a family at most (77), counted as they are held', () => {
  const [one, two] = [booksOf('w1', 100), booksOf('w2', 100)]
  const lengths = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => `2001:db8:${i + 1}::/${from + i}`)
  for (const [i, text] of lengths(48, 16).entries()) ban(one, text, `j${i % 3}`)
  const full = { code: 77, message: /^16 prefix lengths of IPv6 reached: .* "w1" no longer needs$/ }
  assert.throws(() => ban(one, '2001:db8::/64', 'new'), full)
  const leases = [...lengths(48, 15), ...lengths(64, 2)].map((text): [string, number] => [text, 0])
  assert.throws(() => sync(one, leases, 'j0'), full)
  assert.deepEqual([one.chains().length, one.leases], [3, 16], 'nothing of that has changed')
  ban(one, '203.0.113.0/24', 'j0')
  ban(one, '2001:db8::/48', 'j1')
  done(one)

  two.open(NEVER)
  ban(two, '2001:db8::/64', 'j0')
  unban(two, '2001:db8::/64', 'j0')
  for (const text of lengths(64, 16)) ban(two, text, 'j0')
  assert.equal(two.chains()[0]?.widths.length, 6 + 1 + 16)
  assert.throws(() => ban(two, '2001:db8:99::/99', 'j0'), { code: 77 })
  unban(two, '2001:db8:1::/64', 'j0')
  ban(two, '2001:db8:99::/99', 'j0')
  assert.equal(two.chains()[0]?.widths.length, 6 + 1 + 16, 'one length has gone, another come')
  assert.deepEqual([...two.loads], ['j0'])
  const others = lengths(80, 16).map((text): [string, number] => [text, 0])
  assert.match(sync(two, others, 'j0'), /^added 16, extended 0, removed 16,/)
  done(two)
  assert.deepEqual(booksOf('w1').chains(), two.chains())
})

const MANY = Array.from({ length: 1001 }, (_, i): [string, number] => [
  `10.0.${i >> 8}.${i & 255}`,
  0,
])

test('a sync is carried out in pieces, what it bans before what it frees', () => {
  const books = booksOf('w1', 2000)
  for (const text of ['10.0.0.9', '203.0.113.1', '203.0.113.2']) ban(books, text)
  done(books)
  const more: [string, number][] = [...MANY.slice(0, 5), ['198.51.100.0/24', 0], ['127.0.0.1', 0]]
  const plan = books.plan({
    verb: 'sync',
    jail: 'sshd',
    naming,
    leases: more.map(([text]) => ({ address: parseAddress(text), jail: 'sshd', expires: 0 })),
  })
  const pieces: string[] = []
  for (let next = 0; !plan.answer; ) {
    books.open(NEVER)
    next = books.step(plan, next, 3)
    pieces.push([...(books.touched.get('sshd')?.keys() ?? [])].join(' '))
    done(books)
  }
  assert.deepEqual(pieces, [
    '10.0.0.0 10.0.0.1 10.0.0.2',
    '10.0.0.3 10.0.0.4 198.51.100.0/24',
    '10.0.0.9 203.0.113.1 203.0.113.2',
  ])
  assert.deepEqual(plan.answer, ['added 6, extended 0, removed 3, unchanged 0, refused 1'])
  assert.match(sync(books, MANY), /^added 996, extended 0, removed 1, unchanged 5$/)
})

test('what is too much for an owner is refused before the first piece', () => {
  const books = booksOf('w1', 1000)
  assert.throws(() => sync(books, MANY), { code: 77 })
  assert.deepEqual([books.touched.size, books.leases, books.chains()], [0, 0, []])
})

test('what an owner says between two pieces of its sync or flush is newer, and stays', () => {
  /** As if another process than this one did what comes next. */
  const handOver = (from: number, to: number) => {
    const usage = `${folder}/firewall.usage`
    const text = readFileSync(usage, 'utf8')
    writeFileSync(usage, text.replace(`"pid":${from}`, `"pid":${to}`))
  }
  for (const verb of ['sync', 'flush'] as const) {
    for (const rewritten of [false, true]) {
      const where = `${verb}, ${rewritten ? 'rewritten' : 'appended'}`
      writeFileSync(`${folder}/leases`, '# generation abcd0123 1\n')
      const one = booksOf('w1')
      for (const n of [1, 2, 3, 4]) ban(one, `203.0.113.${n}`)
      done(one)
      const leases = [5, 6, 7].map((n) => ({
        address: parseAddress(`203.0.113.${n}`),
        jail: 'sshd',
        expires: 0,
      }))
      const plan = one.plan(
        verb === 'sync' ? { verb, jail: 'sshd', naming, leases } : { verb, jail: undefined },
      )
      let next = one.step(plan, 0, 2)
      done(one)
      handOver(process.pid, process.ppid)
      const [same, other] = [booksOf('w1'), booksOf('w2')]
      ban(same, '203.0.113.4')
      unban(same, '203.0.113.7')
      unban(same, '203.0.113.5')
      ban(same, '203.0.113.9')
      done(same)
      other.open(NEVER)
      ban(other, '203.0.113.3')
      done(other)
      if (rewritten) {
        other.open(NEVER)
        other.compacting()()
      }
      handOver(process.ppid, process.pid)
      one.open(NEVER)
      while (!plan.answer) next = one.step(plan, next, 2)
      done(one)
      const left = verb === 'sync' ? [4, 6, 9] : [4, 9]
      assert.deepEqual(
        one.list(undefined).sort(),
        left.map((n) => `203.0.113.${n} sshd 0 w1`),
        where,
      )
      assert.equal(one.ends('203.0.113.3', 'sshd').now, 0, where)
      assert.equal(one.chains().length, 1, where)
    }
  }
})

test('what is synced is held until the latest of all owners’ ends', () => {
  const [soon, late] = [now() + 1000, now() + 2000]
  const one = booksOf('w4', 2000)
  ban(one, '10.0.0.1', 'shared', late)
  ban(one, '10.0.0.2', 'shared', soon)
  ban(one, '10.0.0.1', 'another', 0)
  done(one)
  const two = booksOf('w5', 2000)
  const leases = MANY.map(([text], i): [string, number] => [text, i === 2 ? late : soon])
  sync(two, leases, 'shared')
  const end = (text: string) => two.ends(text, 'shared')
  assert.deepEqual(['10.0.0.0', '10.0.0.1', '10.0.0.2'].map(end), [
    { before: undefined, now: soon },
    { before: late, now: late },
    { before: soon, now: late },
  ])
})

test('a flush of all other jails leaves those that are named, and the leases of others', () => {
  const one = booksOf('w6')
  for (const jail of ['kept', 'gone']) ban(one, '10.7.0.1', jail)
  done(one)
  const two = booksOf('w7')
  ban(two, '10.7.0.1', 'gone')
  done(two)
  one.open(NEVER)
  assert.equal(flush(one, undefined, new Set(['kept', 'gone'])), 'removed 0')
  assert.equal(flush(one, undefined, new Set(['kept'])), 'removed 1')
  done(one)
  assert.equal(
    flush(one, undefined, new Set(['kept'])),
    'removed 0',
    'what was given back is not flushed again',
  )
  const left = [one, two].flatMap((books) => {
    books.open(NEVER)
    return books.list(undefined).map((line) => line.replace(/ \d+ /, ' '))
  })
  assert.deepEqual(left, ['10.7.0.1 kept w6', '10.7.0.1 gone w7'])
})

test('a lost ledger begins a generation that each owner has to fill, whole', () => {
  rmSync(`${folder}/leases`)
  const one = booksOf('w1')
  assert.match(one.generation, /^[0-9a-f]{8}$/)
  ban(one, '203.0.113.1')
  flush(one, 'sshd')
  assert.equal(one.needsSync, true)
  sync(one, [])
  assert.equal(one.needsSync, false)
  one.commit()
  one.revert()
  assert.equal(one.needsSync, true, 'what the kernel did not take was not synced')
  flush(one)
  done(one)
  const again = [booksOf('w1'), booksOf('w2')]
  assert.deepEqual(
    again.map(({ needsSync, generation }) => [needsSync, generation === one.generation]),
    [
      [false, true],
      [true, true],
    ],
  )
})

test('a rewrite keeps what counts, and what others have written while it was prepared', () => {
  const books = booksOf('w1')
  ban(books, '203.0.113.1')
  ban(books, '203.0.113.0/24')
  unban(books, '203.0.113.1')
  done(books)
  assert.deepEqual([books.ended, books.isLarge], [1, false])
  const compact = books.compacting()
  const other = booksOf('w2')
  ban(other, '203.0.113.2', 'web')
  done(other)
  books.open(NEVER)
  const contents = books.contents()
  compact()
  assert.deepEqual(booksOf('w3').contents(), contents)
  assert.deepEqual(booksOf('w1').list('sshd'), ['203.0.113.0/24 sshd 0 w1'])
  assert.doesNotMatch(readFileSync(`${folder}/leases`, 'utf8'), /^203.0.113.1 /m)
})

test('a rewrite that another process was faster with is left alone', () => {
  const books = booksOf('w1')
  for (const what of [ban, unban, ban]) what(books, '203.0.113.1')
  done(books)
  const late = books.compacting()
  booksOf('w2').compacting()()
  const text = readFileSync(`${folder}/leases`, 'utf8')
  books.open(NEVER)
  late()
  assert.equal(readFileSync(`${folder}/leases`, 'utf8'), text)
})

test('what the kernel refused counts toward the rate', () => {
  const books = booksOf('w1')
  const operations = (): number => {
    const text = readFileSync(`${folder}/firewall.usage`, 'utf8')
    return (JSON.parse(text) as { operations: Record<string, number> }).operations.w1 ?? 0
  }
  for (const end of ['settle', 'revert'] as const) {
    books.usage.operation('w1', 600)
    ban(books, '203.0.113.1')
    books.commit()
    books[end]()
    books.open(NEVER)
  }
  assert.equal(operations(), 2)
})

test('blocked() says whether and until when, ranges included, and never by whom', () => {
  const [one, two] = [booksOf('w1'), booksOf('w2')]
  ban(one, '203.0.113.1', 'sshd', 4_000_000_000)
  ban(one, '203.0.113.0/24', 'secret', 4_000_000_001)
  ban(one, '2001:db8:1::/48', 'secret')
  done(one)
  two.open(NEVER)
  const asked = (text: string) => two.blocked(parseAddress(text))
  assert.deepEqual(asked('203.0.113.1'), ['203.0.113.0/24 4000000001', '203.0.113.1 4000000000'])
  assert.deepEqual(asked('203.0.113.9'), ['203.0.113.0/24 4000000001'])
  assert.deepEqual(asked('2001:db8:1:2::3'), ['2001:db8:1::/48 0'])
  assert.deepEqual(asked('198.51.100.1'), [])
  assert.deepEqual(asked('203.0.113.0/28'), ['203.0.113.0/24 4000000001', 'partly 4000000000'])
  ban(two, '203.0.113.1', 'sshd')
  assert.deepEqual(asked('203.0.113.1').at(-1), '203.0.113.1 0', 'the latest of all')
  two.at = 4_000_000_001
  assert.deepEqual(asked('203.0.113.9'), [], 'it is over')
  two.open([...NEVER, parseAddress('203.0.113.1')])
  assert.deepEqual(asked('203.0.113.1'), [], 'never_ban lets it through')
})
