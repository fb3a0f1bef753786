import type { Target } from '../../lib/agent.ts'
import type { Machine } from '../../lib/machine.ts'
import { addressOf } from '../../lib/perimeter.ts'
import { expect } from '../../lib/stage.ts'
import { canConnect } from '../../lib/traffic.ts'
import { firstDropped, follow, hammer, silence } from './measure.ts'
import {
  ATTACKER,
  FAMILIES,
  type Family,
  LABEL,
  NEIGHBOUR,
  play,
  type Scene,
  way,
} from './scene.ts'

const GUESSES = ['admin', 'oracle', 'test']

/** The attacker guesses logins, and Fail2Ban bans it. */
export async function attack(scene: Scene): Promise<void> {
  const { stage, attacker, web1, web2 } = scene
  stage.step('The attacker guesses logins on web1, over IPv4 and IPv6')
  const [log, decisions] = await Promise.all([
    follow(web1, '/var/log/lab-syslog'),
    follow(web1, '/var/log/fail2ban.log'),
  ])
  for (const family of FAMILIES) {
    const address = ATTACKER[family]
    const packets = await hammer(attacker, address, web2)
    await guess(scene, family)
    const last = await log.line(['Invalid user', `from ${address} `], GUESSES.length)
    if (family === 'inet4') stage.output(last.text.replace(/^.*?sshd/, 'web1: sshd'))
    const ban = await decisions.line(['[sshd] Ban', address])
    await silence(attacker, address, web2)
    const { answered } = await packets.stop()
    const drop = firstDropped(answered)
    const decided = Math.round(ban.at - last.at)
    const text = `${LABEL[family]}: Fail2Ban decides ${decided} ms after the log line; first packet dropped`
    stage.fact(text, drop - last.at, 'ms')
  }
}

async function guess({ stage, attacker }: Scene, family: Family): Promise<void> {
  const host = addressOf('web1', 'inside', family)
  for (const user of GUESSES) {
    const line = `ssh ${user}@${host}`
    stage.command('attacker$', line)
    const { code } = await attacker.exec(['ssh', `${user}@${host}`], { timeout: 5000 })
    expect(code === 255, `"${line}" ended with ${code}, not with a refusal`)
  }
}

/** Who gets through now, and what the operator sees. */
export async function protect(scene: Scene): Promise<void> {
  const { stage, attacker, web1, web2 } = scene
  stage.step('Who gets through now')
  for (const [who, addresses, wanted] of [
    ['attacker', ATTACKER, 0],
    ['neighbour', NEIGHBOUR, FAMILIES.length],
  ] as const) {
    for (const server of [web1, web2]) {
      const ways = FAMILIES.map((family) => way(addresses[family], server))
      const made = await reached(attacker, ways)
      expect(made === wanted, `${who} to ${server.name}: ${made} of ${ways.length} connections`)
      stage.fact(
        `${who} to ${server.name} over IPv4 and IPv6, connections`,
        made,
        `of ${ways.length}`,
      )
    }
  }
  const list = await play(stage, web1, 'f2b-firewall list')
  stage.output(list)
  for (const family of FAMILIES) {
    expect(list.includes(`${ATTACKER[family]} sshd `), `${ATTACKER[family]} is not in the list`)
  }
}

async function reached(from: Machine, ways: readonly Target[]): Promise<number> {
  const outcomes = await Promise.all(ways.map((one) => canConnect(from, one)))
  return outcomes.filter((isThrough) => isThrough).length
}
