import assert from 'node:assert/strict'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { Usage } from '../../../firewall-side/lib/usage.ts'
import { Ledger } from '../../../scripts/lib/ledger.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('usage')

function ledger(text: string): Ledger {
  writeFileSync(`${folder}/leases`, text)
  const opened = new Ledger(`${folder}/leases`)
  opened.refresh()
  return opened
}

test('Usage counts a ledger anew only if it is another one', () => {
  const one = ledger('192.0.2.1 a 0 w1\n192.0.2.2 a 5 w1\n192.0.2.3 a 0 w2\n')
  const usage = new Usage(folder)
  usage.load(one, 100)
  assert.deepEqual([usage.leases('w1'), usage.leases('w2'), usage.leases('w3')], [1, 1, 0])
  usage.add('w1', 5)
  usage.save(one)
  const next = new Usage(folder)
  next.load(one, 100)
  assert.equal(next.leases('w1'), 6)
  next.load(ledger('192.0.2.1 a 0 w1\n192.0.2.2 a 0 w1\n'), 100)
  assert.equal(next.leases('w1'), 2)
})

test('Usage lets an owner do 60000 operations a minute, and others their own', () => {
  const usage = new Usage(folder)
  for (let i = 0; i < 60_000; i++) usage.operation('w1', 600)
  assert.throws(() => usage.operation('w1', 659), { code: 75 })
  usage.operation('w2', 659)
  usage.operation('w1', 660)
})

test('Usage does not trust in what a program of another layout has left in the kernel', () => {
  const one = ledger('192.0.2.1 a 0 w1\n')
  const usage = new Usage(folder)
  usage.load(one, 100)
  usage.shape = 'x'
  usage.save(one)
  const clean = new Usage(folder)
  clean.load(one, 100)
  assert.equal(clean.unclean, false)
  const path = `${folder}/firewall.usage`
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), layout: 1 }))
  const old = new Usage(folder)
  old.load(one, 100)
  assert.equal(old.unclean, true)
  assert.equal(old.leases('w1'), 1)
})

test('Usage begins anew with a file that cannot be read, and survives one that cannot be written', () => {
  writeFileSync(`${folder}/firewall.usage`, '{"ledger": "x", "lea')
  const usage = new Usage(folder)
  assert.equal(usage.leases('w1'), 0)
  rmSync(`${folder}/firewall.usage`)
  const gone = new Usage(`${folder}/gone`)
  rmSync(`${folder}/gone`, { recursive: true })
  gone.save(ledger(''))
})
