import assert from 'node:assert/strict'
import { appendFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { beforeEach, test } from 'node:test'
import { replaceDurably } from '../../../scripts/lib/durable.ts'
import { alive } from '../../../scripts/lib/lease.ts'
import { Ledger, type Line, RELEASED, withLedger } from '../../../scripts/lib/ledger.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('ledger')
const path = `${folder}/leases`
const NOW = 1_700_000_000
beforeEach(() => rmSync(path, { force: true }))

function open(): Ledger {
  const ledger = new Ledger(path)
  ledger.refresh()
  return ledger
}

function line(text: string): Line {
  const [address = '', jail = '', expires = '', owner = ''] = text.split(' ')
  return { address, jail, expires: Number(expires), owner }
}

function living(ledger: Ledger): string[] {
  const lines = Array.from(
    ledger.living(NOW),
    (l) => `${l.address} ${l.jail} ${l.expires} ${l.owner}`,
  )
  return lines.sort()
}

test('Ledger tells a lost file from an empty one', () => {
  assert.equal(open().exists, false)
  writeFileSync(path, '')
  assert.equal(open().exists, true)
})

test('Ledger reads nothing before it is told to, so that a lock can come first', () => {
  writeFileSync(path, '192.0.2.1 sshd 0 we')
  const ledger = new Ledger(path)
  assert.equal(ledger.exists, false)
  assert.equal(readFileSync(path, 'utf8'), '192.0.2.1 sshd 0 we')
  appendFileSync(path, 'b1\n')
  ledger.refresh()
  assert.deepEqual(living(ledger), ['192.0.2.1 sshd 0 web1'])
})

test('held() finds the last line about an (address, jail, owner) and no look-alike', () => {
  const lines = [
    '1.2.3.4 a 5 w',
    '11.2.3.4 a 6 w',
    '1.2.3.40 a 7 w',
    '1.2.3.4/31 a 8 w',
    '1.2.3.4 b 9 w',
    '# 1.2.3.4 a 1 w',
    '1.2.3.4 a 2 w',
  ]
  writeFileSync(path, `${lines.join('\n')}\n`)
  const expected = [
    { jail: 'a', owner: 'w', expires: 2 },
    { jail: 'b', owner: 'w', expires: 9 },
  ]
  const ledger = open()
  assert.deepEqual(ledger.held('1.2.3.4'), expected)
  assert.deepEqual([...ledger.ended(NOW)].length, 5)
  assert.deepEqual(ledger.held('1.2.3.4'), expected)
  assert.deepEqual(ledger.held('2.3.4'), [])
})

test('put() is seen at once and written by commit() only', () => {
  const ledger = open()
  ledger.put(line('192.0.2.1 sshd 0 web1'))
  assert.deepEqual(living(ledger), ['192.0.2.1 sshd 0 web1'])
  assert.equal(open().exists, false)
  ledger.commit()
  assert.equal(readFileSync(path, 'utf8'), '192.0.2.1 sshd 0 web1\n')
  ledger.put(line('192.0.2.2 sshd 0 web1'))
  ledger.discard()
  assert.deepEqual(living(ledger), ['192.0.2.1 sshd 0 web1'])
})

test('revert() takes back leases and remarks since the last settle()', () => {
  const ledger = open()
  ledger.put(line('192.0.2.1 sshd 1800000000 web1'))
  ledger.commit()
  ledger.settle()
  ledger.put(line('192.0.2.1 sshd 0 web1'))
  ledger.put(line('192.0.2.2 sshd 0 web1'))
  ledger.remark('chain b')
  ledger.commit()
  ledger.revert()
  assert.deepEqual(living(ledger), ['192.0.2.1 sshd 1800000000 web1'])
  assert.deepEqual(living(open()), living(ledger))
  assert.deepEqual(ledger.remarks(), [])
  assert.equal(readFileSync(path, 'utf8'), '192.0.2.1 sshd 1800000000 web1\n')
})

test('revert() leaves a file alone that somebody without the lock has changed', () => {
  const ledger = open()
  ledger.put(line('192.0.2.1 sshd 0 web1'))
  ledger.commit()
  writeFileSync(path, '192.0.2.9 sshd 0 web1\n')
  ledger.revert()
  assert.equal(readFileSync(path, 'utf8'), '192.0.2.9 sshd 0 web1\n')
  assert.deepEqual(living(ledger), ['192.0.2.9 sshd 0 web1'])
})

test('what was noted is seen at once, written by commit() and taken back by revert()', () => {
  const ledger = open()
  ledger.put(line('192.0.2.1 sshd 0 web1'))
  ledger.commit()
  ledger.settle()
  for (const text of ['192.0.2.1 sshd 1 web1', '192.0.2.2 sshd 0 web1']) ledger.put(line(text))
  assert.deepEqual(living(ledger), ['192.0.2.2 sshd 0 web1'])
  ledger.commit()
  assert.deepEqual(living(open()), ['192.0.2.2 sshd 0 web1'])
  ledger.revert()
  assert.deepEqual(living(open()), ['192.0.2.1 sshd 0 web1'])
})

test('refresh() tells what others have appended, once everything was parsed', () => {
  const told = (ledger: Ledger): string[] => {
    const lines: string[] = []
    ledger.refresh(({ address, jail, expires, owner }) => {
      lines.push(`${address} ${jail} ${expires} ${owner}`)
    })
    return lines
  }
  const [a, b] = [open(), open()]
  a.put(line('192.0.2.1 sshd 0 web1'))
  a.put(line('192.0.2.2 sshd 0 web1'))
  a.commit()
  b.study()
  assert.deepEqual(told(b), [])
  a.put(line('192.0.2.1 sshd 1 web1'))
  a.put(line('192.0.2.3 sshd 0 web2'))
  a.commit()
  assert.deepEqual(told(b), ['192.0.2.1 sshd 1 web1', '192.0.2.3 sshd 0 web2'])
  assert.deepEqual(living(b), ['192.0.2.2 sshd 0 web1', '192.0.2.3 sshd 0 web2'])
  a.put(line('192.0.2.2 sshd 5000000000 web1'))
  a.put(line('192.0.2.4 sshd 0 web1'))
  a.put(line('192.0.2.3 sshd 1 web2'))
  a.commit()
  a.compact(NOW)
  assert.deepEqual(told(b), [], 'it was rewritten')
  assert.deepEqual(living(b), living(a))
})

test('study() without the lock leaves a line that is being written alone', () => {
  writeFileSync(path, '192.0.2.1 sshd 0 web1\n192.0.2.2 sshd 0 we')
  const ledger = new Ledger(path)
  ledger.study()
  assert.deepEqual(living(ledger), ['192.0.2.1 sshd 0 web1'])
  assert.match(readFileSync(path, 'utf8'), /we$/)
  appendFileSync(path, 'b1\n')
  ledger.refresh()
  assert.deepEqual(living(ledger), ['192.0.2.1 sshd 0 web1', '192.0.2.2 sshd 0 web1'])
})

test('refresh() sees what another process wrote', () => {
  const [a, b] = [open(), open()]
  a.put(line('192.0.2.1 sshd 0 web1'))
  a.commit()
  assert.deepEqual(b.held('192.0.2.1'), [])
  b.refresh()
  assert.equal(b.held('192.0.2.1').length, 1)
})

test('diff() counts and lists what makes one set of leases another', () => {
  writeFileSync(
    path,
    '1.1.1.1 a 0 w\n1.1.1.2 a 0 w\n1.1.1.3 a 5 w\n1.1.1.1 b 0 w\n1.1.1.9 a 0 other\n',
  )
  const wanted = ['1.1.1.1 a 0 w', '1.1.1.3 a 0 w', '1.1.1.4 a 0 w', '1.1.1.9 a 0 w'].map(line)
  const { changes, ...counts } = open().diff('w', 'a', wanted, NOW)
  assert.deepEqual(counts, { added: 3, extended: 0, removed: 1, unchanged: 1 })
  const expected = ['1.1.1.2 a 1 w', '1.1.1.3 a 0 w', '1.1.1.4 a 0 w', '1.1.1.9 a 0 w'].map(line)
  assert.deepEqual(changes, expected)
  assert.equal(open().diff('w', undefined, wanted, NOW).removed, 2)
})

test('compact() drops what has ended and keeps remarks and what it cannot read', () => {
  writeFileSync(
    path,
    '# a\n192.0.2.1 sshd 5 w\n192.0.2.2 sshd 0 w\nwhat?\n192.0.2.2 sshd 1 w\n192.0.2.3 b 0 w\n',
  )
  const ledger = open()
  ledger.compact(NOW)
  assert.equal(readFileSync(path, 'utf8'), '# a\nwhat?\n192.0.2.3 b 0 w\n')
  assert.deepEqual(living(ledger), ['192.0.2.3 b 0 w'])
})

test('tidy() rewrites a file once it grows over a mebibyte of which more than half is over', () => {
  const lines = (count: number, jail: string, expires: number): Line[] =>
    Array.from({ length: count }, (_, i) => {
      return { address: `2001:db8::${i.toString(16)}`, jail, expires, owner: 'web1' }
    })
  const ledger = open()
  assert.deepEqual(living(ledger), []) // so that it knows all of it
  const grow = (more: Line[]): void => {
    for (const one of more) ledger.put(one)
    ledger.commit()
    ledger.tidy(NOW, () => ['# kept'])
  }
  grow(lines(20_000, 'sshd', 5))
  assert.ok(ledger.size < 1_048_576)
  assert.ok(readFileSync(path, 'utf8').startsWith('2001:db8::0 sshd 5'), 'it is small')
  grow(lines(20_000, 'other', 0))
  assert.ok(ledger.size > 1_048_576)
  assert.ok(readFileSync(path, 'utf8').startsWith('2001:db8::0 sshd 5'), 'half of it is in force')
  const [first] = lines(1, 'other', 0)
  for (let i = 0; i < 6; i++) grow(Array<Line>(10_000).fill(first as Line))
  const text = readFileSync(path, 'utf8')
  assert.ok(text.startsWith('# kept\n2001:db8::0 other 0 web1\n'), text.slice(0, 80))
  assert.equal(living(ledger).length, 20_000)
})

test('tidy() looks through a file only where it has let it grow by another mebibyte', () => {
  writeFileSync(path, '192.0.2.1 sshd 5 web1\n'.repeat(60_000))
  const ledger = open()
  ledger.put(line('192.0.2.2 sshd 0 web1'))
  ledger.commit()
  ledger.tidy(NOW)
  assert.ok(ledger.size > 1_048_576)
})

test('withLedger() writes what the work notes, and nothing if it fails', async () => {
  const answer = await withLedger(path, (ledger) => {
    ledger.put(line('192.0.2.1 sshd 0 web1'))
    return 7
  })
  assert.equal(answer, 7)
  const failing = withLedger(path, (ledger) => {
    ledger.put(line('192.0.2.2 sshd 0 web1'))
    throw new Error('odd')
  })
  await assert.rejects(failing, /odd/)
  const seen = await withLedger(
    path,
    (ledger) => {
      ledger.put(line('192.0.2.3 sshd 0 web1'))
      return living(ledger).length
    },
    { dryRun: true, lock: `${folder}/none/lock` },
  )
  assert.equal(seen, 2)
  assert.deepEqual(living(open()), ['192.0.2.1 sshd 0 web1'])
})

test('refresh() cuts off an unfinished last line', () => {
  writeFileSync(path, '192.0.2.1 sshd 0 web1\n192.0.2.2 sshd 0 w')
  assert.deepEqual(living(open()), ['192.0.2.1 sshd 0 web1'])
  assert.equal(readFileSync(path, 'utf8'), '192.0.2.1 sshd 0 web1\n')
})

test('commit() answers 75 where it cannot write', () => {
  const ledger = new Ledger(`${folder}/none/leases`)
  ledger.put(line('192.0.2.1 sshd 0 web1'))
  assert.throws(() => ledger.commit(), { code: 75, message: /^Cannot write ".*": no such file/ })
  assert.throws(() => replaceDurably(`${folder}/none/x`, ''), { code: 75 })
})

test('2000 random operations leave what a simple model says, in memory and on the disk', () => {
  const seed = Number(process.env.SEED ?? 20_261_120)
  let state = seed
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const model = new Map<string, number>()
  const pick = (letters: string): string => letters.charAt(random(letters.length))
  let ledger = open()
  for (let i = 0; i < 2000; i++) {
    const jail = pick('ab')
    const owner = pick('xyz')
    const address = `192.0.2.${random(12)}${pick(' /').trim() && '/31'}`
    const key = `${address} ${jail} ${owner}`
    const action = random(20)
    const expires = action < 6 ? RELEASED : ([0, NOW - 5, NOW + random(99)][random(3)] ?? 0)
    if (action < 16) {
      ledger.put({ address, jail, owner, expires })
      if (random(8) === 0) ledger.discard()
      else {
        ledger.commit()
        ledger.settle()
        model.set(key, expires)
      }
    } else if (action === 16) ledger.compact(NOW)
    else if (action === 17) ledger = open()
    else if (action === 18) {
      ledger.put({ address, jail, owner, expires })
      ledger.commit()
      ledger.revert()
    } else {
      const row = ledger.held(address).find((r) => r.jail === jail && r.owner === owner)
      const known = model.get(key) ?? RELEASED
      assert.equal(
        alive(row?.expires ?? RELEASED, NOW),
        alive(known, NOW),
        `seed ${seed}, step ${i}`,
      )
    }
    if (i % 50 !== 0) continue
    const expected = [...model]
      .filter(([, end]) => alive(end, NOW))
      .map(([name, end]) => {
        const [a, j, o] = name.split(' ')
        return `${a} ${j} ${end} ${o}`
      })
    assert.deepEqual(living(ledger), expected.sort(), `seed ${seed}, step ${i}`)
    assert.deepEqual(living(open()), living(ledger), `seed ${seed}, step ${i}`)
  }
})

test('50 appenders side by side under the lock lose nothing', async () => {
  const append = (n: number): Promise<void> =>
    withLedger(path, (ledger) => {
      ledger.put(line(`192.0.2.${[...ledger.living(NOW)].length} sshd 0 w${n}`))
    })
  await Promise.all(Array.from({ length: 50 }, (_, n) => append(n)))
  const lines = readFileSync(path, 'utf8').trim().split('\n')
  assert.deepEqual(
    lines.map((text) => text.split(' ')[0]),
    Array.from({ length: 50 }, (_, n) => `192.0.2.${n}`),
  )
})
