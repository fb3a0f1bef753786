import assert from 'node:assert/strict'
import { test } from 'node:test'
import { generationRemark } from '../../../firewall-side/lib/generation.ts'
import { Register } from '../../../firewall-side/lib/register.ts'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { codeOf, EXIT } from '../../../scripts/lib/failure.ts'

const SSH = { ports: '22', protocol: 'tcp' }

/** A register, and the remarks that it notes, as they stand in the ledger. */
function open(remarks: string[] = []) {
  const noted = [...remarks]
  return { register: new Register(remarks, (remark) => noted.push(`# ${remark}`)), noted }
}

test('the last word about a chain counts', () => {
  const { register } = open([
    '# chain a w1 22 tcp',
    '# chain a w2 22 tcp',
    '# chain a w1 gone',
    '# chain b w1 22 tcp',
    '# chain b w1 gone',
  ])
  assert.deepEqual([register.has('a'), register.has('b')], [true, false])
  assert.deepEqual([register.jailsOf('w1'), register.jailsOf('w2')], [[], ['a']])
  assert.deepEqual(register.namingOf('a', 'w2'), SSH)
})

test('what is noted reads the same again', () => {
  const { register, noted } = open()
  register.name('a', 'w1', SSH)
  register.name('a', 'w1', { ports: '-', protocol: 'udp' })
  register.name('b', 'w1', { ports: '-', protocol: '-' })
  register.unname('b', 'w1')
  for (const text of ['192.0.2.0/24', '198.51.100.0/24', '192.0.2.1']) {
    register.widths.add('a', 'w1', parseAddress(text))
  }
  register.widths.add('a', 'w2', parseAddress('2001:db8::/64'))
  assert.deepEqual(
    noted.filter((line) => line.includes('widths')),
    ['# widths a w1 inet4/24', '# widths a w2 inet6/64'],
  )
  const again = new Register(noted)
  assert.deepEqual(again.widths.of('a'), ['inet4/24', 'inet6/64'])
  assert.deepEqual(again.namingOf('a', 'w1'), { ports: '22', protocol: 'udp' })
  assert.deepEqual(again.jailsOf('w1'), ['a'])
  assert.deepEqual(again.chains(), register.chains())
  assert.equal(again.looksFor('a', parseAddress('203.0.113.0/24')), true)
  assert.equal(again.looksFor('a', parseAddress('203.0.113.0/25')), false)
  assert.equal(again.looksFor('b', parseAddress('203.0.113.1')), false)
})

test('naming the same twice is noted once', () => {
  const { register, noted } = open()
  register.name('a', 'w1', SSH)
  register.name('a', 'w1', SSH)
  assert.deepEqual(noted, ['# chain a w1 22 tcp'])
})

test('an owner has 256 jails at most (77); what was written by hand is adopted all the same', () => {
  const { register } = open()
  for (let i = 0; i < 256; i++) register.name(`j${i}`, 'w1', SSH)
  assert.throws(
    () => register.name('more', 'w1', SSH),
    (error) => codeOf(error) === EXIT.refused,
  )
  register.name('more', 'w2', SSH)
  register.adopt('by-hand', 'w1')
  assert.deepEqual(register.namingOf('by-hand', 'w1'), { ports: 'all', protocol: 'all' })
  register.adopt('more', 'w1')
  assert.equal(register.namingOf('more', 'w1'), undefined)
})

test('a lost generation is known, and who has synced since', () => {
  const lost = new Register([`# ${generationRemark(true)}`, '# synced w1'])
  assert.match(lost.generation, /^[0-9a-f]{8}$/)
  assert.deepEqual([lost.needsSync('w1'), lost.needsSync('w2')], [false, true])
  lost.markSynced('w2')
  assert.equal(lost.needsSync('w2'), false)
  const gone = new Register([`# ${generationRemark(true)}`, '# synced w1', '# synced w1 gone'])
  assert.equal(gone.needsSync('w1'), true)
  assert.equal(new Register([`# ${generationRemark(false)}`]).needsSync('w1'), false)
})

test('remarks that only look like ours are passed over', () => {
  const remarks = [
    '# chain letters are bad',
    '# chain a w1 nonsense tcp',
    '# chain a w1 22 ipx',
    '# widths',
    '#',
    '# widths a inet4/24',
    '# widths a w1 inet4/24 inet4/32 inet6/64 inet6/128 x inet5/1 inet4/0',
  ]
  const register = new Register(remarks)
  assert.deepEqual(register.chains(), [])
  register.adopt('a', 'w1')
  assert.deepEqual(register.chains()[0]?.widths, ['inet4/24', 'inet6/64'])
})

test('remarks() says everything once and keeps what is not its own', () => {
  const remarks = [
    '# generation abcd 1',
    '# a note',
    '# chain a w1 80 tcp',
    '# chain a w1 22 tcp',
    '# synced w1',
    '# synced w1',
    '# chain letters are bad',
    '# widths a w1 inet4/24',
    '# widths gone w1 inet4/24',
    '# widths a w2',
  ]
  const written = new Register(remarks).remarks(remarks)
  assert.deepEqual(written, [
    '# generation abcd 1',
    '# a note',
    '# chain letters are bad',
    '# synced w1',
    '# chain a w1 22 tcp',
    '# widths a w1 inet4/24',
  ])
  assert.deepEqual(new Register(written).remarks(written), written)
})
