import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  chainRemark,
  generationRemark,
  readRegister,
  widthsRemark,
  writeRegister,
} from '../../../firewall-side/lib/generation.ts'

const naming = { ports: '22', protocol: 'tcp' }

test('readRegister() takes the last word about a chain', () => {
  const remarks = [
    chainRemark('a', 'w1', naming),
    chainRemark('a', 'w2', naming),
    chainRemark('a', 'w1'),
    chainRemark('b', 'w1', naming),
    chainRemark('b', 'w1'),
  ]
  const { chains } = readRegister(remarks.map((remark) => `# ${remark}`))
  assert.deepEqual(
    [...chains].map(([jail, owners]) => [jail, [...owners]]),
    [['a', [['w2', naming]]]],
  )
})

test('readRegister() knows a lost generation and who has synced since', () => {
  const lost = readRegister([`# ${generationRemark(true)}`, '# synced w1'])
  assert.match(lost.generation, /^[0-9a-f]{8}$/)
  assert.deepEqual([lost.lost, [...lost.synced]], [true, ['w1']])
  assert.deepEqual([...readRegister(['# synced w1', '# synced w1 gone']).synced], [])
  assert.equal(readRegister([`# ${generationRemark(false)}`]).lost, false)
})

test('readRegister() passes over remarks that only look like its own', () => {
  const remarks = [
    '# chain letters are bad',
    '# chain a w1 nonsense tcp',
    '# chain a w1 22 ip',
    '# widths',
    '#',
    '# widths a inet4/24 inet4/32 inet6/64 inet6/128 x inet5/1 inet4/0',
  ]
  const { chains, widths } = readRegister(remarks)
  assert.equal(chains.size, 0)
  assert.deepEqual([...widths], [['a', ['inet4/24', 'inet6/64']]])
})

test('writeRegister() says everything once and keeps what is not its own', () => {
  const remarks = [
    '# generation abcd 1',
    '# a note',
    `# ${chainRemark('a', 'w1', { ...naming, ports: '80' })}`,
    `# ${chainRemark('a', 'w1', naming)}`,
    '# synced w1',
    '# synced w1',
    `# ${widthsRemark('a', ['inet4/24'])}`,
    `# ${widthsRemark('gone', ['inet4/24'])}`,
  ]
  const written = writeRegister(readRegister(remarks), remarks)
  assert.deepEqual(written, [
    '# generation abcd 1',
    '# a note',
    '# synced w1',
    '# chain a w1 22 tcp',
    '# widths a inet4/24',
  ])
  const again = writeRegister(readRegister(written), written)
  assert.deepEqual(again, written)
})
