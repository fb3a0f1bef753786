#!/usr/bin/env node
// The document's other client script: releases an address on every firewall in config.yaml.
//
//   unbanip fail2ban-sshd 192.0.2.1
//
// Exit codes: unbanip --help
import { runUnbanip } from './lib/words.ts'

void runUnbanip(`Usage: unbanip <chain> <ip> [options]

Releases an address that this server has banned, on every firewall in the configuration. It stays
blocked where another server or jail still bans it; that it was not banned is no error.

  unbanip fail2ban-sshd 192.0.2.1

Options
  --config FILE     default /etc/fail2ban-perimeter/config.yaml (also --configfile)
  --dry-run         show what would be sent, change nothing`)
