#!/usr/bin/env node
// Blocks on OPNsense firewalls: the table of an alias always equals what is banned. Vendor document:
// "Use the API" and "Aliases" at docs.opnsense.org. Needs section `opnsense` in config.yaml
// (f2b-setup opnsense writes it), and on the firewall an alias of type External for this server and a
// rule that blocks it.
//
//   f2b-opnsense ban --ip 192.0.2.7 --name sshd --bantime 600
//
// Exit codes: f2b-opnsense --help
import { opnsenseTargets } from './lib/opnsense/target.ts'
import { loadSection, runSibling } from './lib/verbs.ts'

void runSibling({
  name: 'opnsense',
  command: 'f2b-opnsense',
  about: `Keeps an alias on OPNsense firewalls equal to what is banned. Use the alias in a
rule.

  f2b-opnsense ban --ip 192.0.2.7 --name sshd --bantime 600`,
  load: loadSection('opnsense'),
  remembers: true,
  targets: ({ config }) => opnsenseTargets(config.opnsense, config.owner),
})
