import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { textOption, type Values } from '../command.ts'
import { codeOf, EXIT, Failure, ioFailure, messageOf } from '../failure.ts'
import { print } from '../print.ts'
import { isPackaged } from './packaged.ts'

export const CONFIG_DIR = '/etc/fail2ban-perimeter'
export const CONFIG = `${CONFIG_DIR}/config.yaml`
export const LIB = '/usr/local/lib/fail2ban-perimeter'
export const STATE_DIR = '/var/lib/fail2ban-perimeter'
export const RUN_DIR = '/run/fail2ban-perimeter'

/** Where things come from and go to, and how the operator wants it done. */
export interface InstallTarget {
  /** The package: what has dist/, scripts/units/, firewall-side/, action.d/ and filter.d/ in it. */
  source: string
  /** `--prefix`; empty for this machine itself. Files mean the final place, without it. */
  prefix: string
  /** Where a path of the final place is now. */
  at(path: string): string
  /** systemd runs here: services are started and stopped as well. */
  live: boolean
  dryRun: boolean
  verbose: boolean
  uninstall: boolean
  purge: boolean
}

/** How a thing stands: missing, not as wanted, as wanted, or not ours to touch. */
export type State = 'absent' | 'different' | 'same' | 'foreign'

/** One thing that an installation consists of; a list of them can be installed and uninstalled. */
export interface Resource {
  /** What it is called in what is printed: a path, or `user fail2ban`. */
  name: string
  /** Compares. Must change nothing: all are looked at before the first one is touched. */
  state(): State | Promise<State>
  /** Makes it as wanted, whether it was absent or different; nothing if only a removal means it. */
  apply?(): unknown
  /** Undoes it. `LEFT` means that it had to be left: a folder that is not empty. */
  undo(): unknown
  /** It is the operator's, or cannot be made again: `--uninstall` leaves it without `--purge`. */
  kept?: boolean
  /** It is not wanted here: an installation removes it. */
  unwanted?: boolean
  /** Follows the name when it is changed: `backend auto -> nftables`. */
  note?: string
  /** What to do if it is not ours; else: move it away. */
  remedy?: string
}

/** What `undo` returns that could not be done. */
export const LEFT = 'left'

const VERBS = {
  create: ['created', 'would create'],
  update: ['updated', 'would update'],
  remove: ['removed', 'would remove'],
} as const

type Verb = keyof typeof VERBS | 'none' | 'leave'

/** Reads the options that every subcommand has. */
export function installTarget(source: string, values: Values): InstallTarget {
  const given = textOption(values, 'prefix')
  const prefix = given === undefined ? '' : resolve(given)
  return {
    source,
    prefix,
    at: (path) => join(prefix || '/', path),
    live: prefix === '' && existsSync('/run/systemd/system'),
    dryRun: values['dry-run'] === true,
    verbose: values.verbose === true,
    uninstall: values.uninstall === true,
    purge: values.purge === true,
  }
}

/** `--systemd`; `auto`, and what is not given, asks the machine. */
export function hasSystemd(values: Values): boolean {
  const option = textOption(values, 'systemd') ?? 'auto'
  return option === 'auto' ? existsSync('/run/systemd/system') : option === 'yes'
}

/**
 * Makes things as they are wanted, or undoes them in reverse order, and prints a line for each that
 * it changes. Everything is compared first, so that what must be refused is refused before anything
 * has been changed.
 *
 * @throws Failure naming the step that failed; what was done before it stays
 */
export async function install(resources: Resource[], target: InstallTarget): Promise<void> {
  if ((await change(resources, target)) === 0) say('nothing to change')
}

/** The same for a further part. @returns how much it changed, or would have */
export async function change(resources: Resource[], target: InstallTarget): Promise<number> {
  const steps: [Resource, Verb][] = []
  for (const one of target.uninstall ? resources.toReversed() : resources) {
    steps.push([one, verbFor(one, await one.state(), target)])
  }
  let changed = 0
  for (const [one, verb] of steps) if (await take(one, verb, target)) changed++
  return changed
}

/** What is not wanted here. It goes in the order of an uninstallation: a unit ends before its file. */
export function unwanted(resources: Resource[]): Resource[] {
  return resources.toReversed().map((one) => ({ ...one, unwanted: true }))
}

/** Prints a line about what was done. */
export function say(line: string): void {
  print(`${line}\n`)
}

/**
 * Asks the person at the terminal.
 *
 * @param option what to give where there is nobody to ask
 * @param hidden for a password: what is typed is not shown
 * @throws Failure 64 if there is no terminal
 */
export async function ask(question: string, option: string, hidden = false): Promise<string> {
  if (!process.stdin.isTTY) {
    throw new Failure(EXIT.usage, `Cannot ask, this is no terminal: give ${option}`)
  }
  print(question)
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({
    input: process.stdin,
    output: hidden ? silent : process.stdout,
    terminal: true,
  })
  const answer = await lines.question('').finally(() => lines.close())
  if (hidden) print('\n')
  return answer
}

function verbFor(one: Resource, state: State, { uninstall, purge }: InstallTarget): Verb {
  if (state === 'absent') return uninstall || one.unwanted || !one.apply ? 'none' : 'create'
  if (isPackaged(one.name)) return 'none'
  if (uninstall) return state === 'foreign' || (one.kept && !purge) ? 'leave' : 'remove'
  if (one.unwanted) return state === 'foreign' ? 'none' : 'remove'
  if (state === 'foreign') {
    const remedy = one.remedy ?? `move it away (mv ${one.name} ${one.name}.old)`
    throw new Failure(EXIT.config, `Cannot replace ${one.name}: it is not ours: ${remedy}`)
  }
  return state === 'different' ? 'update' : 'none'
}

/** @returns whether it changed something, or would have */
async function take(one: Resource, verb: Verb, target: InstallTarget): Promise<boolean> {
  if (verb === 'none') {
    if (target.verbose && !target.uninstall && !one.unwanted) say(`unchanged ${one.name}`)
    return false
  }
  if (verb === 'leave') {
    say(`left ${one.name} (${one.kept ? '--purge removes it' : 'not ours'})`)
    return false
  }
  const [done, would] = VERBS[verb]
  const note = one.note && verb !== 'remove' ? ` (${one.note})` : ''
  if (!target.dryRun && (await carryOut(one, verb)) === LEFT) {
    say(`left ${one.name} (not empty)`)
    return false
  }
  say(`${target.dryRun ? would : done} ${one.name}${note}`)
  return true
}

async function carryOut(one: Resource, verb: keyof typeof VERBS): Promise<unknown> {
  try {
    return await (verb === 'remove' ? one.undo() : one.apply?.())
  } catch (error) {
    const why = error instanceof Failure ? error : ioFailure(`${verb} ${one.name}`, error)
    const doing = `Cannot ${verb} ${one.name}: `
    const text = messageOf(why).replace(doing, '')
    throw new Failure(codeOf(why), `${doing}${text} (what was done before stays; run it again)`, {
      cause: error,
    })
  }
}
