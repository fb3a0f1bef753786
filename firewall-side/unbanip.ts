#!/usr/bin/env node
// The document's other chain script: releases an address in a jail's chain.
//
//   unbanip fail2ban-sshd 192.0.2.1
import { runWord } from './lib/word.ts'

void runWord(
  'unbanip',
  `Usage: unbanip <chain> <address>

Releases an address that this owner blocked in a jail's chain. It stays blocked
if another owner still holds it; that it was not blocked is no error.

  unbanip fail2ban-sshd 192.0.2.1`,
)
