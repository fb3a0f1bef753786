import { setTimeout as sleep } from 'node:timers/promises'
import { NotRunning } from '../delivery/ask.ts'
import type { ConfigState } from '../delivery/config-watch.ts'
import { askStatus } from '../delivery/control.ts'
import {
  askFail2BanBans,
  type Fail2BanBans,
  sentenceOf,
  problemsIn as unclearIn,
} from '../delivery/fail2ban-bans.ts'
import {
  type Drift,
  ownProber,
  type Probe,
  type Prober,
  stateIn,
  statesInFiles,
  type TargetName,
  type Trouble,
  troubleOf,
  within,
} from '../delivery/probe.ts'
import type { Rejection } from '../delivery/rejected.ts'
import type { SiblingState, State } from '../delivery/state.ts'
import { accountInstead } from '../delivery-account.ts'
import { EXIT } from '../failure.ts'
import { alive, now } from '../lease.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds } from '../siblings.ts'
import { missingActions } from './jail-actions.ts'
import { count, plain, span } from './text.ts'

/** Seconds for Fail2Ban, which answers no question while an action of it runs, and for f2b-deliver. */
const PATIENCE = { jails: 20, bans: 10, deliverer: 3 }

/** Milliseconds between two looks: what is different in both of them is no ban on its way. */
const BETWEEN = 1_000

/** Seconds for which something may be queued before it is a problem. */
export const TOO_LONG = 120

/** Seconds for which what was rejected is a problem although it is over by now. */
const NEWS = 86_400

/** How everything stands. Times are epoch seconds. */
export interface Survey {
  at: number
  owner: string
  /** Bans of jails with actions of ours; undefined if Fail2Ban could not be asked. */
  bans: number | undefined
  fail2ban: Trouble | undefined
  /** What is not understood of Fail2Ban's jails, and jails without the actions that they are to have. */
  jails: Problem[]
  deliverer: { running: boolean; trouble: Trouble | undefined; config: ConfigState | undefined }
  /** Lines of a queue that can never work, wherever they go. */
  rejected: { sibling: string; rejection: Rejection }[]
  targets: TargetSurvey[]
}

export interface TargetSurvey extends Probe {
  sibling: string
  target: string
  /** Undefined if it was not asked: what it has is known here. */
  reachable: boolean | undefined
  /** Undefined where bans do not go through a queue. */
  queue: { queued: number; oldest: number } | undefined
  state: State
}

/** Something that is not as it should be, with the exit code that it gives. */
export interface Problem {
  name: string
  code: number
  text: string
  severity: Severity
}

/**
 * How bad it is. Critical: bans are not in force, or nobody can say so of a target; warning: they are,
 * or will be without anybody's help; unknown: there is nothing to compare a target with.
 */
export type Severity = 'warning' | 'critical' | 'unknown'

/** @param seconds for each target, all side by side */
export async function takeSurvey(loaded: Loaded, prober: Prober, seconds: number): Promise<Survey> {
  const { owner, state_dir } = loaded.config
  const [{ siblings: told, ...deliverer }, { banned, trouble }, missing] = await Promise.all([
    askDeliverer(loaded),
    askFail2Ban(loaded),
    askJailActions(loaded),
  ])
  // What the configuration names, for a service that does not answer.
  const names = await prober.targets().catch(() => ownProber(loaded).targets())
  const probes = await Promise.all(names.map(probeTwice(loaded, prober, seconds, banned)))
  const siblings = told ?? (accountInstead(state_dir) ? [] : statesInFiles(loaded, names))
  const unclear = banned ? unclearIn(banned) : []
  return {
    at: now(),
    owner,
    bans: banned && bansIn(banned),
    fail2ban: trouble,
    jails: [
      ...missing,
      ...unclear.map(
        (one): Problem => ({
          name: 'Fail2Ban',
          code: one.code,
          text: sentenceOf(one),
          severity: 'warning',
        }),
      ),
    ],
    deliverer,
    rejected: siblings.flatMap(({ sibling, rejected }) => {
      return rejected.map((rejection) => ({ sibling, rejection }))
    }),
    targets: names.map((name, i) => {
      const probe = probes[i] ?? {}
      return { ...probe, ...placeOf(name, probe), ...deliveryTo(name, siblings, told) }
    }),
  }
}

function placeOf({ sibling, target, remote }: TargetName, { trouble }: Probe) {
  return { sibling, target, reachable: remote ? trouble === undefined : undefined }
}

function deliveryTo(
  name: TargetName,
  siblings: SiblingState[],
  told: SiblingState[] | undefined,
): Pick<TargetSurvey, 'state' | 'queue'> {
  const state = stateIn(siblings, name)
  const isQueued = siblings.length > 0 && (told !== undefined || name.queued)
  return { state, queue: isQueued ? { queued: state.queued, oldest: state.oldest } : undefined }
}

/** What f2b-deliver says about itself, and whether it runs at all. */
export async function askDeliverer({ config: { state_dir } }: Loaded) {
  const nothing = { siblings: undefined, config: undefined, trouble: undefined }
  try {
    const late = 'f2b-deliver does not answer'
    const told = await within(PATIENCE.deliverer, late, askStatus(state_dir))
    const trouble = told || !accountInstead(state_dir) ? undefined : troubleOf(new NotRunning())
    return { running: told !== undefined, ...nothing, ...told, trouble }
  } catch (error) {
    // It is there, but what it says is of no use: an older version, or one that hangs.
    const message = error instanceof Error ? error.message : String(error)
    return { running: true, ...nothing, trouble: { code: EXIT.temporary, message } }
  }
}

async function askJailActions({ config }: Loaded): Promise<Problem[]> {
  const kinds = configuredKinds(config)
  const isOurs = (command: string): boolean => kinds.some(({ uses }) => uses.test(command))
  const late = 'Fail2Ban does not say its configuration in time'
  return await within(PATIENCE.jails, late, missingActions(config.fail2ban, isOurs)).catch(() => [])
}

/** What Fail2Ban has banned now, or why it does not say so. */
async function askFail2Ban(
  loaded: Loaded,
): Promise<{ banned?: Map<string, Fail2BanBans>; trouble?: Trouble }> {
  try {
    const message = 'Cannot ask Fail2Ban: it does not answer in time'
    return { banned: await within(PATIENCE.bans, message, askFail2BanBans(loaded)) }
  } catch (error) {
    return { trouble: troubleOf(error) }
  }
}

/**
 * A ban that is on its way is no drift: a target that has one is asked once more, beside a new answer
 * of Fail2Ban's, while others may still keep us waiting for their first.
 */
function probeTwice(
  loaded: Loaded,
  prober: Prober,
  seconds: number,
  banned: Map<string, Fail2BanBans> | undefined,
): (name: TargetName) => Promise<Probe> {
  const probe = (name: TargetName, known: Map<string, Fail2BanBans> | undefined): Promise<Probe> =>
    prober.probe(name, known?.get(name.sibling), seconds).catch((error) => {
      return { trouble: troubleOf(error) }
    })
  // One question serves all targets that wait for it when it is put.
  let asking: ReturnType<typeof askFail2Ban> | undefined
  const askAgain = (): ReturnType<typeof askFail2Ban> => {
    asking ??= sleep(BETWEEN).then(() => {
      asking = undefined
      return askFail2Ban(loaded)
    })
    return asking
  }
  return async (name) => {
    const before = await probe(name, banned)
    if (!before.drift || differencesIn(before.drift) === 0) return before
    const { banned: later } = await askAgain()
    const after = later ? await probe(name, later) : before
    return after.drift ? { ...after, drift: persistentDrift(before.drift, after.drift) } : before
  }
}

/** What is different in both probes. */
function persistentDrift(before: Drift, after: Drift): Drift {
  const known = new Set(before.lines)
  const lines = after.lines.filter((line) => known.has(line))
  const isGone = after.lines.length > 0 && lines.length === 0
  const least = (kind: 'missing' | 'extra' | 'wrong_expiry'): number =>
    isGone ? 0 : Math.min(before[kind], after[kind])
  const [missing, extra, wrong_expiry] = [least('missing'), least('extra'), least('wrong_expiry')]
  return { missing, extra, wrong_expiry, lines }
}

export function differencesIn({ missing, extra, wrong_expiry }: Drift): number {
  return missing + extra + wrong_expiry
}

/** One that several siblings block is one ban. */
function bansIn(banned: Map<string, Fail2BanBans>): number {
  const leases = [...banned.values()].flatMap((one) => [...one.leases, ...one.inexact])
  return new Set(leases.map(({ address, jail }) => `${address.text} ${jail}`)).size
}

/** Everything that is wrong, each with its exit code. */
export function problemsIn(survey: Survey): Problem[] {
  const { at, fail2ban, jails, deliverer, rejected, targets } = survey
  const problems = [...jails]
  const add = (name: string, code: number, text: string, severity: Severity): void => {
    problems.push({ name, code, text, severity })
  }
  if (fail2ban) add('Fail2Ban', fail2ban.code, `${fail2ban.message}; drift is unknown`, 'unknown')
  const { running, trouble } = deliverer
  const silent = running ? 'unknown' : 'critical'
  if (trouble) add('f2b-deliver', trouble.code, trouble.message, silent)
  const { config } = deliverer
  if (config?.error) {
    const since = span(at - config.since)
    const text = `works with the configuration of ${since} ago, for the one of now is no use to it`
    add('f2b-deliver', EXIT.config, `${text}: ${config.error}`, 'warning')
  }
  problems.push(...lateIn(survey))
  for (const sibling of new Set(rejected.map((one) => one.sibling))) {
    const own = rejected.filter((one) => one.sibling === sibling).map((one) => one.rejection)
    problems.push(...rejectedIn(sibling, own, at))
  }
  for (const one of targets) problems.push(...problemsOf(one, at))
  return problems
}

/** What a monitoring system is told: 0, or the worst code of what is wrong. */
export function codeOfSurvey(survey: Survey): number {
  return Math.max(EXIT.done, ...problemsIn(survey).map(({ code }) => code))
}

/** `firewall/edge1`; a service or a file, of which there is but one, has no name of its own. */
export function nameOf({ sibling, target }: { sibling: string; target: string }): string {
  const only = sibling === target || target.startsWith('/')
  return plain(only ? sibling : `${sibling}/${target}`)
}

/** True if it is not acknowledged, and is in force or was a short while ago. */
export function isUnseen({ acknowledged, expires, at }: Rejection, now: number): boolean {
  return !acknowledged && (alive(expires, now) || at > now - NEWS)
}

function problemsOf(one: TargetSurvey, at: number): Problem[] {
  const { trouble, complaint, drift, state } = one
  const name = nameOf(one)
  const problems = rejectedIn(name, state.rejected, at)
  const add = (code: number, text: string, severity: Severity): void => {
    problems.push({ name, code, text, severity })
  }
  if (complaint) add(EXIT.input, plain(complaint), 'warning')
  if (state.clock) add(EXIT.temporary, plain(state.clock), 'warning')
  if (trouble) {
    const { code, message: text } = trouble
    problems.unshift({ name, code, text, severity: 'critical' })
  }
  if (!drift || differencesIn(drift) === 0) return problems
  const parts = [
    ...(drift.missing > 0 ? [`${drift.missing} missing`] : []),
    ...(drift.extra > 0 ? [`${drift.extra} extra`] : []),
    ...(drift.wrong_expiry > 0 ? [`${drift.wrong_expiry} with another end`] : []),
  ]
  const text = `${parts.join(', ')}: f2b-sync repairs it (--dry-run shows it)`
  add(EXIT.temporary, text, drift.missing > 0 ? 'critical' : 'warning')
  return problems
}

function rejectedIn(name: string, all: readonly Rejection[], at: number): Problem[] {
  const unseen = all.filter((one) => isUnseen(one, at)).length
  if (unseen === 0) return []
  const text = `${count(unseen, 'change')} rejected, see below: --acknowledge says that you know`
  return [{ name, code: EXIT.refused, text, severity: 'warning' }]
}

function lateIn({ at, deliverer, targets }: Survey): Problem[] {
  const late = targets.filter(
    ({ queue }) => queue && queue.oldest > 0 && at - queue.oldest > TOO_LONG,
  )
  const waits = ({ queue }: TargetSurvey): string => {
    const queued = queue?.queued ?? 0
    const since = span(at - (queue?.oldest ?? at))
    return `${count(queued, 'change')} ${queued === 1 ? 'waits' : 'wait'} for ${since}`
  }
  const code = EXIT.temporary
  if (deliverer.running) {
    return late.map((one) => ({ name: nameOf(one), code, text: waits(one), severity: 'warning' }))
  }
  const [first] = late.sort((a, b) => (b.queue?.queued ?? 0) - (a.queue?.queued ?? 0))
  if (!first) return []
  const text = `does not run, and ${waits(first)}: start it (f2b-deliver --follow)`
  return [{ name: 'f2b-deliver', code, text, severity: 'critical' }]
}
