#!/usr/bin/env node
// What the firewall does for itself every minute: ends leases that the kernel cannot end.
//
//   sweepips
import { main, noWords } from '../scripts/lib/command.ts'
import { openPerimeter } from './lib/open.ts'
import { LOCAL_OWNER } from './lib/word.ts'

void main({
  name: 'sweepips',
  help: `Usage: sweepips

Removes blocks whose time is over (the iptables backend cannot do it by itself),
renews what lasts longer than the kernel can count, restores what a foreign
"flush ruleset" took, and compacts the ledger. A timer runs it every minute.`,
  options: {},
  async run(words) {
    noWords(words)
    const { perimeter } = await openPerimeter({
      owner: LOCAL_OWNER,
      peer: undefined,
    })
    await perimeter.sweep()
  },
})
