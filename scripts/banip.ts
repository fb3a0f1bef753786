#!/usr/bin/env node
// The document's client script: blocks an address on every firewall in config.yaml, over SSH.
//
//   banip fail2ban-sshd 192.0.2.1 22 tcp
//
// Exit codes: banip --help
import { parseBanned } from './lib/address.ts'
import { main, textOption, usageFailure } from './lib/command.ts'
import { noteByHand } from './lib/delivery/by-hand.ts'
import { readExpiry } from './lib/expires.ts'
import { loadFirewalls } from './lib/firewall/settled.ts'
import { firewallTargets } from './lib/firewall/target.ts'
import { alive, jailOf, now } from './lib/lease.ts'
import { readNaming } from './lib/ports.ts'
import { checkBan, makeCall, onEach } from './lib/verbs.ts'

const HELP = `Usage: banip <chain> <ip> <ports> <protocol> [options]

Blocks an address on every firewall in the configuration. It stays blocked until
unbanip, or until its time is over if --bantime is given. Repeat it as often as
you like.

  banip fail2ban-sshd 192.0.2.1 22 tcp
  banip fail2ban-postfix 2001:db8::1 smtp,465,submission tcp --bantime 3600

Arguments
  <chain>           fail2ban-<jail>
  <ip>              IPv4 or IPv6 address or CIDR range
  <ports>           ssh | 22,80 | 1000:2000 | all
  <protocol>        tcp | udp | icmp | all, or a list

Options
  --bantime SECONDS how long; -1 or left out: until unbanned
  --time EPOCH      when the ban began; default now
  --config FILE     default /etc/fail2ban-perimeter/config.yaml
                    (also --configfile)
  --dry-run         show what would be sent, change nothing`

void main({
  name: 'banip',
  help: HELP,
  options: {
    config: { type: 'string' },
    configfile: { type: 'string' },
    bantime: { type: 'string' },
    time: { type: 'string' },
    'dry-run': { type: 'boolean' },
  },
  async run(words, values) {
    if (words.length !== 4) throw usageFailure(`4 arguments expected, not ${words.length}`)
    const [chain = '', ip = '', ports = '', protocol = ''] = words
    const address = parseBanned(ip)
    const jail = jailOf(chain)
    const on = readNaming(ports, protocol)
    const expires = readExpiry(values)

    const given = textOption(values, 'config') ?? textOption(values, 'configfile')
    const loaded = await loadFirewalls(given)
    checkBan(address, loaded.config)
    if (!alive(expires, now())) return // Fail2Ban repeats old bans when it starts

    // Fail2Ban kills an action after 60 seconds, and runs it twice.
    const call = makeCall(loaded, { ...values, port: ports, protocol }, 20)
    const lease = { address, jail, expires, owner: call.owner }
    noteByHand('firewall', loaded.config.state_dir, call, { verb: 'hold', lease })

    const said = `banip ${chain} ${address.text} ${on.ports} ${on.protocol} ${expires}`
    const { $ } = await import('./lib/zx.ts') // 10 ms, which help and mistakes need not spend
    await onEach(firewallTargets(loaded), `ban "${address.text}"`, (firewall) =>
      firewall.say(call, said, (ssh, args, input) => {
        return $({ input, signal: call.signal })`${ssh} ${args}`
      }),
    )
  },
})
