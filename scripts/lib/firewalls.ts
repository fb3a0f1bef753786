import { existsSync } from 'node:fs'
import { type Address, parseAddress } from './address.ts'
import { joined } from './bulk.ts'
import { deferred } from './deferred.ts'
import { digestOf } from './digest.ts'
import { codeOf, EXIT, Failure } from './failure.ts'
import { FirewallChanges, newerThan, saidNow } from './firewall-changes.ts'
import {
  AnswerReader,
  beginFailure,
  failureOf,
  PERIMETER,
  printable,
  refusalOf,
  type Answer as SessionAnswer,
} from './firewall-session.ts'
import { knownGeneration, nextSession, rememberGeneration } from './generations.ts'
import { byJail, formatLease, type Lease, now, parseExpires, parseLease, quote } from './lease.ts'
import { type Ended, run } from './run.ts'
import type { Firewall } from './settings/firewalls.ts'
import type { Loaded } from './settled.ts'
import { closeConnection, openConnection, ssh } from './ssh.ts'
import type { Block, Call, Synced, Target } from './target.ts'

/** Tells the firewall to keep the ports or protocol that it has. */
const KEEP = '-'

/** The firewalls in the configuration as targets. @throws Failure 78 if there is none */
export function firewallTargets({ config, path }: Loaded): Target[] {
  if (config.firewalls.length === 0) {
    throw new Failure(EXIT.config, `${path}: section "firewalls" names no firewall`)
  }
  return config.firewalls.map(firewallTarget)
}

/** The wire's name for a jail's chain. */
function chainOf(jail: string): string {
  return `fail2ban-${jail}`
}

function firewallTarget(firewall: Firewall): Target {
  const name = firewall.host
  const changes = new FirewallChanges(firewall)
  let expected: Expected | undefined

  return {
    name,

    async start(call) {
      if (!call.dryRun && name !== 'local') await openConnection(firewall, call.signal)
      const generation = generationIn(await ask(firewall, call, 'checkfw'), call.dryRun)
      if (generation && knownGeneration(call.config.state_dir, name) === undefined) {
        rememberGeneration(call.config.state_dir, name, generation)
      }
    },

    async stop(call) {
      if (call.dryRun) call.show(`${name}: close the connection`)
      else if (name !== 'local') await closeConnection(firewall, call.signal)
    },

    async check(call) {
      const lines = await ask(firewall, call, 'checkfw')
      for (const line of lines) call.say(`${name}: ${printable(line)}`)
      const known = knownGeneration(call.config.state_dir, name)
      const generation = generationIn(lines, call.dryRun)
      if (known !== undefined && generation && generation !== known) {
        throw new Failure(EXIT.temporary, 'lost generation: the firewall began anew, run f2b-sync')
      }
    },

    async flush(call) {
      await ask(firewall, call, call.jail ? `fluships ${chainOf(call.jail)}` : 'fluships')
    },

    async ban(call, { address, jail, expires }) {
      const { ports, protocol } = namingOf(call, jail)
      await ask(
        firewall,
        call,
        `banip ${chainOf(jail)} ${address.text} ${ports} ${protocol} ${expires}`,
      )
    },

    async unban(call, address, jail) {
      await ask(firewall, call, `unbanip ${chainOf(jail)} ${address.text}`)
    },

    list: (call) => list(firewall, call, changes),
    blocked: (call, address) => blocked(firewall, call, address),

    // SSH, sudo and an interpreter start while 100,000 lines are read here.
    expect(call) {
      if (!call.dryRun) expected = expectSession(firewall, call)
    },

    sync: (call, leases) =>
      call.dryRun
        ? drift(firewall, call, leases)
        : sync(firewall, call, leases, { changes, expected }),

    change: (call, list) => changes.make(call, list),
    has: (call, leases) => has(firewall, call, leases, changes),
    keep: (call) => changes.keep(call),
    clock: () => changes.clock,
    probe: () => changes.reachable(),
    async close() {
      changes.close()
      await expected?.take('')
    },
  }
}

async function list(firewall: Firewall, call: Call, changes?: FirewallChanges): Promise<Lease[]> {
  const jail = call.jail ? ` ${chainOf(call.jail)}` : ''
  const lines = changes?.isOpen
    ? checked(await changes.ask([`list${jail} ${saidNow()}`], call.signal), 1)[0]?.lines
    : await ask(firewall, { ...call, dryRun: false }, `listips${jail}`)
  return (lines ?? []).map((line) => parseLease(line, call.owner))
}

async function blocked(
  firewall: Firewall,
  call: Call,
  address: Address,
): Promise<Block[] | undefined> {
  const lines = await ask(firewall, call, `blocked ${address.text}`).catch((error) => {
    if (codeOf(error) === EXIT.usage) return undefined // a firewall of an older version
    throw error
  })
  return lines?.map((line) => {
    const [text = '', end = ''] = line.split(' ')
    const partly = text === 'partly'
    return { address: partly ? address : parseAddress(text), expires: parseExpires(end), partly }
  })
}

/**
 * Sends everything in one session: a `sync` for each jail, and if all jails were meant a flush of
 * those that are not among them. Then the firewall's generation is ours from then on.
 */
async function sync(
  firewall: Firewall,
  call: Call,
  leases: readonly Lease[],
  ways: Ways,
): Promise<Synced> {
  const jails = byJail(leases)
  if (call.jail !== undefined && jails.size === 0) jails.set(call.jail, [])
  const input = [...jails].map(([jail, list]) => {
    const { ports, protocol } = namingOf(call, jail)
    const lines = joined(list, (lease) => `${lease.address.text} ${lease.expires}\n`, '')
    const said = ` ${saidNow()}`
    return `sync ${chainOf(jail)} ${ports} ${protocol} ${list.length}${said}\n${lines}`.trimEnd()
  })
  if (call.jail === undefined) input.push('flushrest')
  input.push('generation')
  const answers = await session(firewall, call, input, ways)
  const generation = generationIn(answers.at(-1)?.lines ?? [])
  if (call.jail === undefined) {
    rememberGeneration(call.config.state_dir, firewall.host, generation)
  }
  return sum(answers.map((answer) => answer.ok))
}

/** A session that waits for its operations. */
interface Expected {
  take(operations: string): Promise<Ended>
}

/** Through which session operations may go: one that is open, or that is about to be. */
interface Ways {
  changes?: FirewallChanges
  expected?: Expected | undefined
}

function expectSession(firewall: Firewall, call: Call): Expected {
  const { promise: input, give } = deferred<string>()
  const ended = send(firewall, call, 'firewall', { input, progress: call.progress })
  ended.catch(() => {}) // whoever takes it is told
  return {
    take(operations) {
      give(operations)
      return ended
    },
  }
}

/** Compares digests: one exchange, whatever the number of leases. */
async function has(
  firewall: Firewall,
  call: Call,
  leases: readonly Lease[],
  changes: FirewallChanges,
): Promise<boolean> {
  const quiet = { ...call, progress: () => {} }
  const ask = session(firewall, quiet, ['generation', `digest ${saidNow()}`], { changes }, false)
  const [first, second] = await ask.catch((error) => {
    if (codeOf(error) === EXIT.usage) return [] // a firewall of an older version has no digest
    throw error
  })
  if (!second) return false
  const known = knownGeneration(call.config.state_dir, firewall.host)
  if (known !== generationIn(first?.lines ?? [])) return false
  const held = leases.map((lease) => ({ ...lease, address: lease.address.text }))
  const namingFor = (jail: string) => call.namings?.get(jail)
  return second?.lines[0] === digestOf(held, namingFor, now())
}

/** What a sync would change. */
async function drift(firewall: Firewall, call: Call, leases: readonly Lease[]): Promise<Synced> {
  const has = new Map((await list(firewall, call)).map((lease) => [keyOf(lease), lease]))
  const counts: Synced = { added: 0, extended: 0, removed: 0, unchanged: 0 }
  for (const lease of leases) {
    const known = has.get(keyOf(lease))
    has.delete(keyOf(lease))
    const change = !known ? 'added' : known.expires === lease.expires ? 'unchanged' : 'extended'
    counts[change]++
    if (change !== 'unchanged') call.show(`${firewall.host}: ${change} ${formatLease(lease)}`)
  }
  for (const lease of has.values()) {
    counts.removed++
    call.show(`${firewall.host}: removed ${formatLease(lease)}`)
  }
  return counts
}

/**
 * Sends operations in a session: through one that is open, else in one of their own, which takes the
 * place of every other that this server has.
 *
 * @param changing false for operations that only look: then the others go on
 * @throws Failure for the first that was refused
 */
async function session(
  firewall: Firewall,
  call: Call,
  operations: string[],
  { changes, expected }: Ways,
  changing = true,
): Promise<SessionAnswer[]> {
  const count = operations.length
  if (changes?.isOpen) {
    const answers = await changes.ask(operations, call.signal)
    const { error } = answers[0] ?? {}
    if (!error || newerThan(refusalOf(error.code, error.text)) === undefined) {
      return checked(answers, count)
    }
    changes.close() // another session has taken its place
  }
  let beaten = 0
  for (let tries = 0; ; tries++) {
    const number = changing ? `${nextSession(call.config.state_dir, firewall.host, beaten)} ` : ''
    const said = saidNow()
    const input = [`session ${number}${said}`, ...operations, ''].join('\n')
    const options = { input, progress: call.progress }
    const waiting = tries === 0 ? expected : undefined
    const ended = await (waiting?.take(input) ?? send(firewall, call, 'firewall', options))
    const reader = new AnswerReader(said)
    const [first, ...answers] = reader.feed(ended.stdout)
    const failure = first?.error && beginFailure(first.error)
    const newer = newerThan(failure)
    if (newer !== undefined && tries < 2) {
      beaten = newer
      continue
    }
    if (failure) throw failure
    const refused = answers.some(({ error }) => error)
    if (!first || (ended.code !== EXIT.done && !refused)) {
      throw failureOf(ended.code, ended.stderr, reader.greeting)
    }
    return checked(answers, count)
  }
}

function checked(answers: SessionAnswer[], count: number): SessionAnswer[] {
  const refused = answers.find((answer) => answer.error)?.error
  if (refused) throw refusalOf(refused.code, refused.text)
  if (answers.length !== count) throw unexpected(`${answers.length} of ${count} answers came`)
  return answers
}

/** Runs one of the firewall's words and returns the lines it prints. */
async function ask(firewall: Firewall, call: Call, command: string): Promise<string[]> {
  if (call.dryRun) {
    call.show(`${firewall.host}: ${command}`)
    return []
  }
  call.say(`${firewall.host}: ${command}`)
  let over = ''
  for (let tries = 0; ; tries++) {
    const said = saidNow()
    const ended = await send(firewall, call, `${command} ${said}${over}`)
    if (ended.code === EXIT.done) return linesBehind(said, ended)
    const failure = failureOf(ended.code, ended.stderr)
    const newer = newerThan(failure)
    if (newer === undefined || tries === 2) throw failure
    over = ` over ${newer}` // our clock was put back
  }
}

/** What a command has printed: the firewall begins with what we said, whatever others say before. */
function linesBehind(mark: string, { code, stdout, stderr }: Ended): string[] {
  const lines = stdout.split('\n')
  const at = lines.indexOf(mark)
  if (at < 0) throw failureOf(code, stderr, lines.join(' '))
  return lines.slice(at + 1).filter((line) => line !== '')
}

async function send(
  firewall: Firewall,
  call: Call,
  command: string,
  options: { input?: string | Promise<string>; progress?: Call['progress'] } = {},
): Promise<Ended> {
  if (firewall.host !== 'local')
    return await ssh(firewall, command, { ...options, signal: call.signal })
  if (!existsSync(PERIMETER)) {
    throw new Failure(EXIT.config, 'no firewall side on this machine: run f2b-setup firewall')
  }
  const head = `owner ${call.owner}\n${command}\n`
  const given = options.input ?? ''
  const input = typeof given === 'string' ? head + given : given.then((text) => head + text)
  const asRoot = process.getuid?.() === 0
  const [file, args] = asRoot ? [PERIMETER, []] : ['sudo', ['-n', PERIMETER]]
  return await run(file, args, { ...options, input, signal: call.signal })
}

/** Ports and protocol for a jail as words of the wire. */
function namingOf(call: Call, jail: string): { ports: string; protocol: string } {
  const { ports = KEEP, protocol = KEEP } = call.namings?.get(jail) ?? call
  return { ports, protocol }
}

function unexpected(text: string): Failure {
  return new Failure(EXIT.unexpected, printable(text))
}

/** The generation as `checkfw` or a session tells it; we remember it. @throws Failure 76 */
function generationIn(lines: string[], dryRun = false): string {
  const [, found] = /^(?:generation )?([0-9a-f]{1,32})$/m.exec(lines.slice(0, 9).join('\n')) ?? []
  if (dryRun || found) return found ?? ''
  throw unexpected(`no generation but ${quote(lines[0] ?? '')}`)
}

function sum(texts: string[]): Synced {
  const counts: Synced = { added: 0, extended: 0, removed: 0, unchanged: 0, refused: 0 }
  for (const text of texts) {
    for (const [, word, number] of text.matchAll(/(\w+) (\d+)/g)) {
      if (!word || !Object.hasOwn(counts, word)) continue
      counts[word as keyof Synced] = (counts[word as keyof Synced] ?? 0) + Number(number)
    }
  }
  return counts
}

function keyOf(lease: Lease): string {
  return `${lease.address.text} ${lease.jail}`
}
