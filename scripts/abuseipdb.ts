#!/usr/bin/env node
// Reports every ban to AbuseIPDB: one address alone, many as one bulk report, never more than the
// plan's quota allows. Follows https://docs.abuseipdb.com/.
//
//   f2b-abuseipdb ban --ip 192.0.2.7 --name sshd --bantime 600
//
// Exit codes: f2b-abuseipdb --help
import { parseAddress } from './lib/address.ts'
import { textOption, usageFailure } from './lib/command.ts'
import { makeService, question, type Settings } from './lib/reporter/abuseipdb.ts'
import { PATIENCE, Reporter } from './lib/reporter/reporter.ts'
import { sectionOf } from './lib/reporter/section.ts'
import { expectSuccess } from './lib/reporter/service.ts'
import { reporterTarget, reportVerb, startReport } from './lib/reporter/target.ts'
import type { Loaded } from './lib/settled.ts'
import type { Call, Target } from './lib/target.ts'
import { loadSection, onEach, runSibling } from './lib/verbs.ts'

/** What a free account may do in a day beside reporting. */
const CHECKS = { name: 'check', limits: [{ calls: 1000, seconds: 86400 }] }
const CLEARS = { name: 'clear', limits: [{ calls: 5, seconds: 86400 }] }

function makeTarget(settings: Settings, reporter: Reporter): Target {
  return {
    // What was reported is history: an end of the ban forgets the lease and withdraws nothing. The
    // service cannot be asked what an account reported; the ledger knows.
    ...reporterTarget(reporter),

    async check(call) {
      const ask = question(settings, 'GET', '/check?ipAddress=127.0.0.1&maxAgeInDays=1')
      const { headers } = expectSuccess(await reporter.ask(call, CHECKS, ask, PATIENCE.check))
      call.say(`the key works; checks left today: ${headers['x-ratelimit-remaining'] ?? 'unknown'}`)
      await reporter.resume(call)
    },
  }
}

/** Takes back every report of this account about an address: for a ban that was a mistake. */
async function clear(call: Call, settings: Settings, reporter: Reporter): Promise<void> {
  const ip = textOption(call.values, 'ip')
  if (ip === undefined) throw usageFailure('Missing option --ip for clear')
  const address = encodeURIComponent(parseAddress(ip).text)
  const ask = question(settings, 'DELETE', `/clear-address?ipAddress=${address}`)
  if (call.dryRun) return call.show(`${ask.method} ${ask.url}`)
  expectSuccess(await reporter.ask(call, CLEARS, ask, PATIENCE.check))
}

function open(loaded: Loaded) {
  const settings = sectionOf(loaded, 'abuseipdb')
  const reporter = new Reporter(makeService(settings), loaded.config.state_dir, {
    later: startReport,
  })
  return { settings, reporter, target: makeTarget(settings, reporter) }
}

void runSibling({
  name: 'abuseipdb',
  command: 'f2b-abuseipdb',
  about: `Reports every ban to AbuseIPDB, without log text. Reports stay: unban withdraws
nothing.

  f2b-abuseipdb ban --ip 192.0.2.7 --name sshd --bantime 600

A ban that comes alone is reported at once. One of many (less than 10 s after
another), one that the plan has no call left for today, and one while the
service is out of order is kept in state_dir, which is a success too: "report",
which the ban starts in the background, reports all of them in one bulk report.
Addresses that are not public are never reported.`,
  load: loadSection('abuseipdb'),
  remembers: true,
  targets: (loaded) => [open(loaded).target],
  verbs: {
    report: reportVerb(open),
    clear: {
      help: "take back this account's reports about --ip",
      seconds: 20,
      run: async (call, loaded) => {
        const { settings, reporter, target } = open(loaded)
        await onEach([target], 'clear', () => clear(call, settings, reporter))
      },
    },
  },
})
