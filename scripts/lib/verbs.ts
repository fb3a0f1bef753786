import { readFileSync } from 'node:fs'
import { type Address, checkBannable, compareAddresses, parseBanned } from './address.ts'
import {
  main,
  noWords,
  type Options,
  textOption,
  unknownWord,
  usageFailure,
  type Values,
} from './command.ts'
import { type Deed, noteByHand } from './delivery/by-hand.ts'
import { accountInstead, forTargets, runAs } from './delivery-account.ts'
import { readExpiry } from './expires.ts'
import { codeOf, Failure, messageOf } from './failure.ts'
import { alive, checkJail, formatLease, type Lease, NO_JAIL, now, quote } from './lease.ts'
import { neverBan } from './never.ts'
import { readNaming } from './ports.ts'
import { print } from './print.ts'
import type { Config } from './settings/schema.ts'
import { isConfigured, type Loaded } from './settled.ts'
import { longest, readLeases } from './sync-input.ts'
import {
  type Call,
  type Change,
  type Counts,
  changeOne,
  type ExtraVerb,
  type Sibling,
  type Target,
} from './target.ts'

const VERBS = ['start', 'stop', 'check', 'flush', 'ban', 'unban', 'list', 'sync'] as const
type Verb = (typeof VERBS)[number]

const OPTIONS: Options = {
  ip: { type: 'string' },
  name: { type: 'string' },
  port: { type: 'string' },
  protocol: { type: 'string' },
  bantime: { type: 'string' },
  time: { type: 'string' },
  config: { type: 'string' },
  configfile: { type: 'string' },
  'dry-run': { type: 'boolean' },
  json: { type: 'boolean' },
  'allow-empty': { type: 'boolean' },
}

/** What a verb is told that needs no configuration. */
const EMPTY: Loaded = { config: { owner: '' } as Config, path: '', warnings: [] }

/** Whole seconds that a verb may take. Fail2Ban kills an action after 60 and runs it twice. */
const DEADLINE: Record<Verb, number> = {
  start: 20,
  stop: 20,
  check: 20,
  ban: 20,
  unban: 20,
  list: 600,
  flush: 600,
  sync: 600,
}

/** A `load` for siblings with a section of their own, whose secrets it reads. */
export function loadSection(section: keyof Config): Sibling['load'] {
  return async (given) => (await import('./config.ts')).loadConfig(given, section)
}

/** Runs a sibling script: the same verbs, options, messages and exit codes for all. */
export async function runSibling(sibling: Sibling): Promise<void> {
  await main({
    name: sibling.name,
    help: helpOf(sibling),
    options: { ...OPTIONS, ...sibling.options },
    run: (positionals, values) => {
      return runVerb(sibling, readVerb(sibling, positionals), values, positionals.slice(1))
    },
  })
}

/**
 * Does something on all targets side by side. One that fails never keeps the others from being
 * served; the failing ones share one message and the worst code counts.
 *
 * @param action completes "Cannot"
 */
export async function onEach<N extends { name: string }, T>(
  targets: readonly N[],
  action: string,
  work: (target: N) => Promise<T>,
): Promise<T[]> {
  const results = await Promise.allSettled(targets.map(work))
  const failed = results.flatMap((result, i) =>
    result.status === 'rejected' ? [{ error: result.reason, name: targets[i]?.name ?? '' }] : [],
  )
  const bug = failed.find(({ error }) => !(error instanceof Failure))
  if (bug) throw bug.error
  if (failed.length > 0) {
    const parts = failed.map(({ error, name }) => `on ${quote(name)}: ${messageOf(error)}`)
    const worst = Math.max(...failed.map(({ error }) => codeOf(error))) as Failure['code']
    throw new Failure(worst, `Cannot ${action} ${parts.join('; ')}`)
  }
  return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
}

/** What a Call is made of, whichever script it is for. */
export function makeCall(loaded: Loaded, values: Values, seconds: number): Call {
  const verbose = values.verbose === true
  const name = textOption(values, 'name')
  return {
    config: loaded.config,
    owner: loaded.config.owner,
    jail: name === undefined ? undefined : checkJail(name),
    ...givenNaming(values),
    dryRun: values['dry-run'] === true,
    verbose,
    signal: AbortSignal.timeout(seconds * 1000),
    show: (line) => print(`${line}\n`),
    say: (line) => void (verbose && process.stderr.write(`${line}\n`)),
    progress: showProgress,
    values,
  }
}

/** What `--port` and `--protocol` say; what is not given stays as the target has it. */
function givenNaming(values: Values): Pick<Call, 'ports' | 'protocol'> {
  const port = textOption(values, 'port')
  const protocol = textOption(values, 'protocol')
  const read = readNaming(port ?? '', protocol ?? '')
  return {
    ports: port === undefined ? undefined : read.ports,
    protocol: protocol === undefined ? undefined : read.protocol,
  }
}

/** The sentence for a failed ban, and the check that comes before it. @throws Failure 65 */
export function checkBan(address: Address, config: Config): void {
  try {
    checkBannable(address, neverBan(config.never_ban, [address.family]), config.min_prefix)
  } catch (error) {
    throw new Failure(codeOf(error), `Cannot ban "${address.text}": ${messageOf(error)}`)
  }
}

function readVerb(sibling: Sibling, positionals: string[]): Verb | ExtraVerb {
  const [word, ...rest] = positionals
  if (word === undefined) throw usageFailure('No verb given')
  const extra = Object.entries(sibling.verbs ?? {}).find(([known]) => known === word)
  const verb = VERBS.find((known) => known === word) ?? extra?.[1]
  if (!verb) throw unknownWord('verb', word, [...VERBS, ...Object.keys(sibling.verbs ?? {})])
  const [least, most] = (typeof verb !== 'string' && verb.words) || [0, 0]
  if (rest.length < least) throw usageFailure(`Too few words for ${word}`)
  noWords(rest.slice(most))
  return verb
}

async function runVerb(
  sibling: Sibling,
  verb: Verb | ExtraVerb,
  values: Values,
  words: string[],
): Promise<void> {
  const ip = textOption(values, 'ip')
  const single = verb === 'ban' || verb === 'unban'
  if (single && ip === undefined) throw usageFailure(`Missing option --ip for ${verb}`)
  const address = ip === undefined ? undefined : parseBanned(ip)
  const expires = readExpiry(values)
  givenNaming(values)
  const given = textOption(values, 'config') ?? textOption(values, 'configfile')
  const alone = typeof verb !== 'string' && verb.alone === true
  const isEmpty = alone && !given && !isConfigured()
  const own = isEmpty ? EMPTY : await sibling.load(given)
  const loaded = forTargets(own)
  const { state_dir } = own.config
  const account = sibling.remembers && !isEmpty ? accountInstead(state_dir) : undefined
  if (typeof verb !== 'string') {
    if (account) return await runAs(account, state_dir)
    return verb.run(makeCall(loaded, values, verb.seconds), loaded, words)
  }
  const call = makeCall(loaded, values, DEADLINE[verb])
  const deed = deedOf(verb, call, address, expires)
  if (deed) noteByHand(sibling.name, state_dir, call, deed)
  if (account) return await runAs(account, state_dir)
  const targets = sibling.targets(loaded, values)
  if (call.verbose || verb === 'start' || verb === 'check' || verb === 'sync') {
    warn(sibling, loaded)
  }
  if (address && single) await runSingle(targets, call, verb, address, expires)
  else if (verb === 'list') await runList(targets, call, values)
  else if (verb === 'sync') await runSync(targets, call, values)
  else if (verb === 'flush') await onEach(targets, verb, (target) => flush(target, call))
  else if (verb === 'stop') await onEach(targets, verb, async (target) => target.close?.(call))
  else if (!single) await onEach(targets, verb, (target) => target[verb](call))
}

/** What to remember of a verb that is used by hand. @throws Failure 65 for what must not be banned */
function deedOf(
  verb: Verb,
  call: Call,
  address: Address | undefined,
  expires: number,
): Deed | undefined {
  const { jail, owner, config } = call
  if (verb === 'flush') return { verb: 'release-all', jail }
  if (!address || (verb !== 'ban' && verb !== 'unban')) return undefined
  const of = { address, jail: jail ?? NO_JAIL }
  if (verb === 'unban') return { verb: 'release', ...of }
  checkBan(address, config)
  return alive(expires, now()) ? { verb: 'hold', lease: { ...of, expires, owner } } : undefined
}

async function runSingle(
  targets: Target[],
  call: Call,
  verb: 'ban' | 'unban',
  address: Address,
  expires: number,
): Promise<void> {
  const of = { address, jail: call.jail ?? NO_JAIL }
  if (verb === 'ban' && !alive(expires, now())) {
    return call.say(`the ban of ${address.text} is already over`)
  }
  const change: Change =
    verb === 'unban' ? { verb, ...of } : { verb, lease: { ...of, expires, owner: call.owner } }
  await onEach(targets, `${verb} "${address.text}"`, (target) => changeOne(target, call, change))
}

async function flush(target: Target, call: Call): Promise<void> {
  if (target.flush) return await target.flush(call)
  const counts = await target.sync(call, [])
  if (call.dryRun) call.show(describe(counts))
}

async function runList(targets: Target[], call: Call, values: Values): Promise<void> {
  const lists = await onEach(targets, 'list', (target) => target.list(call))
  const leases = [...longest(lists.flat())].sort(
    (a, b) => compareAddresses(a.address, b.address) || (a.jail < b.jail ? -1 : 1),
  )
  const line = (l: Lease): string =>
    values.json === true ? JSON.stringify({ ...l, address: l.address.text }) : formatLease(l)
  if (leases.length > 0) call.show(leases.map(line).join('\n'))
}

async function runSync(targets: Target[], call: Call, values: Values): Promise<void> {
  const { leases, refused } = readLeases(readFileSync(0, 'utf8'), call, values)
  await onEach(targets, 'sync', async (target) => {
    const counts = await target.sync(call, leases)
    const name = targets.length > 1 ? `${target.name}: ` : ''
    call.show(name + describe({ ...counts, refused: refused + (counts.refused ?? 0) }))
  })
}

/** `added N, extended N, removed N, unchanged N`, and how many were refused if some were. */
export function describe(counts: Counts): string {
  const { added, extended, removed, unchanged, refused } = counts
  const text = `added ${added}, extended ${extended}, removed ${removed}, unchanged ${unchanged}`
  return refused ? `${text}, refused ${refused}` : text
}

function warn(sibling: Sibling, loaded: Loaded): void {
  for (const warning of loaded.warnings) {
    process.stderr.write(`${sibling.name}: warning: ${warning}\n`)
  }
}

/** The moment of the first report of progress: what is over in a second needs none. */
let began = 0

function showProgress(done: number, total: number): void {
  began ||= Date.now()
  if (!process.stderr.isTTY || Date.now() - began < 1000) return
  const percent = Math.floor((100 * done) / Math.max(total, 1))
  process.stderr.write(`\r${percent} %${done >= total ? '\n' : ''}`)
}

function helpOf(sibling: Sibling): string {
  const verbs = Object.entries(sibling.verbs ?? {}).map(
    ([word, { help }]) => `\n  ${word.padEnd(17)} ${help}`,
  )
  return `Usage: ${sibling.command} <verb> [options]

${sibling.about.trim()}

Verbs (all may be repeated without harm)
  start             prepare the target; Fail2Ban's actionstart
  stop              end what start began; bans stay until their time is over
  check             is the target as start left it, with every ban in force?
  flush             release all bans of this server, or those of --name
  ban               block --ip for --bantime seconds
  unban             release --ip in the jail --name
  list              print this server's bans: <address> <jail> <expires> <owner>
  sync              make the target equal to such lines on standard input${verbs.join('')}

Options
  --ip ADDR         IPv4 or IPv6 address or CIDR range (ban, unban)
  --name JAIL       Fail2Ban's jail; default "-"
  --port PORTS      ssh | 22,80 | 1000:2000 | all
  --protocol PROTO  tcp | udp | icmp | all, or a list
  --bantime SECONDS how long; -1 or left out: until unbanned
  --time EPOCH      when the ban began; default now
  --config FILE     default /etc/fail2ban-perimeter/config.yaml
                    (also --configfile)
  --allow-empty     let sync release everything
  --dry-run         show what would be done, change nothing
  --json            list: one object a line${sibling.optionsHelp ? `\n${sibling.optionsHelp}` : ''}`
}
