import { createPerimeter } from '../lib/perimeter.ts'
import { type Stage, style } from '../lib/stage.ts'
import { unlessAborted } from '../lib/wait.ts'
import { attack, protect } from './firewall/attack.ts'
import { type Scene, setScene } from './firewall/scene.ts'
import { bury } from './firewall/traces.ts'
import { expire, reboot, unban } from './firewall/trials.ts'

const DRAWING = `
attacker   203.0.113.101   ──┐     ┌──────────┐     ┌──  web1  192.0.2.11      sshd and Fail2Ban
           2001:db8:a::101   ├─────┤  edge1   ├─────┤          2001:db8:b::11
neighbour  203.0.113.150   ──┘     │ firewall │     └──  web2  192.0.2.12      no Fail2Ban at all
           2001:db8:a::150         └──────────┘                2001:db8:b::12`.slice(1)

/** An attacker that Fail2Ban finds on one server is blocked on the firewall, for all servers. */
export async function demoFirewall(stage: Stage, signal: AbortSignal): Promise<void> {
  const began = performance.now()
  stage.title(
    'fail2ban-perimeter',
    'Fail2Ban finds an attacker on one server, the firewall blocks it for all of them.',
  )
  const bold = DRAWING.replace(/edge1|web1|web2|neighbour/g, (name) => style('bold', name))
  stage.plain(bold.replace('attacker', style(['bold', 'red'], 'attacker')))
  stage.step('Build four machines, each in namespaces of its own: network, disk, processes')
  const lab = await createPerimeter({ servers: 2 })
  try {
    stage.fact('attacker, firewall and two servers are up after', performance.now() - began, 'ms')
    const scene = await unlessAborted(signal, setScene(lab, stage))
    await unlessAborted(signal, story(scene))
    await bury(scene)
  } finally {
    await lab.close()
  }
  const seconds = Math.round((performance.now() - began) / 1000)
  stage.summary(
    `All of it for real: sshd, Fail2Ban, sudo, nftables, packets. ${seconds} seconds in all.`,
  )
}

async function story(scene: Scene): Promise<void> {
  await attack(scene)
  await protect(scene)
  await reboot(scene)
  await unban(scene)
  await expire(scene)
}
