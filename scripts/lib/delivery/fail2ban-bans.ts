import { type Address, parseBanned } from '../address.ts'
import { bannable } from '../bannable.ts'
import { checkBlocktype } from '../blocktype.ts'
import { type Action, askJails, type Ban, type Jail, silent } from '../fail2ban.ts'
import { codeOf, EXIT, type ExitCode, Failure, messageOf } from '../failure.ts'
import {
  alive,
  checkJail,
  expiry,
  formatLease,
  type Lease,
  NO_JAIL,
  now,
  parseLease,
} from '../lease.ts'
import { neverBan } from '../never.ts'
import { type Naming, readNaming } from '../ports.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds, type Kind } from '../siblings.ts'
import { longest } from '../sync-input.ts'
import { type HandedOver, handedOver } from './action-line.ts'
import { stillRestoring } from './restoring.ts'

/** Something about a jail that is not understood, or that cannot be served. */
export interface Problem {
  jail: string
  action: string | undefined
  code: ExitCode
  reason: string
}

/** What Fail2Ban has banned for one sibling: what the action lines would have queued. */
export interface Fail2BanBans {
  leases: readonly Lease[]
  /** Those whose beginning is not known: their end is the latest that it can be. */
  inexact: readonly Lease[]
  namings: Map<string, Naming>
  /** Tells this Fail2Ban from any before it. */
  instance: string
  /** Whether any jail has an action that goes there. */
  used: boolean
  /** Whether any of them goes there past the queue, which then knows of no unban. */
  direct: boolean
  /** Names whose leases stay as they are, since it is not understood what should be. */
  kept: Set<string>
  /** True if a jail is not understood at all: leases of names that no other has stay, too. */
  keepsOthers: boolean
  problems: Problem[]
}

/** Seconds after its start in which Fail2Ban may have no jails yet. */
const START = 120

/**
 * What Fail2Ban has banned now, for each sibling that is configured.
 *
 * @throws Failure 75 if Fail2Ban cannot be asked
 */
export async function askFail2BanBans(loaded: Loaded): Promise<Map<string, Fail2BanBans>> {
  const { config } = loaded
  const kinds = configuredKinds(config)
  const uses = new RegExp(kinds.map((kind) => kind.uses.source).join('|'))
  const { jails, started, instance, database } = await askJails(config.fail2ban, uses)
  if (jails.length === 0 && Date.now() / 1000 - started < START) {
    throw silent('it has no jails yet, it was started a moment ago')
  }
  const waiting = stillRestoring(config.state_dir, jails)
  const mayBan = bannable(neverBan(config.never_ban), config.min_prefix)
  return new Map(
    kinds.map((kind) => {
      const reader = new Reader(kind, config.owner, { instance, database }, mayBan)
      for (const jail of jails) reader.read(jail, waiting.get(jail.name) ?? [])
      return [kind.name, reader.bans()]
    }),
  )
}

/** Whether a lease that Fail2Ban did not name is to stay as it is. */
export function isKept(
  { kept, keepsOthers, namings }: Pick<Fail2BanBans, 'kept' | 'keepsOthers' | 'namings'>,
  name: string,
): boolean {
  return name === NO_JAIL || kept.has(name) || (keepsOthers && !namings.has(name))
}

/** Makes of what Fail2Ban says what it means for one sibling. */
class Reader {
  readonly #kind: Kind
  readonly #owner: string
  readonly #database: boolean
  readonly #mayBan: (address: Address) => boolean
  readonly #leases: { exact: Lease[]; inexact: Lease[] } = { exact: [], inexact: [] }
  readonly #bans: Omit<Fail2BanBans, 'leases' | 'inexact'>

  constructor(
    kind: Kind,
    owner: string,
    { instance, database }: { instance: string; database: boolean },
    mayBan: (address: Address) => boolean,
  ) {
    this.#kind = kind
    this.#owner = owner
    this.#database = database
    this.#mayBan = mayBan
    const no = { used: false, direct: false, keepsOthers: false }
    this.#bans = { instance, ...no, namings: new Map(), kept: new Set(), problems: [] }
  }

  bans(): Fail2BanBans {
    const { exact, inexact } = this.#leases
    return { ...this.#bans, leases: longest(exact), inexact: longest(inexact) }
  }

  /** @param waiting bans of the jail that Fail2Ban has not restored yet */
  read(jail: Jail, waiting: Ban[]): void {
    if (jail.error !== undefined) this.#isUnknown(jail, undefined, jail.error)
    for (const action of jail.actions) {
      if (action.error !== undefined) this.#isUnknown(jail, action.name, action.error)
      else if (this.#kind.uses.test(action.actionban ?? '')) this.#readAction(jail, action, waiting)
    }
  }

  #readAction(jail: Jail, action: Action, waiting: Ban[]): void {
    this.#bans.used = true
    const inet4 = handedOver(this.#kind, action, 'inet4')
    const inet6 = handedOver(this.#kind, action, 'inet6')
    if (!inet4 || !inet6) {
      const reason = 'its actionban is none that we know'
      this.#isUnknown(jail, action.name, reason, EXIT.input)
      return
    }
    this.#bans.direct ||= !(inet4.queued && inet6.queued)
    const names = [inet4.name, inet6.name]
    try {
      checkBlocktype(action.properties ?? {})
    } catch (error) {
      // The action line refuses every ban.
      this.#note(jail, action.name, codeOf(error), messageOf(error))
      return
    }
    try {
      const naming = namingOf(inet4)
      for (const name of names) {
        checkJail(name)
        if (naming) this.#name(jail, action, name, naming)
      }
      addressOf(inet4, '192.0.2.1')
      addressOf(inet6, '2001:db8::1')
    } catch (error) {
      this.#isWrong(jail, action, names, codeOf(error), messageOf(error))
      return
    }
    if (jail.bansError !== undefined) {
      this.#isWrong(jail, action, names, EXIT.temporary, jail.bansError)
      return
    }
    const nameless = [...jail.bans, ...waiting].filter((ban) => !this.#take(ban, { inet4, inet6 }))
    if (nameless.length === 0 || this.#database) return // what is no address was refused
    const reason = `the address of ${nameless.length} bans is not known without its database`
    this.#isWrong(jail, action, names, EXIT.temporary, reason)
  }

  /** @returns false if the ban is of no address */
  #take(ban: Ban, said: { inet4: HandedOver; inet6: HandedOver }): boolean {
    const text = ban.ip ?? ban.id
    const handed = text.includes(':') ? said.inet6 : said.inet4
    let address: Address
    try {
      address = addressOf(handed, text)
    } catch {
      return false
    }
    const seconds = handed.seconds ?? ban.seconds
    const isExact = ban.began !== null || seconds < 0
    const expires = expiry(ban.began ?? Date.now() / 1000, seconds)
    if (this.#mayBan(address) && alive(expires, now())) {
      const lease = { address, jail: handed.name, expires, owner: this.#owner }
      this.#leases[isExact ? 'exact' : 'inexact'].push(lease)
    }
    return true
  }

  /** The last action counts, as with bans one after another. */
  #name(jail: Jail, action: Action, name: string, naming: Naming): void {
    const known = this.#bans.namings.get(name)
    this.#bans.namings.set(name, naming)
    if (!known || (known.ports === naming.ports && known.protocol === naming.protocol)) return
    const [was, is] = [known, naming].map(({ ports, protocol }) => `${ports}/${protocol}`)
    const reason = `blocks ${is} under the name "${name}", for which another blocks ${was}: give it another name`
    this.#note(jail, action.name, EXIT.input, reason)
  }

  /** The leases of these names stay as they are. */
  #isWrong(jail: Jail, action: Action, names: string[], code: ExitCode, reason: string): void {
    for (const name of names) this.#bans.kept.add(name)
    this.#note(jail, action.name, code, reason)
  }

  /** Not even under which names it blocks is known. */
  #isUnknown(
    jail: Jail,
    action: string | undefined,
    reason: string,
    code: ExitCode = EXIT.temporary,
  ): void {
    this.#bans.kept.add(jail.name)
    this.#bans.keepsOthers = true
    this.#note(jail, action, code, reason)
  }

  #note({ name }: Jail, action: string | undefined, code: ExitCode, reason: string): void {
    this.#bans.problems.push({ jail: name, action, code, reason })
  }
}

function namingOf({ ports, protocol }: HandedOver): Naming | undefined {
  return ports === undefined ? undefined : readNaming(ports, protocol ?? '')
}

/** @throws Failure 65 */
function addressOf({ address }: HandedOver, ip: string): Address {
  return parseBanned(address.replaceAll('<ip>', ip))
}

/** The bans as they travel to f2b-deliver: without the problems, which are said here. */
export type WrittenBans = Pick<Fail2BanBans, 'instance' | 'used' | 'direct' | 'keepsOthers'> & {
  leases: string[]
  inexact: string[]
  namings: [string, Naming][]
  kept: string[]
}

export function writeBans({ problems: _, ...bans }: Fail2BanBans): WrittenBans {
  return {
    ...bans,
    leases: bans.leases.map(formatLease),
    inexact: bans.inexact.map(formatLease),
    namings: [...bans.namings],
    kept: [...bans.kept],
  }
}

/** @throws Failure 65 */
export function readBans(written: WrittenBans, owner: string): Fail2BanBans {
  return {
    ...written,
    leases: written.leases.map((line) => parseLease(line, owner)),
    inexact: written.inexact.map((line) => parseLease(line, owner)),
    namings: new Map(written.namings),
    kept: new Set(written.kept),
    problems: [],
  }
}

/** One sentence for all that is not understood; undefined if all is. */
export function troubleIn(bans: Map<string, Fail2BanBans>): Failure | undefined {
  const problems = problemsIn(bans)
  if (problems.length === 0) return undefined
  const worst = Math.max(...problems.map(({ code }) => code)) as ExitCode
  return new Failure(worst, problems.map(sentenceOf).join('; '))
}

/** Each once, whatever siblings it is about. */
export function problemsIn(bans: Map<string, Fail2BanBans>): Problem[] {
  const all = [...bans.values()].flatMap(({ problems }) => problems)
  return [...new Map(all.map((one) => [sentenceOf(one), one])).values()]
}

export function sentenceOf({ jail, action, reason }: Problem): string {
  const place = action === undefined ? '' : `, action ${JSON.stringify(action)}`
  return `jail ${JSON.stringify(jail)}${place}: ${reason}`
}
