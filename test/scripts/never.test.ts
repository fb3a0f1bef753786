import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import { after, before, test } from 'node:test'
import { openSandbox, type Sandbox } from '../lib/sandbox.ts'

// Who may never be banned, on a machine with a network of its own and a target that only ssh's
// configuration and /etc/hosts know.

const CONFIG = '/etc/fail2ban-perimeter/config.yaml'
const YAML = `owner: web1
fail2ban:
  socket: /run/no-such.sock
firewalls:
  - host: edge
fortigate:
  list_file: /var/lib/list.txt
  push:
    url: https://gate.example
    name: blocked
    token: abcdefgh12345678
`
let box: Sandbox
before(async () => {
  box = await openSandbox()
  const script = `ip link add wan type veth peer name lan
ip link set wan up
ip link set lan up
ip addr add 198.51.100.1/24 dev wan
ip -6 addr add 2001:db8::1/64 dev wan nodad
ip route add default via 198.51.100.254
ip -6 route add default via 2001:db8::254
echo 'nameserver 198.51.100.253' >/etc/resolv.conf
printf '203.0.113.1 edge.example\\n2001:db8:a::1 edge.example\\n203.0.113.2 gate.example\\n' >>/etc/hosts
mkdir -p /etc/ssh/ssh_config.d /etc/fail2ban-perimeter
printf 'Host edge\\n  HostName edge.example\\n' >/etc/ssh/ssh_config.d/edge.conf
cat >${CONFIG}; chmod 600 ${CONFIG}`
  const { code, stderr } = await box.run('sh', ['-ec', script], { input: YAML })
  assert.equal(code, 0, stderr)
})
after(() => box.close())

const ours = (script: string, ...args: string[]) =>
  box.run(process.execPath, [resolve(`dist/${script}.cjs`), ...args, '--config', CONFIG])
const ban = async (ip: string): Promise<string> => {
  const { code, stderr } = await ours('fortigate', 'ban', '--ip', ip, '--dry-run')
  return code === 0 ? 'banned' : `${code} ${/overlaps "(.*?)"/.exec(stderr)?.[1]}`
}

test('what every machine has is never banned: its own addresses, gateways and resolvers', async () => {
  const never = ['198.51.100.1', '198.51.100.254', '198.51.100.253', '2001:db8::1', '2001:db8::254']
  for (const ip of [...never, '127.8.9.1', '169.254.1.1', 'fe80::1', 'ff02::1', '224.0.0.1']) {
    assert.match(await ban(ip), /^65 /, ip)
  }
  assert.equal(await ban('198.51.100.9'), 'banned')
})

test('the addresses of named targets are never banned once a sync has looked them up', async () => {
  // A ban asks no name service: it only reads what is known.
  assert.equal(await ban('203.0.113.1'), 'banned')
  // Fail2Ban does not run: that much is done all the same.
  assert.equal((await ours('sync')).code, 75)
  for (const ip of ['203.0.113.1', '2001:db8:a::1', '203.0.113.2']) {
    assert.equal(await ban(ip), `65 ${ip}`)
  }
  assert.equal(await ban('203.0.113.0/24'), '65 203.0.113.1')
  assert.equal(await ban('203.0.113.3'), 'banned')
})

test('a name service that does not answer takes nothing away, and keeps nobody waiting', async () => {
  await box.sh('sed -i s/203.0.113.*// /etc/hosts; sed -i s/2001:db8:a.*// /etc/hosts')
  await box.sh(`sed -i 's/"at":[0-9]*/"at":1/g' /run/fail2ban-perimeter/targets.resolved`)
  const began = Date.now()
  assert.equal((await ours('sync')).code, 75)
  assert.ok(Date.now() - began < 30_000)
  assert.equal(await ban('203.0.113.1'), '65 203.0.113.1')
})
