import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseAddress } from '../address.ts'
import { readFinished, replaceDurably } from '../durable.ts'
import { alive, expiry, type Lease, later } from '../lease.ts'
import { Ledger, type Line, RELEASED } from '../ledger.ts'
import { jailOf, nameOf, settingsOf } from './call.ts'
import type { Claims } from './message.ts'
import type { Snapshot } from './snapshot.ts'

type Claimed = Extract<Claims, { cmd: 'exec' }>
type Exec = Pick<Claimed, 'file' | 'action' | 'params' | 'iss' | 'iat'> & Pick<Sender, 'client'>

/** Who wants an address blocked, and for which client only, if not for all. */
interface Sender {
  iss: string
  client?: string | undefined
}

/** A jail that snapshots can be made of. */
interface Known {
  file: string
  name: string
  /** Of its start or a sync; else of the ban that it was started for, on demand. */
  params: Readonly<Record<string, string>>
  onDemand?: true
  /** It may be older than this server, and no sender has said all of it since. */
  partial?: true
}

/** What a call means for the nodes, given what other senders hold. */
export type Verdict = 'forward' | 'keep' | 'snapshot'

/**
 * What the server has forwarded, so that it can tell a node all of it again: a ledger of leases
 * whose jail is `<file>:<name>` and whose owner is the sender (`<sender>@<client>` of what only one
 * client shall have), and the jails with the parameters of their last start. An address stays until
 * its last owner lets go of it.
 */
export class Forwarded {
  readonly #ledger: Ledger
  readonly #path: string
  /** A file that says that nodes have what another server, or another state, has forwarded. */
  readonly #latecomer: string
  /** True if it has never been known what nodes have. */
  isNew: boolean
  readonly #jails: Map<string, Known>

  /** @throws Failure 75 if the files cannot be read */
  constructor(folder: string, at: number) {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    this.#ledger = new Ledger(join(folder, 'forwarded.leases'))
    this.#ledger.refresh()
    if (this.#ledger.exists) this.#ledger.compact(at)
    this.#path = join(folder, 'jails.json')
    this.#latecomer = join(folder, 'latecomer')
    this.isNew = !this.#ledger.exists && !existsSync(this.#path)
    this.#jails = readJails(this.#path)
  }

  /** Notes for good whether nodes may have what is not known here. @throws Failure 75 */
  begin(late: boolean): void {
    if (late) replaceDurably(this.#latecomer, '')
    replaceDurably(this.#path, '[]\n')
    this.isNew = false
  }

  /** Jails that are not told whole: what is not known here would be freed. */
  get partial(): number {
    return [...this.#jails.values()].filter(({ partial }) => partial).length
  }

  /**
   * Notes what a call does; `commit` writes it. Time counts in epoch seconds.
   *
   * @throws Failure 75 if a new jail cannot be written; the call may then be noted again
   */
  note(exec: Exec, at: number): Verdict {
    const jail = jailOf(exec.file, nameOf(exec.params))
    switch (exec.action) {
      case 'actionstart':
        // What is started on one client only says nothing about the others.
        if (exec.client === undefined) {
          this.#learn({ file: exec.file, name: nameOf(exec.params), params: exec.params })
        }
        return 'forward'
      case 'actionban':
      case 'actionprolong':
        this.#learn(this.#demanded(exec, jail, at))
        this.#hold(exec, jail)
        return 'forward'
      case 'actionunban':
        return this.#release(exec, jail, at)
      case 'actionflush':
      case 'actionstop': {
        for (const line of this.#of(jail, at))
          if (owns(exec, line)) this.#ledger.put(released(line))
        const verdict = verdictOf(exec, this.#of(jail, at))
        return verdict === 'keep' && exec.action === 'actionflush' ? 'snapshot' : verdict
      }
      default:
        return 'forward'
    }
  }

  /**
   * Notes that a sender's leases in a jail are exactly these; without a client, on every client.
   *
   * @throws Failure 75 as `note` does
   */
  replace({ file, name, params, leases }: Snapshot, sender: Sender, at: number): void {
    const jail = jailOf(file, name)
    const known = this.#jails.get(jail)
    if (sender.client !== undefined) {
      if (!known) this.#learn({ file, name, params })
    } else if (!known || Object.keys(params).length > 0) this.#know({ file, name, params })
    else if (known.partial) this.#know({ file, name, params: known.params })
    const owner = ownerOf(sender)
    const wanted = leases.map(({ address, expires }) => lineOf(address.text, jail, expires, owner))
    const { changes } = this.#ledger.diff(owner, jail, wanted, at)
    for (const line of changes) this.#ledger.put(line)
    for (const line of this.#of(jail, at)) {
      if (line.owner !== owner && owns(sender, line)) this.#ledger.put(released(line))
    }
  }

  /** The clients that shall have something in a jail, or in any, that others shall not. */
  special(at: number, only?: string): Set<string> {
    const clients = new Set<string>()
    for (const { jail, owner } of this.#ledger.living(at)) {
      const { client } = senderOf(owner)
      if (client !== undefined && (only === undefined || jail === only)) clients.add(client)
    }
    return clients
  }

  /**
   * All that nodes shall have, a snapshot for each jail that is known whole, or of one jail only.
   *
   * @param client with what this one shall have beyond the others
   */
  snapshots(at: number, only?: string, client?: string): Snapshot[] {
    const jails = [...this.#jails].filter(([jail, { partial }]) => {
      return only === undefined ? !partial : jail === only
    })
    const ends = new Map(jails.map(([jail]) => [jail, new Map<string, number>()]))
    for (const { jail, address, expires, owner } of this.#ledger.living(at)) {
      const all = ends.get(jail)
      if (!all || !concerns(senderOf(owner), client)) continue
      const known = all.get(address)
      all.set(address, known === undefined ? expires : later(known, expires))
    }
    return jails.map(([jail, { file, name, params }]) => {
      const leases = Array.from(ends.get(jail) ?? [], ([text, expires]): Lease => {
        return { address: parseAddress(text), jail: name, expires, owner: 'net2ban' }
      })
      return { file, name, params, leases }
    })
  }

  /** Writes what was noted. @throws Failure 75; the notes are kept for the next try */
  commit(at: number): void {
    this.#ledger.commit()
    this.#ledger.settle()
    this.#ledger.tidy(at)
  }

  /** The jail of a ban. One that was never started takes, once it is empty, what the next ban says. */
  #demanded({ file, params }: Exec, jail: string, at: number): Known {
    const known = this.#jails.get(jail)
    const fresh = {
      file,
      name: nameOf(params),
      params: settingsOf(params),
      onDemand: true,
    } as const
    if (!known) return fresh
    const settings = [known.params, fresh.params].map((params) => JSON.stringify(params))
    const same = !known.onDemand || settings[0] === settings[1]
    return same || this.#of(jail, at).length > 0 ? known : fresh
  }

  #learn(known: Known): void {
    const old = this.#jails.get(jailOf(known.file, known.name))
    const isPartial = old ? old.partial : existsSync(this.#latecomer)
    this.#know(isPartial ? { ...known, partial: true } : known)
  }

  #know(known: Known): void {
    const jail = jailOf(known.file, known.name)
    if (JSON.stringify(this.#jails.get(jail)) === JSON.stringify(known)) return
    const jails = new Map(this.#jails).set(jail, known)
    replaceDurably(this.#path, `${JSON.stringify([...jails.values()], null, 1)}\n`)
    this.#jails.set(jail, known)
  }

  #hold({ params, iat, ...sender }: Exec, jail: string): void {
    const { text } = parseAddress(params.ip ?? '')
    const owner = ownerOf(sender)
    const end = endOf(params, iat)
    const known = this.#ledger.held(text).find((row) => row.jail === jail && row.owner === owner)
    const expires = known && alive(known.expires, iat) ? later(known.expires, end) : end
    if (known?.expires !== expires) this.#ledger.put(lineOf(text, jail, expires, owner))
  }

  #release(exec: Exec, jail: string, at: number): Verdict {
    const { text } = parseAddress(exec.params.ip ?? '')
    const rows = this.#ledger.held(text).filter((row) => row.jail === jail)
    const own = rows.filter((row) => owns(exec, row) && alive(row.expires, at))
    for (const row of own) this.#ledger.put(lineOf(text, jail, RELEASED, row.owner))
    return verdictOf(
      exec,
      rows.filter((row) => alive(row.expires, at)),
    )
  }

  #of(jail: string, at: number): Line[] {
    return [...this.#ledger.living(at)].filter((line) => line.jail === jail)
  }
}

/** When the ban that a call asks for ends: 0 if it does not say. Epoch seconds. */
export function endOf(params: Readonly<Record<string, string>>, iat: number): number {
  const { time, bantime } = params
  if (bantime === undefined) return 0
  return expiry(time === undefined ? iat : Number(time), Number(bantime))
}

function ownerOf({ iss, client }: Sender): string {
  return client === undefined ? iss : `${iss}@${client}`
}

function senderOf(owner: string): Sender {
  const [iss = '', client] = owner.split('@')
  return { iss, client }
}

/** True for what all clients shall have, and for what this one shall. */
function concerns(sender: Sender, client: string | undefined): boolean {
  return sender.client === undefined || sender.client === client
}

/** True if an order about a lease is about this one: about all clients, it is about each. */
function owns({ iss, client }: Sender, { owner }: Pick<Line, 'owner'>): boolean {
  const held = senderOf(owner)
  return held.iss === iss && (client === undefined || client === held.client)
}

/** What becomes of a release, given who else wants it blocked. */
function verdictOf({ iss, client }: Sender, rest: readonly Pick<Line, 'owner'>[]): Verdict {
  const others = rest.map(({ owner }) => senderOf(owner)).filter((sender) => sender.iss !== iss)
  if (client !== undefined) {
    return others.some((sender) => concerns(sender, client)) ? 'keep' : 'forward'
  }
  if (others.length === 0) return 'forward'
  return others.every((sender) => sender.client !== undefined) ? 'snapshot' : 'keep'
}

function released(line: Line): Line {
  return { ...line, expires: RELEASED }
}

function lineOf(address: string, jail: string, expires: number, owner: string): Line {
  return { address, jail, expires, owner }
}

function readJails(path: string): Map<string, Known> {
  let text = '[]'
  try {
    text = readFinished(path).toString('utf8')
  } catch {
    // None yet.
  }
  const all = JSON.parse(text) as Known[]
  return new Map(all.map((known) => [jailOf(known.file, known.name), known]))
}
