#!/usr/bin/env node
// Loads the ledger's living leases into the kernel: at boot, before the network is up.
//
//   restorefw
import { main, noWords } from '../scripts/lib/command.ts'
import { print } from '../scripts/lib/print.ts'
import { openPerimeter } from './lib/open.ts'
import { LOCAL_OWNER } from './lib/word.ts'

void main({
  name: 'restorefw',
  help: `Usage: restorefw [--remove]

Builds our chains, sets and jumps anew from the ledger. A systemd unit runs it
at boot, before the network is up, so that a rebooted firewall has no gap.

Options
  --remove          remove everything of ours from the kernel instead; the
                    ledger stays`,
  options: { remove: { type: 'boolean' } },
  async run(words, values) {
    noWords(words)
    const { perimeter } = await openPerimeter({
      owner: LOCAL_OWNER,
      peer: undefined,
    })
    if (values.remove) await perimeter.remove()
    else print(`${await perimeter.restore()}\n`)
  },
})
