import { setTimeout as sleep } from 'node:timers/promises'
import { startSshd } from '../../lib/ssh.ts'
import { expect } from '../../lib/stage.ts'
import { longestGap } from '../../lib/traffic.ts'
import { hammer, longestBlock, now, passage, silence } from './measure.ts'
import { ATTACKER, FAMILIES, NEIGHBOUR, play, promptOf, type Scene, SECOND } from './scene.ts'

const UNIT = '/etc/systemd/system/fail2ban-perimeter-restore.service'
const SECONDS = 6

/** The firewall loses power; its kernel forgets everything. */
export async function reboot(scene: Scene): Promise<void> {
  const { stage, attacker, edge1, web2 } = scene
  stage.step('Reboot the firewall under fire')
  const bad = await Promise.all(FAMILIES.map((f) => hammer(attacker, ATTACKER[f], web2)))
  const good = await hammer(attacker, NEIGHBOUR.inet4, web2)
  await passage(attacker, NEIGHBOUR.inet4, web2)
  const since = now()
  await edge1.reboot({ beforeNetwork: () => restore(scene) })
  await passage(attacker, NEIGHBOUR.inet4, web2)
  const until = now()
  await startSshd(edge1)
  await sleep(300) // The attacker goes on for a while.
  const outage = longestGap(await good.stop(), since, until)
  const results = await Promise.all(bad.map((probe) => probe.stop()))
  const sent = results.reduce((sum, result) => sum + result.sent, 0)
  const through = results.reduce((sum, result) => sum + result.answered.length, 0)
  expect(through === 0, `${through} of ${sent} packets of the attacker got through`)
  stage.fact('time without the firewall, as the neighbour sees it', outage, 'ms')
  stage.fact('packets of the attacker that got through', through, `of ${sent}`)
}

/** What the systemd unit does at boot, before the network is up. */
async function restore({ stage, edge1 }: Scene): Promise<void> {
  const rules = await edge1.run(['nft', 'list', 'ruleset'])
  expect(rules === '', `the kernel of the firewall still knows:\n${rules}`)
  stage.fact('the kernel starts without a single rule; this runs before the network is up:')
  const command = /^ExecStart=(.*)$/m.exec(await edge1.readFile(UNIT))?.[1] ?? ''
  const answer = await play(stage, edge1, command)
  stage.output(answer)
}

/** The operator frees an address. */
export async function unban(scene: Scene): Promise<void> {
  const { stage, attacker, web1, web2 } = scene
  stage.step('Unban an address by hand')
  const packets = await hammer(attacker, ATTACKER.inet4, web2)
  const since = now()
  await play(stage, web1, `fail2ban-client unban ${ATTACKER.inet4}`)
  await passage(attacker, ATTACKER.inet4, web2)
  const { answered } = await packets.stop()
  const free = answered[0] ?? Number.NaN
  stage.fact('first packet through again, over an SSH connection made anew', free - since, 'ms')
}

/** A ban ends on the firewall even if nobody is left to end it. */
export async function expire(scene: Scene): Promise<void> {
  const { stage, attacker, web1, web2, fail2ban } = scene
  stage.step(`Ban a second address for ${SECONDS} seconds, and kill Fail2Ban`)
  const packets = await hammer(attacker, SECOND, web2)
  await passage(attacker, SECOND, web2)
  await play(stage, web1, `fail2ban-client set sshd bantime ${SECONDS}`)
  const since = now()
  await play(stage, web1, `fail2ban-client set sshd banip ${SECOND}`)
  await silence(attacker, SECOND, web2)
  stage.command(promptOf(web1), 'pkill -KILL fail2ban-server')
  fail2ban.kill()
  await passage(attacker, SECOND, web2)
  const { answered } = await packets.stop()
  const { from, to } = longestBlock(answered)
  stage.fact('first packet dropped', from - since, 'ms')
  stage.fact('nobody is left to unban it: the firewall lets it through again', to - since, 'ms')
}
