#!/usr/bin/env node
// Blocks on Linux firewalls over SSH: all verbs for all firewalls in config.yaml, side by side.
//
//   f2b-firewall ban --ip 192.0.2.7 --name sshd --port ssh --protocol tcp --bantime 600
//
// Exit codes: f2b-firewall --help
import { loadFirewalls } from './lib/firewall/settled.ts'
import { firewallTargets } from './lib/firewall/target.ts'
import { runSibling } from './lib/verbs.ts'

void runSibling({
  name: 'firewall',
  command: 'f2b-firewall',
  about: `Blocks on every Linux firewall in section "firewalls" of the configuration, over
one shared SSH connection each. A firewall that fails never keeps the others
from being served.

  f2b-firewall ban --ip 192.0.2.7 --name sshd --port ssh --protocol tcp
  f2b-firewall list | f2b-dummy sync`,
  load: loadFirewalls,
  targets: firewallTargets,
})
