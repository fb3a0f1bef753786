import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { createLab, PROJECT } from './lib/lab.ts'
import type { Machine } from './lib/machine.ts'
import { missingPackages } from './lib/packages.ts'
import { waitUntil } from './lib/wait.ts'

/** The namespaces that a machine lives in; a process in one of them is one that it left behind. */
function namespacesOf(machine: Machine): string[] {
  return ['net', 'mnt', 'uts', 'pid_for_children'].map((kind) =>
    readlinkSync(`/proc/${machine.pid}/ns/${kind}`),
  )
}

function anyoneIn(namespaces: readonly string[]): boolean {
  return readdirSync('/proc').some((id) => {
    try {
      return ['net', 'mnt', 'uts', 'pid'].some((kind) =>
        namespaces.includes(readlinkSync(`/proc/${id}/ns/${kind}`)),
      )
    } catch {
      return false
    }
  })
}

describe('nothing stays on the host', () => {
  test('after close()', async () => {
    const disk = mkdtempSync(join(tmpdir(), 'lab-test-'))
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    const lab = await createLab({ disk })
    const machine = await lab.machine('alone', { nics: { wire: ['192.0.2.1/24'] } })
    await machine.spawn(['setsid', 'sleep', '99'])
    await machine.writeFile('/var/lib/some/file', 'text')
    const namespaces = namespacesOf(machine)
    assert.equal(anyoneIn(namespaces), true)
    assert.equal(readFileSync('/proc/self/mountinfo', 'utf8'), mounts)
    await lab.close()
    assert.equal(anyoneIn(namespaces), false)
    assert.deepEqual(readdirSync(disk), [])
    rmSync(disk, { recursive: true })
  })

  for (const signal of ['SIGINT', 'SIGKILL'] as const) {
    test(`after ${signal}`, async () => {
      const disk = mkdtempSync(join(tmpdir(), 'lab-test-'))
      const program = `
        const { createLab } = await import('${PROJECT}/test/lib/lab.ts')
        const lab = await createLab({ disk: '${disk}' })
        const machine = await lab.machine('alone', { nics: { wire: ['192.0.2.1/24'] } })
        console.log(machine.pid)
        setInterval(() => {}, 1000)`
      const args = ['--import', 'tsx', '--input-type=module', '-e', program]
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
      const [text] = await once(child.stdout, 'data')
      const namespaces = namespacesOf({ pid: Number(text) } as Machine)
      child.kill(signal)
      await waitUntil('the end of all processes', () => !anyoneIn(namespaces))
      await waitUntil('the end of all files', () => readdirSync(disk).length === 0)
      rmSync(disk, { recursive: true })
    })
  }

  test('a lab names the packages that it lacks', () => {
    assert.deepEqual(missingPackages(), [])
    assert.deepEqual(missingPackages({ 'no-such-program': 'no-such' }), ['no-such'])
  })
})
