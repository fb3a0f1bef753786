import type { Rejection } from '../delivery/rejected.ts'
import type { State } from '../delivery/state.ts'
import type { About, Freedom } from './address.ts'
import { codeOfSurvey, problemsIn, type Survey } from './survey.ts'

/** Text that holds no code a terminal could obey, and is the same value when it is parsed. */
export function jsonOf(value: unknown): string {
  const coded = (text: string): string =>
    text
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join('')
  const text = JSON.stringify(value, null, 2)
  return `${text.replace(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, coded)}\n`
}

/** What `f2b-status --json` prints; see its help. Moments are epoch seconds, null is unknown. */
export function surveyJson(survey: Survey): unknown {
  const { at, owner, bans, fail2ban, deliverer, rejected, targets } = survey
  return {
    time: at,
    owner,
    code: codeOfSurvey(survey),
    problems: problemsIn(survey).map(({ name, code, text }) => ({ name, code, text })),
    fail2ban: { answers: fail2ban === undefined, bans: bans ?? null, error: fail2ban ?? null },
    deliverer: {
      running: deliverer.running,
      error: deliverer.trouble ?? null,
      config: deliverer.config ?? null,
    },
    targets: targets.map(
      ({ sibling, target, reachable, trouble, leases, drift, queue, state }) => ({
        sibling,
        target,
        reachable: reachable ?? null,
        error: trouble ?? null,
        leases: leases ?? null,
        drift: drift
          ? { missing: drift.missing, extra: drift.extra, wrong_expiry: drift.wrong_expiry }
          : null,
        queued: queue?.queued ?? null,
        oldest_queued: momentOf(queue?.oldest),
        ...stateJson(state),
      }),
    ),
    rejected: rejected.map((one) => ({ sibling: one.sibling, ...rejectionJson(one.rejection) })),
  }
}

function stateJson({ lastSuccess, failingSince, lastError, rejected }: State) {
  return {
    last_success: momentOf(lastSuccess),
    failing_since: momentOf(failingSince),
    last_error: lastError,
    rejected: rejected.map(rejectionJson),
  }
}

function rejectionJson({ id, at, code, reason, change, expires, acknowledged }: Rejection) {
  return { id, at, code, reason, change, expires, acknowledged }
}

function momentOf(at: number | undefined): number | null {
  return at || null
}

/** What `f2b-status <ip> --json` prints. */
export function aboutJson({ address, at, bans, troubles, places }: About) {
  return {
    time: at,
    address,
    bans: bans.map((ban) => ({ ...ban, times: ban.times ?? null })),
    errors: troubles,
    places: places.map(({ sibling, target, leases, others, trouble, waiting }) => ({
      sibling,
      target,
      error: trouble ?? null,
      leases,
      others,
      waiting,
    })),
  }
}

/** What `f2b-status --unban <ip> --json` prints. */
export function freedomJson({ fail2ban, places, after }: Freedom) {
  return {
    address: after.address,
    fail2ban: { freed: fail2ban.jails, error: fail2ban.trouble ?? null },
    places: places.map(({ sibling, target, freed, trouble, queued }) => ({
      sibling,
      target,
      freed,
      error: trouble ?? null,
      queued,
    })),
    now: aboutJson(after),
  }
}
