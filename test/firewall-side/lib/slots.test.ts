import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SESSIONS, takeSession } from '../../../firewall-side/lib/slots.ts'
import { tryLock } from '../../../scripts/lib/lock.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('slots')

test('takeSession() gives an owner so many sessions, and others their own', async () => {
  const last = await tryLock(`${folder}/firewall.session.web1.${SESSIONS - 1}`)
  for (let i = 1; i < SESSIONS; i++) await takeSession(folder, 'web1')
  const message = `${SESSIONS} sessions of "web1" are open: end one of them first`
  await assert.rejects(takeSession(folder, 'web1'), { code: 75, message })
  await takeSession(folder, 'web2')
  last?.()
  await takeSession(folder, 'web1')
})
