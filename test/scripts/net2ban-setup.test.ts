import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import { after, before, test } from 'node:test'
import { parse } from 'yaml'
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
