import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Owners } from '../../../firewall-side/lib/owners.ts'

test('Owners remembers the last word about each, and writes only what is new', () => {
  const noted: string[] = []
  const remarks = [
    '# a note',
    '# owner web1 session=3 ahead=0',
    '# owner web1 session=5 ahead=-60 x=1',
  ]
  const owners = new Owners(remarks, (remark) => noted.push(remark))
  assert.deepEqual(owners.of('web1'), { session: 5, ahead: -60, peer: '' })
  assert.deepEqual(owners.of('constructor'), { session: 0, ahead: 0, peer: '' })
  owners.note('web1', { session: 5 })
  owners.note('web1', { peer: '192.0.2.10' })
  owners.note('web2', { session: 7 })
  const written = ['owner web1 session=5 ahead=-60 peer=192.0.2.10', 'owner web2 session=7 ahead=0']
  assert.deepEqual(noted, written)
  const again = new Owners(owners.remarks(remarks), () => {})
  assert.deepEqual(owners.remarks(remarks), ['# a note', ...written.map((line) => `# ${line}`)])
  assert.deepEqual(again.of('web1'), owners.of('web1'))
})

test('Owners takes nothing from a remark that is damaged', () => {
  const owners = new Owners(
    ['# owner', '# owner x', '# owner web1 session=1e9 ahead=no peer=;id'],
    () => {},
  )
  assert.deepEqual(owners.of('web1'), { session: 1, ahead: 0, peer: '' })
})
