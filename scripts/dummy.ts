#!/usr/bin/env node
// The null sibling: shows what a target would be told and changes nothing. It is the template for
// the next target: copy it, give it a section in scripts/lib/settings, and replace each verb.
//
//   f2b-dummy ban --ip 192.0.2.7 --name sshd --bantime 600
//
// Exit codes: f2b-dummy --help
import { formatLease } from './lib/lease.ts'
import type { Target } from './lib/target.ts'
import { loadSection, runSibling } from './lib/verbs.ts'

const dummy = {
  name: 'dummy',

  async start(call) {
    call.show(`start ${call.jail ?? 'all jails'}`)
  },

  async stop(call) {
    call.show(`stop ${call.jail ?? 'all jails'}`)
  },

  async check(call) {
    call.show(`check ${call.jail ?? 'all jails'}`)
  },

  async flush(call) {
    call.show(`flush ${call.jail ?? 'all jails'}`)
  },

  async ban(call, lease) {
    call.show(`ban ${formatLease(lease)} ${call.ports ?? 'all'} ${call.protocol ?? 'all'}`)
  },

  async unban(call, address, jail) {
    call.show(`unban ${address.text} ${jail} ${call.owner}`)
  },

  // It remembers nothing, so it has nothing to list and every lease of a sync is new to it.
  async list() {
    return []
  },

  async sync(call, leases) {
    for (const lease of leases) call.show(`ban ${formatLease(lease)}`)
    return { added: leases.length, extended: 0, removed: 0, unchanged: 0 }
  },
} satisfies Target

void runSibling({
  name: 'dummy',
  command: 'f2b-dummy',
  about: `Shows what a target would be told and changes nothing.

  f2b-dummy ban --ip 192.0.2.7 --name sshd --port ssh --protocol tcp --bantime 600`,
  load: loadSection('owner'),
  targets: () => [dummy],
})
