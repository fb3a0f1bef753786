import assert from 'node:assert/strict'
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { beforeEach, test } from 'node:test'
import { openKept, rejectedIn, statusIn } from '../../../scripts/lib/delivery/state.ts'
import { Journal } from '../../../scripts/lib/journal.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('journal')
const path = `${folder}/file`
beforeEach(() => rmSync(path, { force: true, recursive: true }))

const open = (): Journal<number> =>
  new Journal<number>(path, (value) => Object.entries(value as Record<string, number>))

test('Journal keeps what was committed, the last of each key, and forgets what was deleted', () => {
  const journal = open()
  journal.set('a', 1)
  journal.set('b\n"', 2)
  journal.commit()
  assert.equal(readFileSync(path, 'utf8'), '["a",1]\n["b\\n\\"",2]\n')
  journal.set('a', 3)
  assert.equal(journal.delete('b\n"'), true)
  assert.equal(journal.delete('c'), false)
  assert.deepEqual(open().entries(), [
    ['a', 1],
    ['b\n"', 2],
  ])
  journal.commit()
  assert.deepEqual(open().entries(), [['a', 3]])
  assert.equal(open().get('a'), 3)
})

test('Journal writes nothing where nothing has changed', () => {
  const journal = open()
  journal.set('a', 1)
  journal.commit()
  rmSync(path)
  journal.set('a', 1)
  journal.commit()
  assert.deepEqual(open().entries(), [])
})

test('Journal does not grow with its changes', () => {
  const journal = open()
  for (let i = 0; i < 1_000; i++) {
    journal.set(`${i % 3}`, i)
    journal.commit()
  }
  assert.ok(readFileSync(path, 'utf8').split('\n').length < 300)
  assert.deepEqual(new Map(open().entries()), new Map(journal.entries()))
})

test('Journal leaves out what it cannot read, and a line that a kill has cut off', () => {
  writeFileSync(path, '["a",1]\nnonsense\n{}\n[5,6]\n["x"]\n["b",2]\n["c",')
  const journal = open()
  assert.deepEqual(journal.entries(), [
    ['a', 1],
    ['b', 2],
  ])
  assert.match(readFileSync(path, 'utf8'), /\["c",$/, 'a reader changes nothing')
  journal.set('d', 4)
  journal.commit()
  assert.equal(readFileSync(path, 'utf8'), '["a",1]\n["b",2]\n["d",4]\n')
  mkdirSync(`${path}.folder`)
  assert.deepEqual(new Journal<number>(`${path}.folder`, () => []).entries(), [])
})

test('Journal answers 75 where it cannot write, and writes it with the next', () => {
  const journal = new Journal<number>(`${folder}/none/file`, () => [])
  journal.set('a', 1)
  assert.throws(() => journal.commit(), { code: 75 })
  mkdirSync(`${folder}/none`)
  journal.commit()
  assert.equal(readFileSync(`${folder}/none/file`, 'utf8'), '["a",1]\n')
})

test('Journal reads once what an earlier version wrote as one value, and goes on', () => {
  writeFileSync(path, `${JSON.stringify({ a: 1, b: 2 }, null, 1)}\n`)
  const journal = open()
  journal.set('b', 3)
  journal.commit()
  assert.equal(readFileSync(path, 'utf8'), '["a",1]\n["b",3]\n')
  appendFileSync(path, '["a",null]\n')
  assert.deepEqual(open().entries(), [['b', 3]])
})

test('the state of a delivery that an earlier version has kept is read and goes on', () => {
  const what = { code: 65, reason: 'x', expires: 0, acknowledged: true, tried: 7 }
  const rejected = [
    { ...what, id: 'abc123', at: 7, change: 'ban 192.0.2.1 in sshd', key: 'ban 192.0.2.1 sshd' },
    { ...what, id: 'def456', at: 6, change: 'odd', key: 'odd' },
  ]
  const lastError = { at: 5, code: 75, message: 'busy' }
  const status = { lastSuccess: 8, failingSince: 0, lastError, queued: 1, oldest: 2 }
  const old = { ...status, rejected }
  writeFileSync(`${folder}/firewall@edge1.state`, `${JSON.stringify(old, null, 1)}\n`)
  const kept = openKept(folder, 'firewall@edge1')
  assert.deepEqual(statusIn(kept), status)
  assert.deepEqual(rejectedIn(kept), [...rejected].reverse(), 'in the order in which it happened')
  kept.delete('odd')
  kept.commit()
  const again = openKept(folder, 'firewall@edge1')
  assert.deepEqual([statusIn(again), rejectedIn(again)], [status, rejected.slice(0, 1)])
})
