import { connect } from 'node:net'
import { EXIT, Failure } from './failure.ts'
import { type Answer, beginFailure, printable, refusalOf, Session } from './firewall-session.ts'
import { knownGeneration, nextSession, rememberGeneration } from './generations.ts'
import { run } from './run.ts'
import type { Firewall } from './settings/firewalls.ts'
import { type Call, type Change, type Changed, LostGeneration, NewSession } from './target.ts'

/** Milliseconds for the other side to take a connection. */
const REACH = 2_000

/** So often a session is begun with a number that turns out too small. */
const TRIES = 3

/** Many changes of one firewall through a session that is kept open. */
export class FirewallChanges {
  readonly #firewall: Firewall
  #session: Session | undefined
  #clock: string | undefined
  /** Where its SSH server listens, as ssh itself reads its configuration. */
  #address: { host: string; port: number } | undefined

  constructor(firewall: Firewall) {
    this.#firewall = firewall
  }

  /** What is wrong with the firewall's clock, if anything. */
  get clock(): string | undefined {
    return this.#clock
  }

  get isOpen(): boolean {
    return this.#session?.isOpen === true
  }

  /** @throws LostGeneration if the firewall has forgotten our leases, NewSession if it may have others */
  async make(call: Call, changes: Change[]): Promise<Changed> {
    try {
      const session = await this.#open(call)
      const said = saidNow()
      const answers = await session.ask(
        changes.map((change) => `${wordsOf(call, change)} ${said}`),
        call.signal,
      )
      const results = answers.map(({ error }) => error && refusalOf(error.code, error.text))
      const trouble = results.findIndex((result) => result && !isItsOwn(result))
      if (trouble >= 0)
        return { results: results.slice(0, trouble), failure: results[trouble] as Failure }
      if (answers.length === changes.length) return { results }
      return { results, failure: new Failure(EXIT.temporary, 'the session ended') }
    } catch (error) {
      if (error instanceof NewSession) throw error
      this.close()
      if (!(error instanceof Failure) || error instanceof LostGeneration) throw error
      return { results: [], failure: error }
    }
  }

  /** Opens the session, or finds out whether it still answers. @throws Failure, LostGeneration */
  async keep(call: Call): Promise<void> {
    try {
      const session = await this.#open(call)
      this.#checkGeneration(call, await session.ask(['generation'], call.signal))
    } catch (error) {
      if (!(error instanceof NewSession)) this.close()
      throw error
    }
  }

  /** Sends operations through the session that is open. @throws Failure */
  async ask(operations: string[], signal: AbortSignal): Promise<Answer[]> {
    return (await this.#session?.ask(operations, signal)) ?? []
  }

  /** False if nobody listens there. What stands behind a jump host cannot be told. */
  async reachable(): Promise<boolean> {
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

  close(): void {
    this.#session?.close()
    this.#session = undefined
  }

  async #open(call: Call): Promise<Session> {
    if (this.#session?.isOpen) return this.#session
    const said = saidNow()
    const session = new Session(this.#firewall, call.owner, said)
    this.#session = session
    await this.#begin(session, call, said)
    this.#checkGeneration(call, await session.ask(['generation'], call.signal))
    throw new NewSession(EXIT.temporary, 'a new session: what the last one did is to be looked at')
  }

  /** Takes the place of every session before. @throws Failure */
  async #begin(session: Session, call: Call, said: string): Promise<void> {
    let beaten = 0
    for (let tries = 0; tries < TRIES; tries++) {
      const number = nextSession(call.config.state_dir, this.#firewall.host, beaten)
      const [answer] = await session.ask([`session ${number} ${said}`], call.signal)
      this.#clock = answer?.lines.find((line) => line.startsWith('clock '))
      if (!answer?.error) return
      const failure = beginFailure(answer.error)
      const newer = newerThan(failure)
      if (newer === undefined) throw failure
      beaten = newer
    }
    throw new Failure(EXIT.temporary, 'another session of this server is always newer')
  }

  #checkGeneration(call: Call, [answer]: Answer[]): void {
    const generation = answer?.lines[0] ?? ''
    if (!/^[0-9a-f]{1,32}$/.test(generation)) {
      if (answer?.error) throw refusalOf(answer.error.code, answer.error.text)
      throw new Failure(EXIT.unexpected, `no generation but "${printable(generation)}"`)
    }
    const known = knownGeneration(call.config.state_dir, this.#firewall.host)
    if (known === undefined) {
      rememberGeneration(call.config.state_dir, this.#firewall.host, generation)
    } else if (known !== generation) {
      throw new LostGeneration(EXIT.temporary, 'lost generation: the firewall began anew')
    }
  }
}

/** What a line ends with: when we say it, by our own clock, for the firewall's may be another. */
export function saidNow(): string {
  return `@${Date.now()}`
}

/** The number of something newer, because of which the firewall has refused what we said. */
export function newerThan(failure: unknown): number | undefined {
  if (!(failure instanceof Failure) || failure.code !== EXIT.temporary) return undefined
  const newer = /^superseded: (\d{1,15}) is newer$/.exec(failure.message)?.[1]
  return newer === undefined ? undefined : Number(newer)
}

/** The operation of a session that a change is. */
function wordsOf(call: Call, change: Change): string {
  if (change.verb === 'unban') return `unban fail2ban-${change.jail} ${change.address.text}`
  const { address, jail, expires } = change.lease
  const { ports = '-', protocol = '-' } = call.namings?.get(jail) ?? {}
  return `ban fail2ban-${jail} ${address.text} ${ports} ${protocol} ${expires}`
}

/** True if the firewall refuses this very change, and not to work at all. */
function isItsOwn(failure: Failure): boolean {
  return failure.code === EXIT.input || failure.code === EXIT.refused || failure.code === EXIT.usage
}

async function addressOf(firewall: Firewall): Promise<{ host: string; port: number }> {
  if (firewall.host === 'local') return { host: '', port: 0 }
  const port = firewall.port ? ['-p', String(firewall.port)] : []
  const { stdout } = await run('ssh', ['-G', ...port, '--', firewall.host])
  const settings = new Map(stdout.split('\n').map((line) => splitWord(line)))
  const direct = !settings.has('proxyjump') && !settings.has('proxycommand')
  return {
    host: direct ? (settings.get('hostname') ?? '') : '',
    port: Number(settings.get('port') ?? 22),
  }
}

function splitWord(line: string): [string, string] {
  const at = line.indexOf(' ')
  return [line.slice(0, at), line.slice(at + 1)]
}
