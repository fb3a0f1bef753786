#!/usr/bin/env node
// What is blocked where and why: how every target stands beside what Fail2Ban has banned, what is
// known of one address, and a way to free it everywhere.
//
//   f2b-status --unban 192.0.2.7
//
// Exit codes: f2b-status --help
import { parseAddress } from './lib/address.ts'
import { explained, main, noWords, textOption, usageFailure, type Values } from './lib/command.ts'
import { openProber } from './lib/delivery/control.ts'
import { loadAll, openDelivery } from './lib/delivery/open.ts'
import { replaceDurably } from './lib/durable.ts'
import { EXIT, Failure, messageOf } from './lib/failure.ts'
import { quote } from './lib/lease.ts'
import { print } from './lib/print.ts'
import type { Loaded } from './lib/settled.ts'
import { aboutAddress, freeEverywhere } from './lib/status/address.ts'
import { aboutJson, freedomJson, jsonOf, surveyJson } from './lib/status/json.ts'
import { metricsOf } from './lib/status/metrics.ts'
import { nagiosLine, nagiosOf } from './lib/status/nagios.ts'
import { aboutReport, freedomReport, reportOf } from './lib/status/report.ts'
import { codeOfSurvey, nameOf, takeSurvey } from './lib/status/survey.ts'
import { paperOf, plain } from './lib/status/text.ts'

/** Mode of the file for node_exporter, which is another user. */
const METRICS_MODE = 0o644

void main({
  name: 'status',
  help: `Usage: f2b-status [ip] [options]

Shows how each target stands, who banned an address and where it is in force,
and frees it.

  f2b-status                       a row for each target
  f2b-status 192.0.2.7             which jail banned it, until when, where it is
                                   in force, and why
  f2b-status --unban 192.0.2.7     free it in Fail2Ban and on every target, in
                                   all jails
  f2b-status --acknowledge all     know of what was rejected: it is no problem
                                   any more

Columns
  REACHED           it answered ("-": what it is to block is kept here, nobody
                    is asked)
  LEASES            bans of this server there
  DRIFT             differences to what Fail2Ban has banned
  QUEUED, OLDEST    changes that wait, and how long the oldest has
  REJECTED          changes that can never work
  SUCCESS, ERROR    since the last delivery, failure

Below them is what is wrong, each with its code. A ban on its way is no drift:
what differs is looked at twice. A ban that is rejected (never_ban, min_prefix,
a full target, a line that nobody can read) is no drift either, and tried again
every hour; it is a problem until it is acknowledged, or over for a day.

For monitoring: 0 if all is well, else the worst (highest) code of the problems
that are shown:
  69, 75, 76, 77    what a target says itself: unreachable, busy, answers oddly,
                    refuses us
  75                drift; queued for more than 2 minutes; Fail2Ban or
                    f2b-deliver cannot be asked
  77                something was rejected and nobody has acknowledged it
  78                a jail runs without the action that jail.local gives it; or
                    f2b-deliver cannot use config.yaml as it is now, and goes on
                    with the one before

With --nagios the worst of the same problems says which:
  CRITICAL          bans are not in force: a target is not reached, refuses us
                    or lacks bans; a jail runs without our action; f2b-deliver
                    does not run, and changes wait
  UNKNOWN           Fail2Ban or f2b-deliver cannot be asked, or config.yaml
                    cannot be read (run it as root)
  WARNING           changes wait for more than 2 minutes; a target has bans too
                    many or with another end; something was rejected;
                    config.yaml as it is now cannot be used

Options
  --unban ADDR      free the address or range; a range that contains it stays
  --acknowledge ID  take what was rejected from the problems, by the id that is
                    shown, by its address, or "all"; it comes back only when it
                    happens anew
  --json            for programs; moments are epoch seconds, null is what is not
                    known: {time, owner, code, problems: [{name, code, text}],
                    fail2ban: {answers, bans, error}, deliverer: {running,
                    error, config: {path, since, error}}, targets: [{sibling,
                    target, reachable, error, leases, drift: {missing, extra,
                    wrong_expiry}, queued, oldest_queued, last_success,
                    failing_since, last_error, rejected}], rejected: [{sibling,
                    id, at, code, reason, change, expires, acknowledged}]}; an
                    error is {code, message}
  --metrics FILE    write the same for Prometheus (node_exporter's textfile
                    collector), silently and with exit code 0; FILE must end
                    with .prom
  --nagios          a plug-in for Nagios or Icinga: one line with figures, and 0
                    OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN
  --timeout SECONDS for each target, all at once; default 5
  --config FILE     default /etc/fail2ban-perimeter/config.yaml
                    (also --configfile)`,
  options: {
    unban: { type: 'string' },
    acknowledge: { type: 'string' },
    json: { type: 'boolean' },
    metrics: { type: 'string' },
    nagios: { type: 'boolean' },
    timeout: { type: 'string' },
    config: { type: 'string' },
    configfile: { type: 'string' },
  },
  run,
}).finally(() => print('', () => process.exit())) // whatever still hangs somewhere

async function run(words: string[], values: Values): Promise<void> {
  if (!values.nagios) return await show(words, values)
  try {
    await show(words, values)
  } catch (error) {
    // A plug-in has no other codes, and nobody reads its standard error.
    tellNagios(nagiosLine('unknown', messageOf(explained(error))))
  }
}

function tellNagios({ code, line }: ReturnType<typeof nagiosLine>): void {
  process.exitCode = code
  print(line)
}

async function show([word, ...words]: string[], values: Values): Promise<void> {
  noWords(words)
  const [unban, metrics] = [textOption(values, 'unban'), textOption(values, 'metrics')]
  const seen = textOption(values, 'acknowledge')
  const wishes = [word, unban, metrics, seen, values.nagios]
  if (wishes.filter((one) => one !== undefined).length > 1) {
    const list = 'An address, --unban, --acknowledge, --metrics and --nagios'
    throw usageFailure(`${list} exclude each other`)
  }
  const asked = unban ?? word
  if (metrics !== undefined && !metrics.endsWith('.prom')) {
    throw usageFailure('The file of --metrics must end with .prom')
  }
  const address = asked === undefined ? undefined : parseAddress(asked)
  const seconds = readTimeout(textOption(values, 'timeout'))
  const loaded = await loadAll(textOption(values, 'config') ?? textOption(values, 'configfile'))
  if (seen !== undefined) return await acknowledge(loaded, values, seen)
  const prober = openProber(loaded)
  const paper = paperOf(process.stdout)
  const json = values.json === true
  if (!address) {
    const survey = await takeSurvey(loaded, prober, seconds)
    if (metrics !== undefined) return replaceDurably(metrics, metricsOf(survey), METRICS_MODE)
    if (values.nagios) return tellNagios(nagiosOf(survey))
    process.exitCode = codeOfSurvey(survey)
    return print(json ? jsonOf(surveyJson(survey)) : reportOf(survey, paper))
  }
  if (unban === undefined) {
    const about = await aboutAddress(loaded, prober, address, seconds)
    process.exitCode = worst([...about.troubles, ...about.places.map(({ trouble }) => trouble)])
    return print(json ? jsonOf(aboutJson(about)) : aboutReport(about, paper))
  }
  const freedom = await freeEverywhere(loaded, prober, address, seconds)
  const { fail2ban, places } = freedom
  process.exitCode = worst([fail2ban.trouble, ...places.map(({ trouble }) => trouble)])
  print(json ? jsonOf(freedomJson(freedom)) : freedomReport(freedom, paper))
}

async function acknowledge(loaded: Loaded, values: Values, word: string): Promise<void> {
  const delivery = await openDelivery(loaded, values)
  try {
    const done = await delivery.acknowledge(word)
    for (const { id, sibling, target, change, reason } of done) {
      const where = target === undefined ? sibling : nameOf({ sibling, target })
      print(`${plain(`${where}: acknowledged ${id}, ${change}: ${reason}`)}\n`)
    }
    if (done.length > 0) return
    if (word !== 'all') throw new Failure(EXIT.input, `Nothing is rejected that is ${quote(word)}`)
    print('Nothing is rejected that was not acknowledged before\n')
  } finally {
    await delivery.close()
  }
}

function readTimeout(text = '5'): number {
  const seconds = Number(text)
  if (/^\d{1,3}$/.test(text) && seconds > 0) return seconds
  throw new Failure(EXIT.input, 'Cannot read --timeout: whole seconds, 1 to 999')
}

function worst(troubles: ({ code: number } | undefined)[]): number {
  return Math.max(EXIT.done, ...troubles.map((trouble) => trouble?.code ?? EXIT.done))
}
