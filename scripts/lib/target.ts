import type { Address } from './address.ts'
import type { Options, Values } from './command.ts'
import { Failure } from './failure.ts'
import type { Lease } from './lease.ts'
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
export interface Synced {
  added: number
  extended: number
  removed: number
  unchanged: number
  refused?: number
}

/**
 * One thing that can block: the contract of all siblings. Every verb is idempotent: "already
 * banned" and "was not banned" are success. A verb throws a Failure whose message completes the
 * sentence `Cannot <verb> ... on "<name>":`.
 */
export interface Target {
  /** What messages call it. */
  name: string
  /** Prepares the target for a jail. */
  start(call: Call): Promise<void>
  /** Ends what `start` began. Leases stay: they end by themselves, or with `flush`. */
  stop(call: Call): Promise<void>
  /** Fails (75) if the target is not as `start` left it. */
  check(call: Call): Promise<void>
  /** Releases all leases of this owner, or those of `call.jail`. */
  flush(call: Call): Promise<void>
  /** After this, the address is blocked until `lease.expires` at least. */
  ban(call: Call, lease: Lease): Promise<void>
  /** After this, this owner's jail no longer holds the address. */
  unban(call: Call, address: Address, jail: string): Promise<void>
  /** This owner's leases (those of `call.jail`, if given) as the target has them. */
  list(call: Call): Promise<Lease[]>
  /** After this, this owner's leases (in `call.jail`, if given) are exactly these. */
  sync(call: Call, leases: readonly Lease[]): Promise<Synced>
  /**
   * Makes many single changes in order, in as few calls as the target allows and over a connection
   * that stays open until `close`. Without it `f2b-deliver` uses the verbs above.
   */
  change?(call: Call, changes: Change[]): Promise<Changed>
  /** This owner's leases of no jail, banned by hand: a sync with Fail2Ban keeps them. */
  byHand?(call: Call): Promise<Lease[]>
  /** True if a sync would change nothing; at a cost that does not grow with the leases. */
  has?(call: Call, leases: readonly Lease[]): Promise<boolean>
  /** What is in force whoever banned it, where the target lets us see that. */
  holders?(call: Call): Promise<Lease[]>
  /**
   * Whether and until when an address is blocked there, by whomever: for a target that does not let
   * us see whose bans they are. Undefined if it cannot say.
   */
  blocked?(call: Call, address: Address): Promise<Block[] | undefined>
  /** Says that a sync or `close` is about to come: what takes time may begin. */
  expect?(call: Call): void
  /** Keeps the connection of `change` open. @throws LostGeneration, or why there is none */
  keep?(call: Call): Promise<void>
  /** What a person wrote there and should put right; all else works. */
  complaint?(): string | undefined
  /** What is wrong with the target's clock, as far as `keep` has seen. */
  clock?(): string | undefined
  /** Tells in a moment, and at no cost, whether the target may be reached. */
  probe?(call: Call): Promise<boolean>
  close?(): Promise<void>
}

/** A ban that somebody holds. */
export interface Block {
  /** The address itself, or a range that contains it. */
  address: Address
  expires: number
  /** Not all of the range that was asked about is blocked. */
  partly: boolean
}

/** A single change of many. */
export type Change =
  | { verb: 'ban'; lease: Lease }
  | { verb: 'unban'; address: Address; jail: string }

/** What became of changes. */
export interface Changed {
  /** For each that was tried, in order: what was wrong with this one alone, if anything. */
  results: (Failure | undefined)[]
  /** Why the others were not tried. */
  failure?: Failure
}

/** The target has forgotten everything of ours, as a firewall whose disk was replaced: fill it. */
export class LostGeneration extends Failure {}

/**
 * There is a new session with the target, and what the last one had sent may have arrived or not. It
 * stays open; what it was opened for has not been tried.
 */
export class NewSession extends Failure {}

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
