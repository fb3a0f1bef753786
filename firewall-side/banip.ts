#!/usr/bin/env node
// The document's chain script: blocks an address in a jail's chain. Repeat it as often as you like.
//
//   banip fail2ban-sshd 192.0.2.1 22 tcp
import { runWord } from './lib/word.ts'

void runWord(
  'banip',
  `Usage: banip <chain> <address> <ports> <protocol> [expires]

Blocks an address for the ports and protocol of a jail's chain. <chain> is
fail2ban-<jail>; <expires> is in epoch seconds, and without it the ban lasts
until unbanip.

  banip fail2ban-sshd 192.0.2.1 22 tcp
  banip fail2ban-postfix 198.51.100.0/24 smtp,465,submission tcp 1790000000`,
)
