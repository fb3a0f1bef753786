import { setTimeout as sleep } from 'node:timers/promises'
import type { Truth } from '../delivery/truth.ts'
import type { Desk } from './desk.ts'
import { type Drift, type Look, type Trouble, troubleOf, within } from './look.ts'
import type { Looker, SiteName } from './looker.ts'

/** Seconds for Fail2Ban, which answers nobody while an action of it runs. */
const PATIENCE = 10

/** Milliseconds between two looks: what is different in both of them is no ban on its way. */
const BETWEEN = 1_000

/** What Fail2Ban has banned now, or why it does not say so. */
export async function askFail2BanNow(
  desk: Desk,
): Promise<{ truth?: Map<string, Truth>; trouble?: Trouble }> {
  try {
    const message = 'Cannot ask Fail2Ban: it does not answer in time'
    return { truth: await within(PATIENCE, message, desk.truth()) }
  } catch (error) {
    return { trouble: troubleOf(error) }
  }
}

export function isDrifting(drift: Drift | undefined): boolean {
  return drift !== undefined && drift.missing + drift.extra + drift.wrong_expiry > 0
}

/**
 * A ban that is on its way is no drift: who has one is looked at once more, beside a new answer of
 * Fail2Ban's, while others may still keep us waiting for their first.
 */
export async function lookTwice(
  desk: Desk,
  looker: Looker,
  sites: SiteName[],
  seconds: number,
  truth: Map<string, Truth> | undefined,
): Promise<Look[]> {
  const look = (site: SiteName, known: Map<string, Truth> | undefined): Promise<Look> =>
    looker.look(site, known?.get(site.sibling), seconds).catch((error) => {
      return { trouble: troubleOf(error) }
    })
  // One question serves all who have not been told before it is put.
  let asking: ReturnType<typeof askFail2BanNow> | undefined
  const askAgain = (): ReturnType<typeof askFail2BanNow> => {
    asking ??= sleep(BETWEEN).then(() => {
      asking = undefined
      return askFail2BanNow(desk)
    })
    return asking
  }
  const one = async (site: SiteName): Promise<Look> => {
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
