import { connect } from 'node:net'
import { type Address, parseAddress } from '../address.ts'
import { joined } from '../bulk.ts'
import { digestOf } from '../digest.ts'
import { codeOf, EXIT, Failure } from '../failure.ts'
import { byJail, formatLease, type Lease, now, parseExpires, parseLease, quote } from '../lease.ts'
import { run } from '../run.ts'
import type { Firewall } from '../settings/firewalls.ts'
import type { Loaded } from '../settled.ts'
import {
  type Block,
  type Call,
  type Change,
  type Counts,
  countsOf,
  LostGeneration,
  NewSession,
  namingOf,
  type Outcome,
  Refusal,
  type Target,
} from '../target.ts'
import { knownGeneration, nextSession, rememberGeneration } from './generations.ts'
import {
  type Answer,
  askOnce,
  beginFailure,
  LONGEST_ANSWER,
  newerThan,
  printable,
  type Runner,
  refusalOf,
  Session,
  saidNow,
  sayWord,
  TRIES,
} from './session.ts'
import { closeConnection, openConnection } from './ssh.ts'

/** Tells the firewall to keep the ports or protocol that it has. */
const KEEP = '-'

/** Milliseconds for the other side to take a connection. */
const REACH = 2_000

/** The firewalls in the configuration as targets. @throws Failure 78 if there is none */
export function firewallTargets({ config, path }: Loaded): FirewallTarget[] {
  if (config.firewalls.length > 0) return config.firewalls.map((one) => new FirewallTarget(one))
  throw new Failure(EXIT.config, `${path}: section "firewalls" names no firewall`)
}

class FirewallTarget implements Target {
  readonly name: string
  readonly #firewall: Firewall
  /** The session that stays; see `open`. */
  #session: Session | undefined
  /** Since `open`: changes go through a session that stays, and a lost one is opened again. */
  #stays = false
  #clock: string | undefined
  /** Where its SSH server listens, as ssh itself reads its configuration. */
  #address: { host: string; port: number } | undefined

  constructor(firewall: Firewall) {
    this.name = firewall.host
    this.#firewall = firewall
  }

  async start(call: Call): Promise<void> {
    if (this.#shows(call, ['checkfw'])) return
    if (this.name !== 'local') await openConnection(this.#firewall, call.signal)
    const generation = generationIn(await this.#checkfw(call))
    if (this.#known(call) === undefined) this.#remember(call, generation)
  }

  async check(call: Call): Promise<void> {
    if (this.#shows(call, ['checkfw'])) return
    const lines = await this.#checkfw(call)
    for (const line of lines) call.say(`${this.name}: ${printable(line)}`)
    const generation = generationIn(lines)
    if ((this.#known(call) ?? generation) === generation) return
    throw new Failure(EXIT.temporary, 'lost generation: the firewall began anew, run f2b-sync')
  }

  /** Runs one of the document's words there. @param runner runs ssh */
  async say(call: Call, words: string, runner: Runner): Promise<void> {
    if (this.#shows(call, [words])) return
    call.say(`${this.name}: ${words}`)
    await sayWord(this.#firewall, call, words, runner)
  }

  async list(call: Call): Promise<Lease[]> {
    const jail = call.jail ? ` ${chainOf(call.jail)}` : ''
    const [answer] = await this.#ask(call, () => [`list${jail} ${saidNow()}`])
    return (answer?.lines ?? []).map((line) => parseLease(line, call.owner))
  }

  async listAll(call: Call, address: Address): Promise<{ leases: Lease[]; others: Block[] }> {
    const [leases, others] = await Promise.all([this.list(call), this.#blocked(call, address)])
    return { leases, others }
  }

  async change(call: Call, changes: readonly Change[]): Promise<Outcome[]> {
    const words = changes.map((change) => wordsOf(call, change))
    if (this.#shows(call, words)) return changes.map(() => undefined)
    const answers = await (this.#stays ? this.#askOpened(call, words) : this.#askAlone(call, words))
    const ended = new Failure(EXIT.temporary, 'the session ended')
    return changes.map((_, i) => (answers[i] ? outcomeOf(answers[i]) : ended))
  }

  /** Its chain goes, too, and a ban that is still on its way is refused when it arrives. */
  async flush(call: Call): Promise<void> {
    const words = call.jail ? `flush ${chainOf(call.jail)}` : 'flush'
    if (this.#shows(call, [words])) return
    checked(await this.#askAlone(call, [words]))
  }

  /** Sends everything in one session; if all jails are meant, the firewall's generation is ours then. */
  async sync(call: Call, leases: readonly Lease[]): Promise<Counts> {
    if (call.dryRun) {
      return countsOf(await this.list(call), leases, (what, lease) => {
        call.show(`${this.name}: ${what} ${formatLease(lease)}`)
      })
    }
    const answers = await this.#ask(call, () => syncLines(call, leases), true)
    const generation = generationIn(answers.at(-1)?.lines ?? [])
    if (call.jail === undefined) this.#remember(call, generation)
    return sum(answers.map((answer) => answer.ok))
  }

  /** Compares digests: one exchange, whatever the number of leases. */
  async inSync(call: Call, leases: readonly Lease[]): Promise<boolean> {
    const asking = this.#ask(call, () => ['generation', `digest ${saidNow()}`])
    const [first, second] = await asking.catch((error) => {
      if (codeOf(error) === EXIT.usage) return [] // a firewall of an older version has no digest
      throw error
    })
    if (!second || this.#known(call) !== generationIn(first?.lines ?? [])) return false
    const held = leases.map((lease) => ({ ...lease, address: lease.address.text }))
    return second.lines[0] === digestOf(held, (jail) => call.namings?.get(jail), now())
  }

  async open(call: Call): Promise<void> {
    this.#stays = true
    const session = await this.#opened(call)
    await this.#orDrop(this.#checkGeneration(call, session))
  }

  async close(call?: Call): Promise<void> {
    this.#drop()
    if (call?.dryRun) call.show(`${this.name}: close the connection`)
    else if (call && this.name !== 'local') await closeConnection(this.#firewall, call.signal)
  }

  /** What is wrong with its clock. */
  complaint(): string | undefined {
    return this.#clock
  }

  /** False if no server listens there. What stands behind a jump host cannot be told. */
  async probe(): Promise<boolean> {
    this.#address ??= await addressOf(this.#firewall)
    const { host, port } = this.#address
    if (host === '') return true
    return await new Promise((resolve) => {
      const socket = connect({ host, port, timeout: REACH })
      const end = (answer: boolean) => (): void => {
        socket.destroy()
        resolve(answer)
      }
      socket.on('connect', end(true)).on('error', end(false)).on('timeout', end(false))
    })
  }

  /** Asks in the session that stays; one that failed is not used again. @throws NewSession, Failure */
  async #askOpened(call: Call, words: string[]): Promise<Answer[]> {
    const session = await this.#opened(call)
    const said = saidNow()
    const lines = words.map((line) => `${line} ${said}`)
    return await this.#orDrop(session.ask(lines, call.signal))
  }

  /** The session that stays; a new one has taken the place of every session before. */
  async #opened(call: Call): Promise<Session> {
    if (this.#session?.isOpen) return this.#session
    const mark = saidNow()
    const session = new Session(this.#firewall, call.owner, mark)
    this.#session = session
    await this.#orDrop(this.#begin(session, call, mark))
    throw new NewSession(EXIT.temporary, 'a new session: what the last one did is to be looked at')
  }

  async #begin(session: Session, call: Call, mark: string): Promise<void> {
    const [first] = await unlessOlder((newer) => {
      return session.ask([`session ${this.#number(call, newer)} ${mark}`], call.signal)
    })
    this.#clock = first?.lines.find((line) => line.startsWith('clock '))
    if (first?.error) throw beginFailure(first.error)
    await this.#checkGeneration(call, session)
  }

  async #orDrop<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      this.#drop()
      throw error
    }
  }

  #drop(): void {
    this.#session?.close()
    this.#session = undefined
  }

  /**
   * Asks in the session that stays, else in one of its own.
   *
   * @param replaces whether that takes the place of every other session that this server has
   * @throws Failure for the first that was refused
   */
  async #ask(call: Call, operations: () => string[], replaces = false): Promise<Answer[]> {
    if (this.#session?.isOpen) {
      const lines = operations()
      const answers = await this.#session.ask(lines, call.signal)
      if (newerIn(answers) === undefined) return checked(answers, lines.length)
      this.#drop() // another session has taken its place
    }
    const begin = (newer: number) => (replaces ? `session ${this.#number(call, newer)}` : 'session')
    return checked(await this.#askOnce(call, (newer) => [begin(newer), ...operations()]))
  }

  /** Makes changes by hand: they take no other session's place, but have an order among themselves. */
  async #askAlone(call: Call, words: string[]): Promise<Answer[]> {
    return await this.#askOnce(call, (newer) => {
      const over = newer > 0 ? ` over ${newer}` : '' // our clock was put back
      return ['session', ...words.map((line) => `${line} ${saidNow()}${over}`)]
    })
  }

  async #askOnce(call: Call, linesFor: (newer: number) => string[]): Promise<Answer[]> {
    const [first, ...answers] = await unlessOlder((newer) => {
      return askOnce(this.#firewall, call, () => {
        const lines = linesFor(newer)
        for (const line of lines.slice(1)) call.say(`${this.name}: ${line.split('\n', 1)[0]}`)
        return lines
      })
    })
    if (first?.error) throw beginFailure(first.error)
    return answers
  }

  /** Whether an address is blocked there, and until when: a firewall does not tell by whom. */
  async #blocked(call: Call, address: Address): Promise<Block[]> {
    const asking = this.#ask(call, () => [`blocked ${address.text}`])
    const [answer] = await asking.catch((error) => {
      if (codeOf(error) === EXIT.usage) return [] // a firewall of an older version
      throw error
    })
    return (answer?.lines ?? []).map((line) => {
      const [text = '', end = ''] = line.split(' ')
      const partly = text === 'partly'
      return { address: partly ? address : parseAddress(text), expires: parseExpires(end), partly }
    })
  }

  async #checkfw(call: Call): Promise<string[]> {
    const { signal } = call
    return await sayWord(this.#firewall, call, 'checkfw', async (file, args, input) => {
      const { code, ...said } = await run(file, args, { input, signal, limit: LONGEST_ANSWER })
      return { exitCode: code, ...said }
    })
  }

  /** Shows what would be said, if that is all that is wanted. */
  #shows(call: Call, lines: string[]): boolean {
    if (call.dryRun) for (const line of lines) call.show(`${this.name}: ${line}`)
    return call.dryRun
  }

  async #checkGeneration(call: Call, session: Session): Promise<void> {
    const [answer] = checked(await session.ask(['generation'], call.signal), 1)
    const generation = generationIn(answer?.lines ?? [])
    const known = this.#known(call)
    if (known === undefined) this.#remember(call, generation)
    else if (known !== generation) {
      throw new LostGeneration(EXIT.temporary, 'lost generation: the firewall began anew')
    }
  }

  #number({ config }: Call, beaten: number): number {
    return nextSession(config.state_dir, this.name, beaten)
  }

  #known({ config }: Call): string | undefined {
    return knownGeneration(config.state_dir, this.name)
  }

  #remember({ config }: Call, generation: string): void {
    rememberGeneration(config.state_dir, this.name, generation)
  }
}

/** The wire's name for a jail's chain. */
function chainOf(jail: string): string {
  return `fail2ban-${jail}`
}

/** Ports and protocol for a jail as words of the wire. */
function portsOf(call: Call, jail: string): string {
  const { ports = KEEP, protocol = KEEP } = namingOf(call, jail)
  return `${ports} ${protocol}`
}

/** The operation of a session that a change is. */
function wordsOf(call: Call, change: Change): string {
  if (change.verb === 'unban') return `unban ${chainOf(change.jail)} ${change.address.text}`
  const { address, jail, expires } = change.lease
  return `ban ${chainOf(jail)} ${address.text} ${portsOf(call, jail)} ${expires}`
}

/** A `sync` for each jail, and if all jails are meant a flush of those that are not among them. */
function syncLines(call: Call, leases: readonly Lease[]): string[] {
  const jails = byJail(leases)
  if (call.jail !== undefined && jails.size === 0) jails.set(call.jail, [])
  const syncs = [...jails].map(([jail, list]) => {
    const lines = joined(list, (lease) => `${lease.address.text} ${lease.expires}\n`, '')
    const begin = `sync ${chainOf(jail)} ${portsOf(call, jail)} ${list.length} ${saidNow()}`
    return `${begin}\n${lines}`.trimEnd()
  })
  return [...syncs, ...(call.jail === undefined ? ['flushrest'] : []), 'generation']
}

/** The firewall may refuse a change for what it is, or not work at all. */
function outcomeOf({ error }: Answer): Outcome {
  if (!error) return undefined
  const failure = refusalOf(error)
  const isItsOwn = [EXIT.input, EXIT.refused, EXIT.usage].some((code) => code === failure.code)
  return isItsOwn ? new Refusal(failure.code, failure.message) : failure
}

/** Says something until the firewall does not answer any more that it has heard something newer. */
async function unlessOlder(ask: (newer: number) => Promise<Answer[]>): Promise<Answer[]> {
  let newer = 0
  for (let tries = 1; ; tries++) {
    const answers = await ask(newer)
    const found = newerIn(answers)
    if (found === undefined || tries === TRIES) return answers
    newer = found
  }
}

/** The number of something newer, because of which the firewall has refused what we said. */
function newerIn(answers: Answer[]): number | undefined {
  return answers
    .map(({ error }) => newerThan(error?.text ?? ''))
    .find((newer) => newer !== undefined)
}

/** @throws Failure for the first that was refused, or 76 if some are missing */
function checked(answers: Answer[], count = answers.length): Answer[] {
  const refused = answers.find((answer) => answer.error)?.error
  if (refused) throw refusalOf(refused)
  if (answers.length === count) return answers
  throw new Failure(EXIT.unexpected, `${answers.length} of ${count} answers came`)
}

/** The generation as `checkfw` or a session tells it. @throws Failure 76 */
function generationIn(lines: string[]): string {
  const [, found] = /^(?:generation )?([0-9a-f]{1,32})$/m.exec(lines.slice(0, 9).join('\n')) ?? []
  if (found) return found
  throw new Failure(EXIT.unexpected, printable(`no generation but ${quote(lines[0] ?? '')}`))
}

function sum(texts: string[]): Counts {
  const counts: Counts = { added: 0, extended: 0, removed: 0, unchanged: 0, refused: 0 }
  for (const text of texts) {
    for (const [, word, number] of text.matchAll(/(\w+) (\d+)/g)) {
      if (!word || !Object.hasOwn(counts, word)) continue
      counts[word as keyof Counts] = (counts[word as keyof Counts] ?? 0) + Number(number)
    }
  }
  return counts
}

async function addressOf(firewall: Firewall): Promise<{ host: string; port: number }> {
  if (firewall.host === 'local') return { host: '', port: 0 }
  const port = firewall.port ? ['-p', String(firewall.port)] : []
  const { stdout } = await run('ssh', ['-G', ...port, '--', firewall.host])
  const settingOf = (word: string) => new RegExp(`^${word} (.*)$`, 'm').exec(stdout)?.[1]
  const direct = !settingOf('proxyjump') && !settingOf('proxycommand')
  return {
    host: direct ? (settingOf('hostname') ?? '') : '',
    port: Number(settingOf('port') ?? 22),
  }
}
