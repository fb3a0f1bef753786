#!/usr/bin/env node
// Blocks on MikroTik routers (RouterOS 7.1 or later): an address list always equals what is banned,
// and the router ends each ban by itself. Vendor document: "REST API" at help.mikrotik.com. Needs
// section `mikrotik` in config.yaml (f2b-setup mikrotik writes it), and on the router a rule that drops
// what is in the list.
//
//   f2b-mikrotik ban --ip 192.0.2.7 --name sshd --bantime 600
//
// Exit codes: f2b-mikrotik --help
import { mikrotikTargets } from './lib/mikrotik/target.ts'
import { loadSection, runSibling } from './lib/verbs.ts'

void runSibling({
  name: 'mikrotik',
  command: 'f2b-mikrotik',
  about: `Keeps an address list on MikroTik routers equal to what is banned. Use the list
in a rule.

  f2b-mikrotik ban --ip 192.0.2.7 --name sshd --bantime 600`,
  load: loadSection('mikrotik'),
  targets: ({ config }) => mikrotikTargets(config.mikrotik),
})
