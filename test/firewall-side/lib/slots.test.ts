import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { PLACES, takePlace } from '../../../firewall-side/lib/slots.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('places')
/** The first process of this machine has been there for as long as anybody. */
const FIRST = '000000000000000.1'

test('takePlace() gives an owner so many places, and others their own', async () => {
  const places = `${folder}/firewall.places/web1`
  mkdirSync(places, { recursive: true })
  for (let i = 0; i < PLACES; i++) writeFileSync(`${places}/00000000000000${i % 10}.99999${i}`, '')
  await takePlace(folder, 'web1')
  assert.equal(readdirSync(places).length, 1, 'those who are gone hold none')
  await takePlace(folder, 'web2')
  assert.notEqual(readdirSync(`${folder}/firewall.places/web2`)[0], FIRST)
})
