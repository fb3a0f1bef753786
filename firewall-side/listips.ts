#!/usr/bin/env node
// Prints an owner's leases as the ledger has them.
//
//   listips fail2ban-sshd --owner web1
import { runWord } from './lib/word.ts'

void runWord(
  'listips',
  `Usage: listips [chain]

Prints this owner's leases: <address> <jail> <expires> <owner>; expires 0 is
never.

  listips --owner web1`,
)
