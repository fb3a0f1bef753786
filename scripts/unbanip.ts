#!/usr/bin/env node
// The document's other client script: releases an address on every firewall in config.yaml.
//
//   unbanip fail2ban-sshd 192.0.2.1
//
// Exit codes: unbanip --help
import { parseBanned } from './lib/address.ts'
import { main, textOption, usageFailure } from './lib/command.ts'
import { noteByHand } from './lib/delivery/by-hand.ts'
import { loadFirewalls } from './lib/firewall/settled.ts'
import { firewallTargets } from './lib/firewall/target.ts'
import { jailOf } from './lib/lease.ts'
import { makeCall, onEach } from './lib/verbs.ts'

const HELP = `Usage: unbanip <chain> <ip> [options]

Releases an address that this server has banned, on every firewall in the
configuration. It stays blocked where another server or jail still bans it; that
it was not banned is no error.

  unbanip fail2ban-sshd 192.0.2.1

Options
  --config FILE     default /etc/fail2ban-perimeter/config.yaml
                    (also --configfile)
  --dry-run         show what would be sent, change nothing`

void main({
  name: 'unbanip',
  help: HELP,
  options: {
    config: { type: 'string' },
    configfile: { type: 'string' },
    'dry-run': { type: 'boolean' },
  },
  async run(words, values) {
    if (words.length !== 2) throw usageFailure(`2 arguments expected, not ${words.length}`)
    const [chain = '', ip = ''] = words
    const address = parseBanned(ip)
    const jail = jailOf(chain)

    const given = textOption(values, 'config') ?? textOption(values, 'configfile')
    const loaded = await loadFirewalls(given)
    // Fail2Ban kills an action after 60 seconds, and runs it twice.
    const call = makeCall(loaded, values, 20)
    noteByHand('firewall', loaded.config.state_dir, call, { verb: 'release', address, jail })

    const said = `unbanip ${chain} ${address.text}`
    const { $ } = await import('./lib/zx.ts') // 10 ms, which help and mistakes need not spend
    await onEach(firewallTargets(loaded), `unban "${address.text}"`, (firewall) =>
      firewall.say(call, said, (ssh, args, input) => {
        return $({ input, signal: call.signal })`${ssh} ${args}`
      }),
    )
  },
})
