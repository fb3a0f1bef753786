import { setTimeout as sleep } from 'node:timers/promises'
import { askStatus } from '../delivery/control.ts'
import {
  type Aside,
  deliveryDirectory,
  fileNameOf,
  readState,
  type SiblingState,
  type State,
} from '../delivery/state.ts'
import type { Truth } from '../delivery/truth.ts'
import { askTruth } from '../delivery/truth.ts'
import { EXIT } from '../failure.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds } from '../siblings.ts'
import {
  type Drift,
  type Look,
  lookAt,
  openSites,
  quietCall,
  type Site,
  type Trouble,
  troubleOf,
  within,
} from './look.ts'

/** Seconds for Fail2Ban, which answers nobody while an action of it runs, and for f2b-deliver. */
export const PATIENCE = { fail2ban: 10, deliverer: 3 }

/** Milliseconds between two looks: what is different in both of them is no ban on its way. */
const BETWEEN = 1_000

/** Seconds for which something may be queued before it is trouble. */
const TOO_LONG = 120

/** How everything stands. Times are epoch seconds. */
export interface Survey {
  at: number
  owner: string
  /** Bans of jails with actions of ours; undefined if Fail2Ban could not be asked. */
  bans: number | undefined
  fail2ban: Trouble | undefined
  deliverer: { running: boolean; trouble: Trouble | undefined }
  /** Lines of a queue that can never work, wherever they go. */
  aside: { sibling: string; aside: Aside }[]
  targets: TargetSurvey[]
}

export interface TargetSurvey {
  sibling: string
  target: string
  /** Undefined if it was not asked: what it has is known here. */
  reachable: boolean | undefined
  trouble: Trouble | undefined
  leases: number | undefined
  drift: Drift | undefined
  /** Undefined where bans do not go through a queue. */
  queue: { queued: number; oldest: number } | undefined
  state: State
}

/** @param seconds for each target, all side by side */
export async function takeSurvey(loaded: Loaded, seconds: number): Promise<Survey> {
  const sites = await openSites(loaded)
  const [told, answer] = await Promise.all([askDeliverer(loaded), askFail2BanNow(loaded)])
  const looks = await lookTwice(loaded, sites, seconds, answer.truth)
  const states = sites.map((site) => deliveryOf(loaded, site, told.siblings))
  return {
    at: Math.floor(Date.now() / 1000),
    owner: loaded.config.owner,
    bans: answer.truth && bansIn(answer.truth),
    fail2ban: answer.trouble,
    deliverer: { running: told.running, trouble: told.trouble },
    aside: asideOf(loaded, told.siblings),
    targets: sites.map(({ sibling, target, remote }, i) => {
      const { trouble, leases, drift } = looks[i] ?? {}
      const reachable = remote ? trouble === undefined : undefined
      const { state, queue } = states[i] ?? deliveryOf(loaded, sites[i] as Site, undefined)
      return { sibling, target: target.name, reachable, trouble, leases, drift, queue, state }
    }),
  }
}

/** What a monitoring system is told: 0, or the worst code of what is wrong. */
export function codeOfSurvey({ at, fail2ban, aside, targets }: Survey): number {
  const codes = targets.flatMap(({ trouble, drift, queue, state }) => [
    trouble?.code ?? EXIT.done,
    isDrifting(drift) || state.aside.length > 0 ? EXIT.temporary : EXIT.done,
    queue && queue.oldest > 0 && at - queue.oldest > TOO_LONG ? EXIT.temporary : EXIT.done,
  ])
  return Math.max(...codes, fail2ban?.code ?? 0, aside.length > 0 ? EXIT.temporary : EXIT.done)
}

export function isDrifting(drift: Drift | undefined): boolean {
  return drift !== undefined && drift.missing + drift.extra + drift.wrong_expiry > 0
}

async function askDeliverer(loaded: Loaded) {
  const asking = askStatus(deliveryDirectory(loaded.config.state_dir))
  try {
    const siblings = await within(PATIENCE.deliverer, 'f2b-deliver does not answer', asking)
    return { running: siblings !== undefined, siblings, trouble: undefined }
  } catch (error) {
    return { running: true, siblings: undefined, trouble: messageOnly(error) }
  }
}

/** It is there, but what it says is of no use: an older version, or one that hangs. */
function messageOnly(error: unknown): Trouble {
  return { code: EXIT.temporary, message: error instanceof Error ? error.message : String(error) }
}

export async function askFail2BanNow(
  loaded: Loaded,
): Promise<{ truth?: Map<string, Truth>; trouble?: Trouble }> {
  try {
    const message = 'Cannot ask Fail2Ban: it does not answer in time'
    return { truth: await within(PATIENCE.fail2ban, message, askTruth(loaded)) }
  } catch (error) {
    return { trouble: troubleOf(error) }
  }
}

/**
 * A ban that is on its way is no drift: who has one is looked at once more, beside a new answer of
 * Fail2Ban's, while others may still keep us waiting for their first.
 */
async function lookTwice(
  loaded: Loaded,
  sites: Site[],
  seconds: number,
  truth: Map<string, Truth> | undefined,
): Promise<Look[]> {
  const look = (site: Site, known: Map<string, Truth> | undefined): Promise<Look> =>
    lookAt(site, quietCall(loaded, seconds), seconds, known?.get(site.sibling))
  // One question serves all who have not been told before it is put.
  let asking: ReturnType<typeof askFail2BanNow> | undefined
  const askAgain = (): ReturnType<typeof askFail2BanNow> => {
    asking ??= sleep(BETWEEN).then(() => {
      asking = undefined
      return askFail2BanNow(loaded)
    })
    return asking
  }
  const one = async (site: Site): Promise<Look> => {
    const before = await look(site, truth)
    if (!before.drift || !isDrifting(before.drift)) return before
    const { truth: later } = await askAgain()
    const after = later ? await look(site, later) : before
    return after.drift ? { ...after, drift: lasting(before.drift, after.drift) } : before
  }
  return await Promise.all(sites.map(one))
}

/** What is different in both looks. */
function lasting(before: Drift, after: Drift): Drift {
  const known = new Set(before.lines)
  const lines = after.lines.filter((line) => known.has(line))
  const isGone = after.lines.length > 0 && lines.length === 0
  const least = (kind: 'missing' | 'extra' | 'wrong_expiry'): number =>
    isGone ? 0 : Math.min(before[kind], after[kind])
  const [missing, extra, wrong_expiry] = [least('missing'), least('extra'), least('wrong_expiry')]
  return { missing, extra, wrong_expiry, lines }
}

/** From f2b-deliver itself if it runs, else from its files. */
function deliveryOf(
  { config }: Loaded,
  { sibling, target, books }: Site,
  siblings: SiblingState[] | undefined,
): Pick<TargetSurvey, 'state' | 'queue'> {
  const told = siblings
    ?.find((one) => one.sibling === sibling)
    ?.targets.find((one) => one.target === target.name)?.state
  if (told) return { state: told, queue: { queued: told.queued, oldest: told.oldest } }
  const state = readState(deliveryDirectory(config.state_dir), fileNameOf(sibling, target.name))
  if (!books.isQueued) return { state, queue: undefined }
  const unread = books.unread()
  const waiting = books.waiting(target.name).length
  const moments = [unread.oldest, waiting > 0 ? state.oldest : 0].filter((at) => at > 0)
  const oldest = moments.length > 0 ? Math.min(...moments) : 0
  return { state, queue: { queued: unread.lines.length + waiting, oldest } }
}

function asideOf({ config }: Loaded, siblings: SiblingState[] | undefined): Survey['aside'] {
  const directory = deliveryDirectory(config.state_dir)
  return configuredKinds(config).flatMap(({ name }) => {
    const told = siblings?.find(({ sibling }) => sibling === name)?.aside
    const all = told ?? readState(directory, name).aside
    return all.map((aside) => ({ sibling: name, aside }))
  })
}

/** One that several siblings block is one ban. */
function bansIn(truth: Map<string, Truth>): number {
  const leases = [...truth.values()].flatMap((one) => one.leases)
  return new Set(leases.map(({ address, jail }) => `${address.text} ${jail}`)).size
}
