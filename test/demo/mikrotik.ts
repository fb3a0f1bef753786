import { setTimeout as sleep } from 'node:timers/promises'
import { playAppliance } from '../lib/appliance-demo.ts'
import { MIKROTIK } from '../lib/appliance-setup.ts'
import { expect, type Stage } from '../lib/stage.ts'

const SECONDS = 3

/** Fail2Ban blocks on a MikroTik router, which ends each ban by itself. */
export async function demoMikrotik(stage: Stage, signal: AbortSignal): Promise<void> {
  await playAppliance(stage, signal, {
    sort: MIKROTIK,
    box: 'router',
    about: 'A real Fail2Ban blocks on a simulated MikroTik router, as fast as an RB5009.',
    spoil: ({ faults }) => {
      faults.lacks = 'write'
      return () => {
        faults.lacks = undefined
      }
    },
    async coda({ stage: told, site, play, fail2ban }) {
      told.step('Without Fail2Ban, and without us: the router ends a ban by itself')
      await fail2ban.client('stop')
      const { sim } = site.world
      const [mark, address] = [sim.log.length, '198.51.100.9']
      await play(`f2b-mikrotik ban --ip ${address} --name sshd --bantime ${SECONDS}`)
      expect(sim.blocked().includes(address), 'it is not blocked')
      await sleep((SECONDS + 2) * 1000)
      expect(!sim.blocked().includes(address), 'it is still blocked')
      told.fact(`${address} was blocked for`, SECONDS, 's')
      told.fact('calls of the router', sim.log.length - mark)
    },
  })
}
