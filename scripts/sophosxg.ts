#!/usr/bin/env node
// Blocks on Sophos XG/XGS firewalls: the members of a host group always equal what is banned.
// Follows the document "Access the Sophos XG API from Fail2ban"; needs section `sophosxg` in
// config.yaml (f2b-setup sophosxg writes it) and a rule that drops what comes from the group.
//
//   f2b-sophosxg ban --ip 192.0.2.7 --name sshd --bantime 600
//
// Exit codes: f2b-sophosxg --help
import { sophosTargets } from './lib/sophosxg/target.ts'
import { loadSection, runSibling } from './lib/verbs.ts'

void runSibling({
  name: 'sophosxg',
  command: 'f2b-sophosxg',
  about: `Keeps a host group on Sophos XG/XGS firewalls equal to what is banned. Use the
group in a rule.

  f2b-sophosxg ban --ip 192.0.2.7 --name sshd --bantime 600`,
  load: loadSection('sophosxg'),
  remembers: true,
  targets: ({ config }) => sophosTargets(config.sophosxg),
})
