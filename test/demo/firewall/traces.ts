import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { expect } from '../../lib/stage.ts'
import { waitUntil } from '../../lib/wait.ts'
import type { Scene } from './scene.ts'

const KINDS = ['net', 'mnt', 'uts', 'pid']

/** Ends the machines, and looks for what they left on this one. */
export async function bury({ stage, lab }: Scene): Promise<void> {
  stage.step('Switch everything off')
  const machines = [...lab.attackers, ...lab.firewalls, ...lab.servers]
  const homes = new Set(machines.flatMap(({ pid }) => namespacesOf(`${pid}`, 'pid_for_children')))
  await lab.close()
  // Who looked into them from outside needs a moment to see that they are gone.
  await waitUntil('the last process to end', () => livingIn(homes) === 0)
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
  expect(!mounts.includes(' - tmpfs lab '), 'a disk of the machines is left')
  stage.fact('processes and mounts left of them', livingIn(homes))
}

function livingIn(homes: ReadonlySet<string>): number {
  const ids = readdirSync('/proc')
  return ids.filter((id) => namespacesOf(id).some((one) => homes.has(one))).length
}

function namespacesOf(id: string, pid = 'pid'): string[] {
  try {
    return KINDS.map((kind) => readlinkSync(`/proc/${id}/ns/${kind === 'pid' ? pid : kind}`))
  } catch {
    return [] // It ended meanwhile, or is no process.
  }
}
