import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import { after, before, test } from 'node:test'
import { parse } from 'yaml'
import { nodeProgram } from '../lib/net2ban.ts'
import { openSandbox, type Sandbox } from '../lib/sandbox.ts'
import { waitUntil } from '../lib/wait.ts'

// A copy of this machine that nobody else sees, with Debian's RabbitMQ as its own user.
let box: Sandbox
before(async () => {
  box = await openSandbox()
  await box.sh('hostname -F /dev/null; echo "127.0.0.1 localhost $(hostname)" >/etc/hosts')
  await startRabbit()
})
after(() => box.close())

const CONFIG = '/etc/fail2ban-perimeter/config.yaml'

async function startRabbit(): Promise<void> {
  await box.sh('setsid rabbitmq-server >/run/rabbit.log 2>&1 &')
  const ready = async () =>
    (await box.run('rabbitmqctl', ['await_startup', '--timeout', '60'])).code === 0
  await waitUntil('RabbitMQ', ready, { timeout: 120_000, every: 500 })
}

async function setup(...args: string[]): Promise<string> {
  const command = [resolve('dist/setup.cjs'), 'net2ban', ...args, '--systemd', 'yes']
  const { code, stdout, stderr } = await box.run(process.execPath, command)
  assert.equal(code, 0, stderr)
  return stdout
}

const ARGS = ['server', '--broker', '127.0.0.1', '--client', 'client1', '--make-certificate']

test('--dry-run changes nothing; the second run has nothing to change', async () => {
  assert.match(await setup(...ARGS, '--dry-run'), /^would create broker user net2ban_client1$/m)
  assert.equal(await box.sh('ls -A /etc/fail2ban-perimeter /etc/rabbitmq/net2ban 2>/dev/null'), '')
  const told = await setup(...ARGS)
  assert.match(told, /^created broker user net2ban_server$/m)
  assert.match(await setup(...ARGS), /^nothing to change$/m)
})

test('where bans are queued already, their delivery is told of the nodes in the same step', async () => {
  const deliver = '/etc/systemd/system/fail2ban-perimeter-deliver.service'
  await box.sh(`mv ${CONFIG} /root/config.yaml; rm /etc/systemd/system/net2ban-*; umask 077
    printf 'owner: web7\nfirewalls: []\n' >${CONFIG}`)
  const command = [resolve('dist/setup.cjs'), 'server', '--delivery', 'queued', '--systemd', 'yes']
  const { code, stderr } = await box.run(process.execPath, command)
  assert.equal(code, 0, stderr)
  assert.match(await box.sh(`cat ${deliver}`), /^User=/m)
  const told = await setup(...ARGS)
  assert.match(told, /^note: f2b-deliver runs as root: net2ban keeps its books in /m)
  assert.doesNotMatch(await box.sh(`cat ${deliver}`), /^User=/m)
  assert.match(await box.sh('cat /etc/fail2ban/action.d/net2ban.local'), /^delivery = queued$/m)
  await box.sh(`mv /root/config.yaml ${CONFIG}`)
})

test('the rights are as tight as they can be, and no password is in any argument', async () => {
  const rights = await box.sh('rabbitmqctl -q --no-table-headers list_permissions -p net2ban')
  const rows = rights
    .trim()
    .split('\n')
    .map((row) => row.split('\t'))
  assert.deepEqual(rows.find(([name]) => name === 'net2ban_client1')?.slice(1), [
    '^$',
    '^$',
    '^net2ban_client1$',
  ])
  assert.equal(rows.length, 2, rights)
})

test('another client joins: the others keep their keys', async () => {
  const before = parse(await box.sh(`cat ${CONFIG}`))
  const told = await setup('server', '--client', 'client2')
  assert.match(told, /^created broker user net2ban_client2$/m)
  const { net2ban } = parse(await box.sh(`cat ${CONFIG}`))
  assert.deepEqual(net2ban.clients.client1, before.net2ban.clients.client1)
  assert.deepEqual(Object.keys(net2ban.clients), ['client1', 'client2'])
  assert.equal(await box.sh(`stat -c '%a %U' ${CONFIG}`), '600 root\n')
})

test('with what it made, a server and a client find each other over TLS', async () => {
  await box.sh('pkill -KILL beam; sleep 0.5')
  await startRabbit()
  const node = process.execPath
  const program = (name: string) => resolve(`dist/${name}.cjs`)
  await box.sh(`umask 077; ${node} ${program('net2banctl')} get_client client1 >/root/client1.yaml`)
  await box.sh(`sed -i 's#^owner.*#&\\nstate_dir: /root/state#' /root/client1.yaml
    setsid ${node} ${program('net2ban')} server >/run/server.log 2>&1 &
    setsid ${node} ${program('net2ban')} client --config /root/client1.yaml >/run/client.log 2>&1 &`)
  const status = () => box.sh(`${node} ${program('net2banctl')} status`)
  const online = async () => /^client1 online/m.test(await status())
  await waitUntil('the client', online, { every: 500 }).catch(async (error) => {
    throw new Error(`${error.message}\n${await box.sh('cat /run/*.log')}\n${await status()}`)
  })
})

test('systemd finds nothing wrong with the units', async () => {
  const other = ['client', '--client-config', '/root/client1.yaml', '--prefix', '/root/node']
  await setup(...other)
  await box.sh('cp /root/node/etc/systemd/system/net2ban-client.service /etc/systemd/system/')
  for (const [word, most] of [
    ['server', 3],
    ['client', 6],
  ] as const) {
    const unit = `/etc/systemd/system/net2ban-${word}.service`
    assert.doesNotMatch(await box.sh(`systemd-analyze verify --man=no ${unit}`), /net2ban-/)
    const score = await box.sh(`systemd-analyze security --offline=yes ${unit} | tail -1`)
    const [, level = '10'] = /: (\d+\.\d)/.exec(score) ?? []
    assert.ok(Number(level) <= most, score)
  }
})

test('--uninstall takes users and units, and leaves the settings', async () => {
  const told = await setup('server', '--uninstall')
  assert.match(told, /^removed broker user net2ban_client1$/m)
  assert.equal(await box.sh(`grep -c '^net2ban:' ${CONFIG}`), '1\n')
  assert.equal(await box.sh('ls /etc/systemd/system/net2ban-server.service 2>/dev/null'), '')
})

test('--uninstall --purge takes vhost, users, state and the section, and nothing of another part', async () => {
  await setup(...ARGS)
  await box.sh(`printf 'firewalls: []\\n' >>${CONFIG}; pkill -f '[n]et2ban.cjs server'; sleep 1`)
  await setup('server', '--uninstall', '--purge')
  const users = await box.sh(
    'rabbitmqctl -q --no-table-headers list_users; rabbitmqctl -q list_vhosts',
  )
  assert.doesNotMatch(users, /net2ban/)
  const text = await box.sh(`cat ${CONFIG}`)
  assert.deepEqual(Object.keys(parse(text)), ['owner', 'firewalls'])
  assert.equal(await box.sh('ls -A /var/lib/fail2ban-perimeter | grep net2ban'), '')
  assert.equal(await box.sh(`ls -d /etc/rabbitmq/net2ban 2>/dev/null`), '')
})

test('a node that is removed leaves nothing in the kernel', async () => {
  await box.sh(`pkill -f '[n]et2ban.cjs client'; sleep 1; rm -f ${CONFIG}`)
  // Debian's alternatives: /usr itself is the machine's.
  await box.sh('mv /etc/alternatives/iptables /root/')
  assert.match(
    await setup('client', '--client-config', '/root/client1.yaml'),
    /^note: action iptables-multiport needs "iptables", which this node does not have: install it$/m,
  )
  await box.sh('mv /root/iptables /etc/alternatives/')
  for (const [file, folder] of Object.entries({ hostsdeny: '/etc', ufw: '/etc/ufw' })) {
    await box.sh(`sed -i 's/default_action:.*/default_action: ${file}/' ${CONFIG}`)
    const line = `"systemctl edit net2ban-client" and add [Service] ReadWritePaths=${folder}`
    const told = await setup('client')
    assert.ok(told.includes(`note: action ${file} writes below /etc: ${line}\n`), told)
  }
  await box.sh(`sed -i 's/default_action:.*/default_action: iptables-multiport/' ${CONFIG}`)
  assert.doesNotMatch(await setup('client'), /^note:/m)
  await box.sh(
    `rm -rf /root/state; sed -i 's#^state_dir.*#state_dir: /var/lib/fail2ban-perimeter#' ${CONFIG}`,
  )
  const state = '/var/lib/fail2ban-perimeter/net2ban-client/node'
  const program = '/root/node.cjs'
  await buildNode(program)
  const ban = (file: string, ip: string) =>
    JSON.stringify(['run', file, 'actionban', { name: 'sshd', port: '22', protocol: 'tcp', ip }])
  const wishes = [ban('iptables-multiport', '192.0.2.7'), ban('nftables-multiport', '192.0.2.8')]
  const { stdout } = await box.run(
    process.execPath,
    [program, '/etc/fail2ban/action.d', state, '/run/fail2ban-perimeter'],
    { input: `${wishes.join('\n')}\n` },
  )
  assert.equal(stdout.match(/"result":"ran"/g)?.length, 2, stdout)
  const kernel = () => box.sh('iptables -S; nft list ruleset')
  for (const ip of [/192\.0\.2\.7/, /192\.0\.2\.8/]) assert.match(await kernel(), ip)
  const told = await setup('client', '--uninstall', '--purge')
  assert.match(told, /^removed what the node has in force$/m)
  assert.doesNotMatch(await kernel(), /192\.0\.2|f2b/)
  const left = `ls -d ${state} 2>/dev/null; cat ${CONFIG} 2>/dev/null || true`
  assert.equal(await box.sh(left), '', told)
})

/** The program that test/lib/net2ban.ts starts on machines, in the sandbox. */
async function buildNode(path: string): Promise<void> {
  await box.run('tee', [path], { input: await nodeProgram() })
}
