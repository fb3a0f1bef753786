#!/usr/bin/env node
// Releases all of an owner's leases, or those in one chain.
//
//   fluships fail2ban-sshd --owner web1
import { runWord } from './lib/word.ts'

void runWord(
  'fluships',
  `Usage: fluships [chain]

Releases all leases of this owner, or those in one chain. A chain that no owner
uses any more goes, with its jumps.

  fluships fail2ban-sshd --owner web1`,
)
