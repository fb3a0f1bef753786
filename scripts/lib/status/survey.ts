import { NotRunning } from '../delivery/ask.ts'
import type { ConfigState } from '../delivery/config-watch.ts'
import { askStatus } from '../delivery/control.ts'
import type { Rejection } from '../delivery/rejected.ts'
import {
  deliveryDirectory,
  FRESH,
  fileNameOf,
  readState,
  type SiblingState,
  type State,
} from '../delivery/state.ts'
import { type Problem, problemsIn, type Truth } from '../delivery/truth.ts'
import { accountInstead } from '../delivery-account.ts'
import { EXIT } from '../failure.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds } from '../siblings.ts'
import { Books } from './books.ts'
import type { Desk } from './desk.ts'
import { missingActions } from './jail-actions.ts'
import { type Drift, openSites, type Trouble, troubleOf, within } from './look.ts'
import type { Looker, SiteName } from './looker.ts'
import { askFail2BanNow, lookTwice } from './looks.ts'
import type { Problem as Missing } from './problems.ts'

/** Seconds for Fail2Ban to say which actions its jails are to have, and have. */
const JAILS = 20

/** Seconds for f2b-deliver to answer. */
const PATIENCE = 3

const NOT_RUNNING: Trouble = troubleOf(new NotRunning())

/** How everything stands. Times are epoch seconds. */
export interface Survey {
  at: number
  owner: string
  /** Bans of jails with actions of ours; undefined if Fail2Ban could not be asked. */
  bans: number | undefined
  fail2ban: Trouble | undefined
  /** What is not understood of Fail2Ban's jails. */
  unclear: Problem[]
  /** Jails that run without the actions that they are to have. */
  jails: Missing[]
  deliverer: { running: boolean; trouble: Trouble | undefined; config: ConfigState | undefined }
  /** Lines of a queue that can never work, wherever they go. */
  rejected: { sibling: string; rejection: Rejection }[]
  targets: TargetSurvey[]
}

export interface TargetSurvey {
  sibling: string
  target: string
  /** Undefined if it was not asked: what it has is known here. */
  reachable: boolean | undefined
  trouble: Trouble | undefined
  /** See `Target`. */
  complaint: string | undefined
  leases: number | undefined
  drift: Drift | undefined
  /** Undefined where bans do not go through a queue. */
  queue: { queued: number; oldest: number } | undefined
  state: State
}

/** @param seconds for each target, all side by side */
export async function takeSurvey(
  loaded: Loaded,
  desk: Desk,
  looker: Looker,
  seconds: number,
): Promise<Survey> {
  const [told, answer, jails] = await Promise.all([
    askDeliverer(loaded),
    askFail2BanNow(desk),
    askJailActions(loaded),
  ])
  const sites = await looker.sites().catch(() => sitesUnasked(loaded))
  const looks = await lookTwice(desk, looker, sites, seconds, answer.truth)
  const states = sites.map((site) => deliveryOf(loaded, site, told.siblings))
  return {
    at: Math.floor(Date.now() / 1000),
    owner: loaded.config.owner,
    bans: answer.truth && bansIn(answer.truth),
    fail2ban: answer.trouble,
    unclear: answer.truth ? problemsIn(answer.truth) : [],
    jails,
    deliverer: { running: told.running, trouble: told.trouble, config: told.config },
    rejected: rejectedOf(loaded, told.siblings),
    targets: sites.map(({ sibling, target, remote }, i) => {
      const { trouble, complaint, leases, drift } = looks[i] ?? {}
      const reachable = remote ? trouble === undefined : undefined
      const { state = FRESH, queue } = states[i] ?? {}
      return { sibling, target, reachable, trouble, complaint, leases, drift, queue, state }
    }),
  }
}

/** What is known of a deliverer that says nothing. */
const NOTHING = { siblings: undefined, config: undefined, trouble: undefined }

async function askJailActions({ config }: Loaded): Promise<Missing[]> {
  const kinds = configuredKinds(config)
  const isOurs = (command: string): boolean => kinds.some(({ uses }) => uses.test(command))
  const late = 'Fail2Ban does not say its configuration in time'
  return await within(JAILS, late, missingActions(config.fail2ban, isOurs)).catch(() => [])
}

async function askDeliverer(loaded: Loaded) {
  const asking = askStatus(loaded.config.state_dir)
  try {
    const told = await within(PATIENCE, 'f2b-deliver does not answer', asking)
    const trouble = told || !accountInstead(loaded.config.state_dir) ? undefined : NOT_RUNNING
    return { running: told !== undefined, ...NOTHING, ...told, trouble }
  } catch (error) {
    return { running: true, ...NOTHING, trouble: messageOnly(error) }
  }
}

/** It is there, but what it says is of no use: an older version, or one that hangs. */
function messageOnly(error: unknown): Trouble {
  return { code: EXIT.temporary, message: error instanceof Error ? error.message : String(error) }
}

/** What the configuration names, for a service that does not answer. */
async function sitesUnasked(loaded: Loaded): Promise<SiteName[]> {
  const sites = await openSites(loaded)
  return sites.map(({ sibling, target, remote }) => {
    return { sibling, target: target.name, remote, queued: true }
  })
}

/** From f2b-deliver itself if it runs, else from its files, if they are ours to read. */
function deliveryOf(
  { config }: Loaded,
  { sibling, target, queued }: SiteName,
  siblings: SiblingState[] | undefined,
): Pick<TargetSurvey, 'state' | 'queue'> {
  const told = siblings
    ?.find((one) => one.sibling === sibling)
    ?.targets.find((one) => one.target === target)?.state
  if (told) return { state: told, queue: { queued: told.queued, oldest: told.oldest } }
  if (accountInstead(config.state_dir)) return { state: FRESH, queue: undefined }
  const state = readState(deliveryDirectory(config.state_dir), fileNameOf(sibling, target))
  if (!queued) return { state, queue: undefined }
  const books = new Books(config, sibling)
  const unread = books.unread()
  const waiting = books.waiting(target).length
  const moments = [unread.oldest, waiting > 0 ? state.oldest : 0].filter((at) => at > 0)
  const oldest = moments.length > 0 ? Math.min(...moments) : 0
  return { state, queue: { queued: unread.lines.length + waiting, oldest } }
}

function rejectedOf({ config }: Loaded, siblings: SiblingState[] | undefined): Survey['rejected'] {
  const directory = deliveryDirectory(config.state_dir)
  const isOurs = !accountInstead(config.state_dir)
  return configuredKinds(config).flatMap(({ name }) => {
    const told = siblings?.find(({ sibling }) => sibling === name)?.rejected
    const all = told ?? (isOurs ? readState(directory, name).rejected : [])
    return all.map((rejection) => ({ sibling: name, rejection }))
  })
}

/** One that several siblings block is one ban. */
function bansIn(truth: Map<string, Truth>): number {
  const leases = [...truth.values()].flatMap((one) => [...one.leases, ...one.inexact])
  return new Set(leases.map(({ address, jail }) => `${address.text} ${jail}`)).size
}
