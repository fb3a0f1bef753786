import { playAppliance } from '../lib/appliance-demo.ts'
import { OPNSENSE } from '../lib/appliance-setup.ts'
import type { Stage } from '../lib/stage.ts'

/** Fail2Ban blocks on an OPNsense firewall, whose "done" is never taken for granted. */
export async function demoOpnsense(stage: Stage, signal: AbortSignal): Promise<void> {
  await playAppliance(stage, signal, {
    sort: {
      ...OPNSENSE,
      make() {
        const sim = OPNSENSE.make()
        sim.tables.clear()
        return sim
      },
    },
    box: 'firewall',
    about: 'A real Fail2Ban blocks on a simulated OPNsense firewall, 0.2 s for each change.',
    spoil: ({ faults }) => {
      faults.forbidden = true
      return () => {
        faults.forbidden = false
      }
    },
  })
}
