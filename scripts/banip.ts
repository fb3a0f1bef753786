#!/usr/bin/env node
// The document's client script: blocks an address on every firewall in config.yaml, over SSH.
//
//   banip fail2ban-sshd 192.0.2.1 22 tcp
//
// Exit codes: banip --help
import { runBanip } from './lib/words.ts'

void runBanip(`Usage: banip <chain> <ip> <ports> <protocol> [options]

Blocks an address on every firewall in the configuration. It stays blocked until unbanip, or until
its time is over if --bantime is given. Repeat it as often as you like.

  banip fail2ban-sshd 192.0.2.1 22 tcp
  banip fail2ban-postfix 2001:db8::1 smtp,465,submission tcp --bantime 3600

Arguments
  <chain>           fail2ban-<jail>
  <ip>              IPv4 or IPv6 address or CIDR range
  <ports>           ssh | 22,80 | 1000:2000 | all
  <protocol>        tcp | udp | icmp | all, or a list

Options
  --bantime SECONDS how long; -1 or left out: until unbanned
  --time EPOCH      when the ban began; default now
  --config FILE     default /etc/fail2ban-perimeter/config.yaml (also --configfile)
  --dry-run         show what would be sent, change nothing`)
