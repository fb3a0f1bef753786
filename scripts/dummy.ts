#!/usr/bin/env node
// The null sibling: blocks nothing, but remembers what it is told and shows it. It is the template
// for the next target: copy it, and put the target's own calls where it reads and writes its file.
//
//   f2b-dummy ban --ip 192.0.2.7 --name sshd --bantime 600
//
// A sibling has six parts; this file is the first two:
//
//   scripts/NAME.ts                the command: what --help says, and where its targets come from
//   scripts/lib/NAME/target.ts     the target: what our five methods are in its protocol
//   scripts/lib/NAME/client.ts     the protocol: requests, answers, and what they mean
//   scripts/lib/settings/NAME.ts   the section in config.yaml, named in settings/schema.ts
//   action.d/NAME.conf             what Fail2Ban runs: begin with a copy of sophosxg.conf
//   test/simulators/NAME.ts        a strict stand-in of the target, for test/scripts/NAME.test.ts
//
// An entry in KINDS (scripts/lib/siblings.ts) has f2b-deliver, f2b-sync and f2b-status serve it; one
// under "bin" in package.json makes it a command.
//
// Exit codes: f2b-dummy --help
import { mkdirSync } from 'node:fs'
import { parseAddress } from './lib/address.ts'
import { EXIT, Failure } from './lib/failure.ts'
import { now } from './lib/lease.ts'
import { type Ledger, type Line, RELEASED, withLedger } from './lib/ledger.ts'
import { type Call, type Change, describeChange, type Target } from './lib/target.ts'
import { loadSection, runSibling } from './lib/verbs.ts'

const dummy: Target = {
  name: 'dummy',

  // Makes what is missing: a group on the device, an empty list. Bans may come before it has run.
  async start(call) {
    call.show(`start ${call.jail ?? 'all jails'}`)
    await withFile(call, () => {})
  },

  // One cheap question. Fail2Ban asks before a ban if the last one failed, and starts anew if this does.
  async check(call) {
    call.show(`check ${call.jail ?? 'all jails'}`)
    const damaged = await withFile(call, (ledger) => ledger.unreadable().length)
    if (damaged > 0) throw new Failure(EXIT.temporary, `cannot read ${damaged} lines of its file`)
  },

  // Only what is this owner's, and of the jail that is asked for.
  async list(call) {
    const lines = await withFile(call, (ledger) => ledger.own(call.owner, call.jail, now()))
    return lines.map((line) => ({ ...line, address: parseAddress(line.address) }))
  },

  // A command makes one change, f2b-deliver up to 1000. A ban never cuts a longer one. Where the target
  // takes one at a time, `oneByOne` of target.ts makes the outcomes; a Refusal is for what it would
  // never take.
  async change(call, changes) {
    await withFile(call, (ledger) => {
      for (const change of changes) {
        call.show(describeChange(call, change))
        ledger.enter(change, call.owner)
      }
    })
    return changes.map(() => undefined)
  },

  // Afterwards the leases are these, whatever went wrong before: ask for what the target has, and send
  // the difference. A second time nothing differs, and nothing is sent.
  async sync(call, leases) {
    const wanted = leases.map((lease) => ({ ...lease, address: lease.address.text }))
    return await withFile(call, (ledger) => {
      const { changes, ...counts } = ledger.diff(call.owner, call.jail, wanted, now())
      for (const line of changes) {
        call.show(describeChange(call, changeOf(line)))
        ledger.put(line)
      }
      return counts
    })
  },
}

/** What a device would keep for us: one process at a time reads and writes it. */
async function withFile<T>(call: Call, work: (ledger: Ledger) => T): Promise<T> {
  const { config, signal, dryRun } = call
  const { state_dir } = config
  if (!dryRun) mkdirSync(state_dir, { recursive: true, mode: 0o755 })
  const how = { lock: `${state_dir}/dummy.lock`, seconds: 15, signal, dryRun }
  return await withLedger(`${state_dir}/dummy.leases`, work, how)
}

function changeOf(line: Line): Change {
  const lease = { ...line, address: parseAddress(line.address) }
  return line.expires === RELEASED ? { verb: 'unban', ...lease } : { verb: 'ban', lease }
}

void runSibling({
  name: 'dummy',
  command: 'f2b-dummy',
  about: `Shows what a target would be told, and blocks nothing: it keeps a file,
dummy.leases in state_dir.

  f2b-dummy ban --ip 192.0.2.7 --name sshd --port ssh --protocol tcp`,
  load: loadSection('owner'),
  targets: () => [dummy],
})
