import assert from 'node:assert/strict'
import { test } from 'node:test'
import { staleBans } from './bench/stale.ts'

// Fifty times: npm run bench -- stale

test('what a dead session still has in the network bans nobody', async (t) => {
  const { tries, stale, superseded } = await staleBans(2, 2)
  t.diagnostic(`${superseded} operations of dead sessions were refused`)
  assert.deepEqual(stale, [], `of ${tries} tries`)
})
