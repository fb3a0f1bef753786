import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type Fail2ban, startFail2ban } from '../../lib/fail2ban.ts'
import { createLab, type Lab } from '../../lib/lab.ts'
import type { Machine } from '../../lib/machine.ts'
import { rulesOf, startNode, type TestNode } from '../../lib/net2ban.ts'

// Two machines in the same state, step by step: on one a real Fail2Ban runs a stock action file, on
// the other a node does.

const FILES = [
  'document', // First: it is started with Fail2Ban, all others with their first ban.
  'iptables',
  'iptables-multiport',
  'iptables-allports',
  'iptables-ipset',
  'iptables-ipset-proto4',
  'iptables-ipset-proto6',
  'iptables-ipset-proto6-allports',
  'nftables',
  'nftables-multiport',
  'nftables-allports',
  'route',
]

/** These know IPv4 alone; a ban of IPv6 fails in Fail2Ban, too. */
const IPV4_ONLY = ['iptables-ipset-proto4', 'document']

/** The net2ban document's own file, run as root. */
const DOCUMENT = `[Definition]
actionstart = iptables -N fail2ban-<name>
              iptables -A fail2ban-<name> -j RETURN
              iptables -I <chain> -p <protocol> -j fail2ban-<name>
actionstop = iptables -D <chain> -p <protocol> -j fail2ban-<name>
             iptables -F fail2ban-<name>
             iptables -X fail2ban-<name>
actionban = iptables -I fail2ban-<name> 1 -s <ip> -j DROP
actionunban = iptables -D fail2ban-<name> -s <ip> -j DROP
[Init]
name = default
port = ssh
protocol = tcp
chain = INPUT
`

const STEPS: [what: string, address?: string][] = [
  ['start'],
  ['ban', '192.0.2.7'],
  ['ban', '192.0.2.7'],
  ['ban', '2001:db8::7'],
  ['ban', '198.51.100.9'],
  ['ban', '2001:db8:1::9'],
  ['unban', '192.0.2.7'],
  ['unban', '2001:db8::7'],
  ['flush'],
  ['ban', '203.0.113.8'],
  ['ban', '2001:db8::8'],
  ['stop'],
]

/** What a rule for one port takes, and what the others do. */
function portsOf(file: string): string {
  return ['iptables', 'iptables-ipset', 'iptables-ipset-proto4'].includes(file) ? '22' : '22,80:90'
}

function protocolsOf(file: string): string {
  return file === 'document' ? 'tcp' : 'tcp,udp'
}

describe('a node and Fail2Ban leave the same rules', { concurrency: 1 }, () => {
  let lab: Lab
  let machines: Machine[]
  let fail2ban: Fail2ban
  let node: TestNode

  before(async () => {
    lab = await createLab()
    const plan = (n: number) => ({ nics: { lan: [`10.9.0.${n}/24`, `2001:db8:9::${n}/64`] } })
    machines = await Promise.all([lab.machine('original', plan(1)), lab.machine('node', plan(2))])
    const [original, own] = machines as [Machine, Machine]
    const jails = FILES.map((file, i) => ({
      name: `jail${i}`,
      action: `${file}[name=jail${i}, port="${portsOf(file)}", protocol="${protocolsOf(file)}"]`,
    }))
    await original.writeFile('/etc/fail2ban/fail2ban.d/lab.conf', '[Definition]\nallowipv6 = yes\n')
    for (const machine of machines) {
      await machine.writeFile('/etc/fail2ban/action.d/document.conf', DOCUMENT)
    }
    fail2ban = await startFail2ban(original, jails)
    node = await startNode(own)
  })
  after(async () => {
    await node?.close()
    await lab?.close()
  })

  const there = async (jail: string, what: string, address = ''): Promise<void> => {
    if (what === 'flush') await fail2ban.client('unban', '--all')
    else if (what === 'stop') await fail2ban.client('stop', jail)
    else if (what !== 'start') await fail2ban.client('set', jail, `${what}ip`, address)
  }

  for (const [i, file] of FILES.entries()) {
    test(file, async () => {
      const name = `jail${i}`
      const params = { name, port: portsOf(file), protocol: protocolsOf(file) }
      const [original, own] = machines as [Machine, Machine]
      for (const [what, address] of STEPS) {
        if (address?.includes(':') && IPV4_ONLY.includes(file)) continue
        const said = what === 'start' || !address ? params : { name, ip: address }
        await Promise.all([there(name, what, address), node.run(file, `action${what}`, said)])
        const [theirs, ours] = await Promise.all([rulesOf(original), rulesOf(own)])
        assert.equal(ours, theirs, `${file}: ${what} ${address ?? ''}`)
      }
    })
  }
})
