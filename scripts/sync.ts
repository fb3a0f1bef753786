#!/usr/bin/env node
// Makes all targets equal to what Fail2Ban has banned now: whatever went wrong before, one sync
// repairs it.
//
//   f2b-sync --dry-run
//
// Exit codes: f2b-sync --help
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { main, textOption, usageFailure, type Values } from './lib/command.ts'
import type { Delivery } from './lib/delivery/control.ts'
import { isMeant, type SyncOptions } from './lib/delivery/deliverer.ts'
import { askFail2BanBans, troubleIn } from './lib/delivery/fail2ban-bans.ts'
import type { Synced } from './lib/delivery/line.ts'
import { loadAll, openDelivery, tidyQueues } from './lib/delivery/open.ts'
import { codeOf, EXIT, Failure } from './lib/failure.ts'
import { quote } from './lib/lease.ts'
import { tryLock } from './lib/lock.ts'
import { resolveTargets } from './lib/never-resolve.ts'
import { print } from './lib/print.ts'
import type { Loaded } from './lib/settled.ts'
import { nameOf } from './lib/status/survey.ts'
import { describe } from './lib/verbs.ts'

/** How long Fail2Ban may take to answer again, seconds: a restart with many bans, a reboot. */
const PATIENCE = 600

/** So often Fail2Ban is asked again, where bans do not go through the queue. */
const ROUNDS = 3

void main({
  name: 'sync',
  help: `Usage: f2b-sync [target...] [options]

Asks Fail2Ban for every ban of every jail that uses an action of ours, and makes
each target equal to it. A ban by hand (banip, f2b-firewall ban) lasts as long
as it said. Prints per target "added N, extended N, removed N, unchanged N".
Nothing is done while Fail2Ban cannot be asked: bans simply run on. Should it
say that most bans are over, they are released when it says so a minute later,
too.

  f2b-sync --dry-run          the drift: what is missing, extra or has another
                              end
  f2b-sync edge1              this target only; also: firewall, or
                              firewall/edge1

Options
  --config FILE     default /etc/fail2ban-perimeter/config.yaml
                    (also --configfile)
  --dry-run         show what would be changed, change nothing
  --later           return at once, and sync in the background as soon as
                    Fail2Ban answers; this is what an action may call, since
                    Fail2Ban cannot be asked from inside one`,
  options: {
    config: { type: 'string' },
    configfile: { type: 'string' },
    'dry-run': { type: 'boolean' },
    later: { type: 'boolean' },
    wait: { type: 'boolean' },
  },
  run,
})

async function run(names: string[], values: Values): Promise<void> {
  const given = textOption(values, 'config') ?? textOption(values, 'configfile')
  if (values.later) return runLater(given)
  const loaded = await loadAll(given)
  const work = () => syncAll(loaded, names, values)
  await (values.wait ? patiently(loaded, work) : work())
}

/** Starts ourselves again in the background, with no descriptor that Fail2Ban would wait for. */
function runLater(given: string | undefined): void {
  const options = given ? ['--config', given] : []
  const [node, script] = [process.execPath, process.argv[1] ?? '']
  spawn(node, [script, '--wait', ...options], { detached: true, stdio: 'ignore' }).unref()
}

async function syncAll(loaded: Loaded, names: string[], values: Values): Promise<void> {
  await resolveTargets(loaded.config)
  const delivery = await openDelivery(loaded, values)
  try {
    await tidyQueues(loaded, delivery)
    checkNames(names, await delivery.names())
    const dryRun = values['dry-run'] === true
    const sure = !dryRun && (values.wait === true || (await isAnnounced(loaded)))
    const options = { names, dryRun, sure }
    const { outcomes, trouble } = await syncBans(loaded, delivery, options)
    report(outcomes, trouble)
  } finally {
    await delivery.close()
  }
}

/**
 * Where a ban does not go through the queue, one that arrives between the question and its answer's
 * use is taken for one that is over. So after something was removed, Fail2Ban is asked once more.
 */
async function syncBans(
  loaded: Loaded,
  delivery: Delivery,
  options: SyncOptions,
): Promise<{ outcomes: Synced[]; trouble: Failure | undefined }> {
  let first: Synced[] | undefined
  for (let round = 1; ; round++) {
    const mark = await delivery.mark()
    const bans = await askFail2BanBans(loaded)
    const outcomes = await delivery.sync(bans, mark, options)
    first ??= outcomes
    const removed = outcomes.some(
      ({ counts }) => (counts?.removed ?? 0) + (counts?.extended ?? 0) > 0,
    )
    if (options.dryRun || !removed || round === ROUNDS) {
      return { outcomes: first, trouble: troubleIn(bans) }
    }
  }
}

function report(outcomes: Synced[], trouble: Failure | undefined): void {
  const several = outcomes.length > 1
  for (const { target, lines, counts } of outcomes) {
    for (const line of lines) print(`${line}\n`)
    const name = several ? `${target}: ` : ''
    if (counts) print(`${name}${describe(counts)}\n`)
  }
  const failed = outcomes.flatMap(({ target, failure }) => (failure ? [{ target, failure }] : []))
  const parts = failed.map(({ target, failure }) => `on ${quote(target)}: ${failure.message}`)
  if (trouble) parts.push(trouble.message)
  if (parts.length === 0) return
  const codes = [...failed.map(({ failure }) => failure.code), trouble?.code ?? EXIT.done]
  throw new Failure(Math.max(...codes) as Failure['code'], `Cannot sync ${parts.join('; ')}`)
}

/**
 * Waits until Fail2Ban answers. It is stopping, or busy with the very command that asked for us, so
 * the first seconds are not even tried. One process waits for all that are started meanwhile; one that
 * is started when the wait is over waits itself, since Fail2Ban may have been asked before its reason.
 */
async function patiently(loaded: Loaded, work: () => Promise<void>): Promise<void> {
  const file = lockOf(loaded)
  mkdirSync(loaded.config.state_dir, { recursive: true, mode: 0o755 })
  for (const end = Date.now() + PATIENCE * 1000; Date.now() < end; ) {
    const release = await tryLock(file)
    if (!release) return
    await setTimeout(2000)
    release()
    try {
      return await work()
    } catch (error) {
      if (codeOf(error) !== EXIT.temporary && codeOf(error) !== EXIT.unreachable) throw error
    }
  }
}

/** True while another f2b-sync waits for Fail2Ban to do what it was told, which is to release bans. */
async function isAnnounced(loaded: Loaded): Promise<boolean> {
  const release = await tryLock(lockOf(loaded))
  release?.()
  return release === undefined
}

function lockOf({ config }: Loaded): string {
  return `${config.state_dir}/sync.lock`
}

function checkNames(names: string[], known: { sibling: string; target: string }[]): void {
  const unknown = names.find(
    (name) => !known.some(({ sibling, target }) => isMeant([name], sibling, target)),
  )
  if (unknown === undefined) return
  const list = known.map(nameOf).join(', ')
  throw usageFailure(`Unknown target ${quote(unknown)} (one of ${list})`)
}
