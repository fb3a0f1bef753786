import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isSteady } from '../../../firewall-side/lib/clock.ts'
import { temporaryFolder } from '../../lib/folder.ts'

test('isSteady() believes a clock that has run evenly for an hour since the machine was started', () => {
  const folder = temporaryFolder('clock')
  const at = (up: number, off = 0): boolean => isSteady(folder, up, 1_790_000_000 + up + off)
  assert.deepEqual([at(10), at(3000), at(3609)], [false, false, false])
  assert.equal(at(3611), true)
  assert.equal(at(4000, 50), true, 'NTP has set it a little')
  const year = 31_536_000
  assert.equal(at(5000, year), false)
  assert.deepEqual([at(5060), at(8000)], [false, false], 'it was put back')
  assert.equal(at(8700), true)
  assert.equal(isSteady('/nowhere', 9000, 0), false)
})
