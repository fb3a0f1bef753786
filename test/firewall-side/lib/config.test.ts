import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as v from 'valibot'
import { schema } from '../../../firewall-side/lib/config.ts'

test('never_ban takes what a network can be, and not all that there is', () => {
  const takes = (text: string) => v.safeParse(schema, { never_ban: [text] }).success
  for (const text of ['192.0.2.1', '10.0.0.0/8', '224.0.0.0/4', 'fc00::/7', '2001:db8::/32']) {
    assert.ok(takes(text), text)
  }
  for (const text of ['0.0.0.0/0', '128.0.0.0/1', '::/0', '2000::/3']) assert.ok(!takes(text), text)
})
