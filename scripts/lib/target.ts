import type { Address } from './address.ts'
import type { Options, Values } from './command.ts'
import { EXIT, Failure } from './failure.ts'
import { formatLease, type Lease } from './lease.ts'
import type { Config } from './settings/schema.ts'
import type { Loaded } from './settled.ts'

// The contract of all siblings: what a target can do, and what it is told.

/** What every verb of every sibling is told. */
export interface Call {
  config: Config
  /** The server whose Fail2Ban asks. */
  owner: string
  /** `--name`; undefined if it was not given. */
  jail: string | undefined
  /** `--port` and `--protocol`, see readNaming; undefined means: keep what the target has. */
  ports: string | undefined
  protocol: string | undefined
  /** Ports and protocol of single jails, for a sync of several. */
  namings?: Map<string, { ports: string; protocol: string }>
  dryRun: boolean
  verbose: boolean
  /** Fires when the verb must be over. */
  signal: AbortSignal
  /** Prints a line on standard output: what `--dry-run` would do, for instance. */
  show(line: string): void
  /** Prints a line on standard error, with `--verbose` only. */
  say(line: string): void
  /** Shows how far long work is, on a terminal only. */
  progress(done: number, total: number): void
  /** Every option as given: where a sibling reads those it has beyond the contract. */
  values: Values
}

/** Counts of leases, as `sync` prints them. `extended` counts every changed end. */
export interface Counts {
  added: number
  extended: number
  removed: number
  unchanged: number
  refused?: number
}

/** A single change of many. */
export type Change =
  | { verb: 'ban'; lease: Lease }
  | { verb: 'unban'; address: Address; jail: string }

/**
 * What became of a change: undefined once it is made. A Refusal is about this change alone; any other
 * Failure is about the target, which is asked again.
 */
export type Outcome = Failure | undefined

/** The target will not have this very change, and takes others. */
export class Refusal extends Failure {}

/**
 * One thing that can block: the contract of all siblings. Every method is idempotent: "already
 * banned" and "was not banned" are success. A method throws a Failure whose message completes the
 * sentence `Cannot <verb> ... on "<name>":`. With `call.dryRun` it shows what it would do instead.
 *
 * The verbs `ban`, `unban`, `flush` and `stop` are made of these, see verbs.ts.
 */
export interface Target {
  /** What messages call it. */
  name: string
  /** Prepares the target for a jail: makes what is missing. */
  start(call: Call): Promise<void>
  /** Fails (75) if the target is not as `start` left it. */
  check(call: Call): Promise<void>
  /** This owner's leases (those of `call.jail`, if given) as the target has them. */
  list(call: Call): Promise<Lease[]>
  /**
   * Makes changes in order, in as few calls as the target allows. A ban blocks until `lease.expires`
   * at least; after an unban this owner's jail no longer holds the address.
   *
   * @returns an outcome for each, in order; fewer if the time was too short for the rest
   * @throws Failure if none was made
   */
  change(call: Call, changes: readonly Change[]): Promise<Outcome[]>
  /** After this, this owner's leases (in `call.jail`, if given) are exactly these. */
  sync(call: Call, leases: readonly Lease[]): Promise<Counts>

  /**
   * Opens a connection that stays, for all that comes, or finds out whether it still works.
   *
   * @throws LostGeneration, NewSession, or why there is none
   */
  open?(call: Call): Promise<void>
  /** Closes it. The verb `stop` gives its call, and ends what `start` left open, too. */
  close?(call?: Call): Promise<void>

  // What follows only a target has that would be wrong without it; the brackets name those.

  /** Releases all, or those of `call.jail`, where more goes than a sync with nothing takes (firewall). */
  flush?(call: Call): Promise<void>
  /**
   * True if a sync would change nothing, at a cost that does not grow with the leases: f2b-deliver asks
   * after each reconnect, and before a sync (firewall, net2ban).
   */
  inSync?(call: Call, leases: readonly Lease[]): Promise<boolean>
  /** What was banned by hand and without a jail, where `list` does not show all of it (reporters). */
  manual?(call: Call): Promise<Lease[]>
  /** What is in force about an address, where others' bans can be seen, too (firewall, FortiGate). */
  listAll?(call: Call, address: Address): Promise<{ leases: Lease[]; others: Block[] }>
  /** Whether a target that was away may be reached again: in a moment, and at no cost (firewall). */
  probe?(): Promise<boolean>
  /** What a person should put right there; all else works (a firewall's clock, a FortiGate's list). */
  complaint?(): string | undefined
}

/** A ban that another server or person holds: until when, but not whose it is. */
export interface Block {
  /** The address itself, or a range that contains it. */
  address: Address
  expires: number
  /** Not all of the range that was asked about is blocked. */
  partly: boolean
}

/** The target has forgotten everything of ours, as a firewall whose disk was replaced: fill it. */
export class LostGeneration extends Failure {}

/**
 * There is a new session with the target, and what the last one had sent may have arrived or not. It
 * stays open; what it was opened for has not been tried.
 */
export class NewSession extends Failure {}

/** The entries of a section. @throws Failure 78 if there is none */
export function entriesOf<T>(section: string, list: readonly T[]): readonly T[] {
  if (list.length > 0) return list
  throw new Failure(EXIT.config, `Cannot find section "${section}" in the configuration`)
}

/** What a change is about. */
export function subjectOf(change: Change): Pick<Lease, 'address' | 'jail'> {
  return change.verb === 'ban' ? change.lease : change
}

/** Makes one change. @throws Failure why it was not made */
export async function changeOne(
  target: Pick<Target, 'change'>,
  call: Call,
  change: Change,
): Promise<void> {
  const outcomes = await target.change(call, [change])
  if (outcomes.length === 0) throw new Failure(EXIT.temporary, 'there was no time left to try it')
  if (outcomes[0]) throw outcomes[0]
}

/**
 * Makes changes one by one, at a target that takes one at a time. What is wrong with one of them
 * (65) stops none of the others; after any other failure the rest is not tried.
 */
export async function oneByOne(
  changes: readonly Change[],
  work: (change: Change) => Promise<void>,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  for (const change of changes) {
    try {
      await work(change)
      outcomes.push(undefined)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      if (error.code !== EXIT.input) {
        return [...outcomes, ...changes.slice(outcomes.length).map(() => error)]
      }
      outcomes.push(new Refusal(error.code, error.message))
    }
  }
  return outcomes
}

/** A change as `--dry-run` shows it. */
export function describeChange(call: Call, change: Change): string {
  if (change.verb === 'unban') return `unban ${change.address.text} ${change.jail} ${call.owner}`
  const { ports, protocol } = namingOf(call, change.lease.jail)
  return ['ban', formatLease(change.lease), ports, protocol].filter(Boolean).join(' ')
}

/** Ports and protocol of a jail, as far as they are known; undefined means: keep what the target has. */
export function namingOf(call: Call, jail: string): Partial<Pick<Call, 'ports' | 'protocol'>> {
  return call.namings?.get(jail) ?? { ports: call.ports, protocol: call.protocol }
}

export interface Sibling {
  /** Begins every message and names the configuration section. */
  name: string
  /** The command, for `--help`. */
  command: string
  /** Two or three lines for `--help`: what it blocks on, and an example. */
  about: string
  /** Reads the configuration. @param given `--config` @throws Failure 78 */
  load(given?: string): Promise<Loaded>
  /** The targets in the configuration. @throws Failure 78 if there is none */
  targets(loaded: Loaded, values: Values): Target[]
  /** Its targets remember things in `state_dir`: where an account delivers, only that one may. */
  remembers?: boolean
  /** Options beyond the contract, each with its lines for `--help`. */
  options?: Options
  optionsHelp?: string
  /** Verbs beyond the contract, by their word. */
  verbs?: Record<string, ExtraVerb>
}

/** A verb that only one sibling has. */
export interface ExtraVerb {
  /** Its line in `--help`. */
  help: string
  /** Whole seconds that it may take. */
  seconds: number
  /** How many words follow it, at least and at most; none if left out. */
  words?: readonly [number, number]
  /** It needs no configuration: one that is missing is taken for an empty one. */
  alone?: boolean
  /** @param words what follows the verb */
  run(call: Call, loaded: Loaded, words: string[]): Promise<void>
}

/**
 * The counts of a sync, from what a target had and what it is to have.
 *
 * @param show told of each difference
 */
export function countsOf(
  had: readonly Lease[],
  wanted: readonly Lease[],
  show: (what: 'added' | 'extended' | 'removed', lease: Lease) => void = () => {},
): Counts {
  const keyOf = ({ address, jail }: Lease): string => `${address.text} ${jail}`
  const left = new Map(had.map((lease) => [keyOf(lease), lease]))
  const counts = { added: 0, extended: 0, removed: left.size, unchanged: 0 }
  for (const lease of wanted) {
    const was = left.get(keyOf(lease))
    if (left.delete(keyOf(lease))) counts.removed--
    const what = !was ? 'added' : was.expires === lease.expires ? 'unchanged' : 'extended'
    counts[what]++
    if (what !== 'unchanged') show(what, lease)
  }
  for (const lease of left.values()) show('removed', lease)
  return counts
}
