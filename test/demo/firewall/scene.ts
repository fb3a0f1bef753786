import { type Fail2ban, startFail2ban } from '../../lib/fail2ban.ts'
import { PROJECT } from '../../lib/lab.ts'
import type { Machine } from '../../lib/machine.ts'
import { addAddresses } from '../../lib/network.ts'
import { addressOf, type Perimeter } from '../../lib/perimeter.ts'
import { startSshd } from '../../lib/ssh.ts'
import { expect, type Stage } from '../../lib/stage.ts'
import { canConnect, listen } from '../../lib/traffic.ts'

export const FAMILIES = ['inet4', 'inet6'] as const
export type Family = (typeof FAMILIES)[number]
export const LABEL = { inet4: 'IPv4', inet6: 'IPv6' } as const

export const ATTACKER = {
  inet4: addressOf('attacker1', 'outside', 'inet4'),
  inet6: addressOf('attacker1', 'outside', 'inet6'),
}
/** Somebody else in the attacker's networks. */
export const NEIGHBOUR = { inet4: '203.0.113.150', inet6: '2001:db8:a::150' }
/** A second address of the attacker, for a short ban. */
export const SECOND = '203.0.113.77'

/** The one machine with packets from everywhere. */
export interface Scene {
  stage: Stage
  lab: Perimeter
  attacker: Machine
  edge1: Machine
  web1: Machine
  web2: Machine
  fail2ban: Fail2ban
}

/** Sets both sides up as their operators would, and shows that everybody gets through at first. */
export async function setScene(lab: Perimeter, stage: Stage): Promise<Scene> {
  const { attacker, firewall: edge1, server: web1, servers } = lab
  const [, web2 = web1] = servers
  const machines = { attacker, edge1, web1, web2 }
  await Promise.all([...Object.values(machines).map(linkCommands), lookLikeAttacker(attacker)])
  await install({ stage, edge1, web1 })
  const fail2ban = await watch(stage, web1)
  await listen(web2, { tcp: [22] })
  const scene = { stage, lab, ...machines, fail2ban }
  await allThrough(scene)
  return scene
}

/** Runs a line as root in its home, after showing it. @returns what it printed */
export async function play(stage: Stage, machine: Machine, line: string): Promise<string> {
  stage.command(promptOf(machine), line)
  const ended = await machine.exec(['sh', '-euc', `cd; ${line}`], { timeout: 30_000 })
  expect(ended.code === 0, `it ended with exit code ${ended.code}:\n${ended.stdout}${ended.stderr}`)
  return ended.stdout
}

export function promptOf(machine: Machine): string {
  return `${machine.name}#`.padEnd(6)
}

/** From whom to whom a connection is tried. */
export function way(source: string, to: Machine) {
  const family = source.includes(':') ? 'inet6' : 'inet4'
  return { source, to: addressOf(to.name, 'inside', family), port: 22 }
}

/** What `npm install -g` does. */
async function linkCommands(machine: Machine): Promise<void> {
  const script = `cd ${PROJECT}/dist
for name in banip unbanip setup firewall sync; do
  case $name in setup | firewall | sync) command=f2b-$name ;; *) command=$name ;; esac
  chmod +x $name.cjs 2>/dev/null || :
  ln -sf ${PROJECT}/dist/$name.cjs /usr/local/bin/$command
done`
  await machine.sh(script)
}

async function lookLikeAttacker(attacker: Machine): Promise<void> {
  const extra = [`${NEIGHBOUR.inet4}/24`, `${SECOND}/24`, `${NEIGHBOUR.inet6}/64`]
  await addAddresses(attacker, 'outside', extra)
  const bind = FAMILIES.map((family) => {
    const host = addressOf('web1', 'inside', family)
    return `Host ${host}\nBindAddress ${ATTACKER[family]}\n`
  })
  const rest = 'Host *\nBatchMode yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n'
  await attacker.writeFile('/root/.ssh/config', `${bind.join('')}${rest}`)
}

async function install({ stage, edge1, web1 }: Pick<Scene, 'stage' | 'edge1' | 'web1'>) {
  stage.step('Set up both sides; each learns the key of the other')
  const sshd = await startSshd(edge1)
  await web1.writeFile('/root/edge1.pub', `${sshd.hostKey}\n`)
  const server = 'f2b-setup server --owner web1 --firewall edge1 --host-key-file edge1.pub'
  const told = await play(stage, web1, server)
  // What it prints for the operator to run on the firewall.
  const [, echo = '', firewall = ''] = /^ {2}(echo .*)\n {2}(.*)$/m.exec(told) ?? []
  await edge1.sh(`cd; ${echo}`)
  // There is no systemd in the lab; its units are wanted all the same, for the reboot.
  const done = await play(stage, edge1, `${firewall} --systemd yes`)
  const made = `${told}${done}`.match(/^created /gm)?.length ?? 0
  stage.fact('things made: settings, keys, one account without rights, one line for sudo', made)
  const since = performance.now()
  await play(stage, web1, 'f2b-firewall check')
  stage.fact(
    'the firewall answers over SSH, the first time within',
    performance.now() - since,
    'ms',
  )
}

async function watch(stage: Stage, web1: Machine): Promise<Fail2ban> {
  stage.step('Start Fail2Ban on web1: jail sshd with maxretry = 3 and banaction = iptables-remote')
  await startSshd(web1)
  stage.command(promptOf(web1), 'fail2ban-client start')
  const options = {
    filter: 'sshd',
    backend: 'auto',
    logpath: '/var/log/lab-syslog',
    banaction: 'iptables-remote',
  }
  const jail = { name: 'sshd', action: '%(action_)s', maxretry: 3, bantime: 600, options }
  return startFail2ban(web1, [jail])
}

async function allThrough({ stage, attacker, web1, web2 }: Scene): Promise<void> {
  const all = FAMILIES.flatMap((family) => [ATTACKER[family], NEIGHBOUR[family]])
  const ways = all.flatMap((source) => [way(source, web1), way(source, web2)])
  for (const one of ways) {
    expect(await canConnect(attacker, one), `${one.source} cannot reach ${one.to}`)
  }
  stage.fact(
    'attacker and neighbour reach both servers, connections',
    ways.length,
    `of ${ways.length}`,
  )
}
