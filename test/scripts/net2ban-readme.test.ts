import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Fail2ban, startFail2ban } from '../lib/fail2ban.ts'
import { createLab, type Lab, PROJECT } from '../lib/lab.ts'
import type { Machine } from '../lib/machine.ts'
import { blocksOf, linesOf } from '../lib/readme.ts'
import { waitUntil } from '../lib/wait.ts'

// The README's net2ban: a real RabbitMQ and a real Fail2Ban on one machine, two nodes beside it.

const [ON_SERVER = '', ON_NODE = '', ACTION = ''] = blocksOf('Block on many nodes with net2ban', 3)
const ATTACKER = '203.0.113.101'

let lab: Lab
let hub: Machine
let nodes: Machine[]
let fail2ban: Fail2ban
before(async () => {
  lab = await createLab()
  hub = await lab.machine('hub', { nics: { inside: ['172.16.15.2/24'] } })
  nodes = await Promise.all(
    ['client1', 'client2'].map((name, i) =>
      lab.machine(name, { nics: { inside: [`172.16.15.${11 + i}/24`] } }),
    ),
  )
  for (const machine of [hub, ...nodes]) {
    await machine.sh(`echo "127.0.0.1 localhost ${machine.name}" >/etc/hosts
for pair in f2b-setup:setup net2ban:net2ban net2banctl:net2banctl; do
  ln -sf ${PROJECT}/dist/\${pair#*:}.cjs /usr/local/bin/\${pair%:*}
done`)
  }
  // The machines have no systemd: for the one service that README restarts this stands in.
  const restart = `#!/bin/sh -e
[ "$*" = 'restart rabbitmq-server' ]
pkill -KILL beam || true
setsid rabbitmq-server >/var/log/rabbit.out 2>&1 &
for try in 1 2 3; do rabbitmqctl await_startup --timeout 60 >/dev/null 2>&1 && exit; sleep 1; done`
  await hub.writeFile('/usr/local/bin/systemctl', `${restart}\n`, { mode: '755' })
  await hub.sh('systemctl restart rabbitmq-server', { timeout: 240_000 })
})
after(() => lab?.close())

test('the server and its nodes are set up, and find each other over TLS', async () => {
  for (const line of linesOf(ON_SERVER)) await hub.sh(`cd; ${line}`, { timeout: 240_000 })
  assert.equal(await hub.sh('net2banctl list_clients'), 'client1\nclient2\n')
  await hub.sh('net2banctl get_client client2 >/root/client2.yaml')
  await hub.spawn(['net2ban', 'server'])
  for (const node of nodes) {
    const config = await hub.readFile(`/root/${node.name}.yaml`)
    await node.writeFile(`/root/${node.name}.yaml`, config, { mode: '600' })
    await node.sh(`cd; ${ON_NODE.replace('client1', node.name)}`)
    await node.spawn(['net2ban', 'client'])
  }
  await waitUntil('both nodes', async () => {
    const { stdout } = await hub.exec(['net2banctl', 'status'])
    return nodes.every(({ name }) => new RegExp(`^${name} online`, 'm').test(stdout))
  })
})

test('what Fail2Ban bans is dropped on every node, with its own action and with ours', async () => {
  await hub.writeFile('/etc/fail2ban/action.d/everywhere.conf', ACTION)
  const options = 'name=%(__name__)s, port="%(port)s", protocol="%(protocol)s", chain=INPUT'
  fail2ban = await startFail2ban(hub, [
    { name: 'mine', action: '%(action_)s', options: { banaction: 'net2ban' } },
    { name: 'theirs', action: `everywhere[${options}]` },
  ])
  for (const jail of ['mine', 'theirs']) {
    await fail2ban.client('set', jail, 'banip', ATTACKER)
    await everywhere(jail, true)
    await fail2ban.client('set', jail, 'unbanip', ATTACKER)
    await everywhere(jail, false)
  }
})

/** Waits until each node has the rule of a jail, or none has. */
async function everywhere(jail: string, wanted: boolean): Promise<void> {
  const has = async (node: Machine) => {
    const { stdout } = await node.exec(['iptables', '-S', `f2b-${jail}`])
    return stdout.includes(`-s ${ATTACKER}/32`)
  }
  const all = async () => (await Promise.all(nodes.map(has))).every((one) => one === wanted)
  await waitUntil(`rules of ${jail} on every node: ${wanted}`, all, { every: 200 })
}
