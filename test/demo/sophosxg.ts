/** The Sophos story for `npm run demo -- sophosxg`: the document's commands, seen from the firewall. */
import { styleText } from 'node:util'
import { waitUntil } from '../lib/wait.ts'
import { type Fail2ban, inFail2ban } from '../simulators/sophosxg/fail2ban.ts'
import type { World } from '../simulators/sophosxg/world.ts'

/** The simulated box answers this many times faster than a real one (Get 1 s, write 6 s). */
const SPEED = 20

type Print = (line: string) => void

/**
 * Runs a real Fail2Ban against a simulated Sophos firewall and shows what arrives there.
 *
 * @param show where the lines go: the stage of test/demo.ts
 */
export async function demoSophosxg(show: { plain: Print }): Promise<void> {
  const print: Print = (line) => show.plain(line)
  print(styleText('bold', 'Fail2Ban blocks on a Sophos firewall'))
  print(`a real fail2ban-server, a simulated firewall ${SPEED} times as fast as a real one\n`)
  await inFail2ban({ scale: SPEED }, async (world, fail2ban) => {
    const stage = { world, fail2ban, print }
    await client(stage, 'set sshd banip 192.168.13.37')
    await client(stage, 'set nginx banip 192.168.13.37')
    await client(stage, 'set sshd banip 2001:db8::37')
    showGroups(stage)
    await client(stage, 'set sshd unbanip 192.168.13.37')
    print(styleText('dim', '  nginx still bans it, so it stays blocked'))
    showGroups(stage)
    await adminDeletesGroup(stage)
    await busyFirewall(stage)
    await restoreThousand(stage)
    await refusal(stage)
  })
}

interface Stage {
  world: World
  fail2ban: Fail2ban
  print: Print
}

async function client(stage: Stage, command: string): Promise<void> {
  await step(stage, `fail2ban-client ${command}`, () => stage.fail2ban.client(command))
}

/** Shows a command, how long it took, and what it cost on the firewall. */
async function step<T>(stage: Stage, text: string, work: () => Promise<T>): Promise<T> {
  const { sim } = stage.world
  const mark = sim.log.length
  const began = performance.now()
  stage.print(`${styleText('cyan', '$')} ${text}`)
  const result = await work()
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  const [requests, writes] = [sim.log.length - mark, sim.writes(mark).length]
  stage.print(styleText('dim', `  ${seconds} s, requests ${requests}, of these writes ${writes}`))
  return result
}

function showGroups({ world, print }: Stage): void {
  for (const group of world.sim.box.groups.values()) {
    if (!group.Name.startsWith('f2b_')) continue
    const [first, ...more] = [...group.members].slice(0, 3)
    const count = String(group.members.size).padStart(5)
    print(`  ${group.Name.padEnd(18)}${count}  ${styleText('red', first ?? '-')}`)
    for (const name of more) print(`  ${' '.repeat(25)}${styleText('red', name)}`)
  }
  print('')
}

async function adminDeletesGroup(stage: Stage): Promise<void> {
  stage.world.sim.box.groups.delete('f2b_blockings')
  stage.print(styleText('yellow', '! an admin deletes the group f2b_blockings'))
  await client(stage, 'set sshd banip 198.51.100.99')
  showGroups(stage)
}

async function busyFirewall(stage: Stage): Promise<void> {
  const { faults } = stage.world.sim
  Object.assign(faults, { refuseBefore: '503', retryAfter: '1', times: 1 })
  stage.print(styleText('yellow', '! the firewall is busy: HTTP 503, and to be asked again in 1 s'))
  await client(stage, 'set nginx banip 198.51.100.99')
  Object.assign(faults, { refuseBefore: undefined, times: Number.POSITIVE_INFINITY })
  showGroups(stage)
}

async function restoreThousand(stage: Stage): Promise<void> {
  const lines = Array.from({ length: 1000 }, (_, i) => `203.0.${i >> 8}.${i & 255} sshd 0\n`)
  const sync = async () => stage.world.run('sync', { input: lines.join('') })
  const first = await step(stage, 'f2b-sophosxg sync < a-thousand-bans', sync)
  stage.print(`  ${first.stdout.trim()}`)
  const second = await step(stage, 'f2b-sophosxg sync < a-thousand-bans', sync)
  stage.print(`  ${second.stdout.trim()}`)
  showGroups(stage)
}

async function refusal(stage: Stage): Promise<void> {
  stage.world.sim.faults.ipRefused = true
  stage.print(styleText('yellow', '! an admin takes this server off the list of the API'))
  await client(stage, 'set sshd banip 198.51.100.98')
  const said = () => /sophosxg: Cannot ban .*/.exec(stage.fail2ban.log())?.[0]
  await waitUntil('its answer', () => said() !== undefined)
  stage.print(`  ${styleText('dim', 'fail2ban.log:')} ${said()?.replace(/'$/, '')}`)
}
