import { mkdtempSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { boot, type Machine } from './machine.ts'
import { createNetwork, type Network, type NetworkPlan } from './network.ts'
import { missingPackages } from './packages.ts'
import { spawnHolder } from './process.ts'

/** The project's folder; it is visible, read-only, on every machine under the same path. */
export const PROJECT = fileURLToPath(new URL('../../', import.meta.url)).replace(/\/$/, '')

/**
 * A room full of machines. It costs the host nothing but memory, and goes with the process that
 * made it, however that ends.
 */
export interface Lab {
  network: Network
  machine(name: string, plan?: NetworkPlan): Promise<Machine>
  /** Ends every machine; returns when nothing is left of them. */
  close(): Promise<void>
}

export interface LabOptions {
  /** A folder to put the machines' disks below, where the cost of a real disk counts. */
  disk?: string
}

/** @throws Error that says what is missing: rights or Debian packages */
export async function createLab({ disk }: LabOptions = {}): Promise<Lab> {
  if (process.getuid?.() !== 0) throw new Error('Cannot build a lab: only root can')
  const missing = missingPackages()
  if (missing.length > 0) {
    throw new Error(`Cannot build a lab: apt-get install ${missing.join(' ')}`)
  }
  const keep = [PROJECT, ...nodeFolder()]
  const script = fileURLToPath(new URL('switch.sh', import.meta.url))
  const disks = disk ? mkdtempSync(join(disk, 'lab-')) : '-'
  const unshare = ['unshare', '-m', '-n', '--propagation', 'private']
  const ground = await spawnHolder([...unshare, 'sh', script, disks, ...keep])
  const network = createNetwork(ground.pid)
  const machines: Machine[] = []
  return {
    network,
    async machine(name, plan = { nics: {} }) {
      const machine = await boot(name, {
        pid: ground.pid,
        keep,
        connect: (self) => network.connect(self, plan),
        disconnect: (self) => network.disconnect(self),
      })
      machines.push(machine)
      return machine
    },
    async close() {
      await Promise.all(machines.map((machine) => machine.powerOff()))
      await ground.end()
    },
  }
}

/** Where node is, unless all machines see that anyway. */
function nodeFolder(): string[] {
  return process.execPath.startsWith('/usr/') ? [] : [dirname(dirname(process.execPath))]
}
