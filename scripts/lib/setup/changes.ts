import { codeOf, EXIT, Failure, ioFailure, messageOf } from '../failure.ts'
import { print } from '../print.ts'

/** How a thing stands: missing, not as wanted, as wanted, or not ours to touch. */
export type State = 'absent' | 'different' | 'same' | 'foreign'

/** One thing that an installation consists of; a list of them can be installed and uninstalled. */
export interface Item {
  /** What it is called in what is printed: a path, or `user fail2ban`. */
  name: string
  /** Compares. Must change nothing: all items are looked at before the first one is touched. */
  look(): State | Promise<State>
  /** Makes it as wanted, whether it was absent or different. */
  make(): void | Promise<void>
  /** Undoes it. Returning `false` means that it had to be left: a folder that is not empty. */
  remove(): unknown
  /** It is the operator's, or cannot be made again: `--uninstall` leaves it without `--purge`. */
  kept?: boolean
  /** It is not wanted here: an installation removes it. */
  unwanted?: boolean
  /** Follows the name when it is changed: `backend auto -> nftables`. */
  note?: string
  /** What to do if it is somebody else's; else: move it away. */
  remedy?: string
}

/** How the operator wants it done. */
export interface Manner {
  dryRun: boolean
  verbose: boolean
  uninstall: boolean
  purge: boolean
}

const VERBS = {
  create: ['created', 'would create'],
  update: ['updated', 'would update'],
  remove: ['removed', 'would remove'],
} as const

type Verb = keyof typeof VERBS | 'none' | 'leave'

interface Step {
  item: Item
  verb: Verb
}

/**
 * Makes things as they are wanted, or undoes them in reverse order, and prints a line for each that
 * it changes. Everything is compared first, so that what must be refused is refused before anything
 * has been changed.
 *
 * @throws Failure naming the step that failed; what was done before it stays
 */
export async function apply(items: Item[], manner: Manner): Promise<void> {
  if ((await change(items, manner)) === 0) say('nothing to change')
}

/** The same for a further part. @returns how much it changed, or would have */
export async function change(items: Item[], manner: Manner): Promise<number> {
  let changed = 0
  for (const step of await plan(items, manner)) if (await take(step, manner)) changed++
  return changed
}

/** Prints a line about what was done. */
export function say(line: string): void {
  print(`${line}\n`)
}

async function plan(items: Item[], manner: Manner): Promise<Step[]> {
  const steps: Step[] = []
  for (const item of manner.uninstall ? items.toReversed() : items) {
    steps.push({ item, verb: verbFor(item, await item.look(), manner) })
  }
  return steps
}

function verbFor(item: Item, state: State, manner: Manner): Verb {
  if (state === 'absent') return manner.uninstall || item.unwanted ? 'none' : 'create'
  if (manner.uninstall) {
    return state === 'foreign' || (item.kept && !manner.purge) ? 'leave' : 'remove'
  }
  if (item.unwanted) return state === 'foreign' ? 'none' : 'remove'
  if (state === 'foreign') {
    const remedy = item.remedy ?? `move it away (mv ${item.name} ${item.name}.old)`
    throw new Failure(EXIT.config, `Cannot replace ${item.name}: it is not ours: ${remedy}`)
  }
  return state === 'different' ? 'update' : 'none'
}

/** @returns whether it changed something, or would have */
async function take({ item, verb }: Step, manner: Manner): Promise<boolean> {
  if (verb === 'none') {
    if (manner.verbose && !manner.uninstall && !item.unwanted) say(`unchanged ${item.name}`)
    return false
  }
  if (verb === 'leave') {
    say(`left ${item.name} (${item.kept ? '--purge removes it' : 'not ours'})`)
    return false
  }
  const [done, would] = VERBS[verb]
  const note = item.note && verb !== 'remove' ? ` (${item.note})` : ''
  if (!manner.dryRun && !(await carryOut(item, verb))) {
    say(`left ${item.name} (not empty)`)
    return false
  }
  say(`${manner.dryRun ? would : done} ${item.name}${note}`)
  return true
}

async function carryOut(item: Item, verb: keyof typeof VERBS): Promise<boolean> {
  try {
    if (verb !== 'remove') await item.make()
    else return (await item.remove()) !== false
    return true
  } catch (error) {
    const why = error instanceof Failure ? error : ioFailure(`${verb} ${item.name}`, error)
    const doing = `Cannot ${verb} ${item.name}: `
    const text = messageOf(why).replace(doing, '')
    throw new Failure(codeOf(why), `${doing}${text} (what was done before stays; run it again)`, {
      cause: error,
    })
  }
}
