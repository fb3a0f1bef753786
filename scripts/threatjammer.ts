#!/usr/bin/env node
// Reports every ban to Threat Jammer, in few calls, and withdraws it when it ends. Follows
// https://threatjammer.com/docs/introduction-threat-jammer-report-api and, for list, check and
// delete-all, the User API at https://dublin.api.threatjammer.com/docs.
//
//   f2b-threatjammer ban --ip 192.0.2.7 --name sshd --bantime 600
//
// Exit codes: f2b-threatjammer --help
import { usageFailure } from './lib/command.ts'
import {
  LIST_HELP,
  LIST_OPTIONS,
  listedAddresses,
  listQuery,
  printable,
} from './lib/reporter/denylist.ts'
import { PATIENCE, Reporter } from './lib/reporter/reporter.ts'
import { sectionOf } from './lib/reporter/section.ts'
import { expectSuccess } from './lib/reporter/service.ts'
import { reporterTarget, reportVerb, startReport } from './lib/reporter/target.ts'
import { makeService, question, type Settings } from './lib/reporter/threatjammer.ts'
import type { Loaded } from './lib/settled.ts'
import type { Call, Change, Target } from './lib/target.ts'
import { loadSection, onEach, runSibling } from './lib/verbs.ts'

/** The User API takes 10 calls a minute from a free account. */
const QUESTIONS = { name: 'user', limits: [{ calls: 10, seconds: 60 }] }

const REPORTED = '/v1/denylist/reported/ip'

function makeTarget(settings: Settings, reporter: Reporter): Target {
  return {
    ...reporterTarget(reporter),

    async check(call) {
      // An answer that is short, whatever the account holds.
      const ask = question(settings, 'GET', `${REPORTED}?greater_than=999999999`)
      expectSuccess(await reporter.ask(call, QUESTIONS, ask, PATIENCE.check))
      await reporter.resume(call)
    },

    change(call, changes) {
      // Left out: it has no end of its own. -1 is a ban for ever, and gets the longest time.
      const open = call.values.bantime === undefined
      const end = reporter.seconds() + settings.ttl
      const timed = changes.map((change): Change => {
        if (change.verb !== 'ban' || change.lease.expires !== 0 || !open) return change
        return { ...change, lease: { ...change.lease, expires: end } }
      })
      return reporter.change(call, timed)
    },

    async list(call) {
      const { query, format } = listQuery(call.values)
      const ask = question(settings, 'GET', `${REPORTED}${query}`)
      const { text } = expectSuccess(await reporter.ask(call, QUESTIONS, ask, PATIENCE.long))
      if (format) call.show(printable(text))
      const there = format ? new Set() : listedAddresses(text)
      return (await reporter.leases(call)).filter(({ address }) => there.has(address.text))
    },
  }
}

async function deleteAll(call: Call, settings: Settings, reporter: Reporter): Promise<void> {
  const ask = question(settings, 'DELETE', `${REPORTED}/all`)
  if (call.dryRun) return call.show(`${ask.method} ${ask.url}`)
  if (!call.values.yes) throw usageFailure('delete-all empties the whole account: say --yes')
  expectSuccess(await reporter.ask(call, QUESTIONS, ask, PATIENCE.long))
  await reporter.forget(call)
}

function open(loaded: Loaded) {
  const settings = sectionOf(loaded, 'threatjammer')
  const reporter = new Reporter(makeService(settings), loaded.config.state_dir, {
    later: startReport,
  })
  return { settings, reporter, target: makeTarget(settings, reporter) }
}

void runSibling({
  name: 'threatjammer',
  command: 'f2b-threatjammer',
  about: `Reports every ban to Threat Jammer and withdraws it when it ends.

  f2b-threatjammer ban --ip 192.0.2.7 --name sshd --bantime 600

A ban that comes alone is reported at once. One of many (less than 10 s after
another), one that the service has no call left for, and one while it is out of
order is kept in state_dir, which is a success too: "report", which the ban
starts in the background, reports all of them in one call. Addresses that are
not public are never reported.`,
  load: loadSection('threatjammer'),
  remembers: true,
  targets: (loaded) => [open(loaded).target],
  options: { ...LIST_OPTIONS, yes: { type: 'boolean' } },
  optionsHelp: `${LIST_HELP}\n  --yes             delete-all: really`,
  verbs: {
    report: reportVerb(open),
    'delete-all': {
      help: 'empty the whole account, whoever reported (--yes)',
      seconds: 60,
      run: async (call, loaded) => {
        const { settings, reporter, target } = open(loaded)
        await onEach([target], 'delete-all', () => deleteAll(call, settings, reporter))
      },
    },
  },
})
