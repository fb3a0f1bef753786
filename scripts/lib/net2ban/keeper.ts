import { parseAddress } from '../address.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { now } from '../lease.ts'
import { RELEASED } from '../ledger.ts'
import { type Action, ActionFiles } from './actions.ts'
import { Books, type Held } from './books.ts'
import { jailOf, settingsOf } from './call.ts'
import type { Ground } from './commands.ts'
import { Jail } from './jail.ts'
import { type Place, Places } from './places.ts'

export interface KeeperOptions {
  actionDir: string
  stateDir: string
  execute: Ground['execute']
  executeMany: Ground['executeMany']
  signal?: AbortSignal | undefined
  now?: (() => number) | undefined
  ahead?: (() => number) | undefined
  log?: ((line: string) => void) | undefined
}

type Params = Readonly<Record<string, string>>

/** What a node knows: its jails, what is in force in them, and the files that say how. */
export class Keeper {
  readonly books: Books
  readonly files: ActionFiles
  readonly now: () => number
  readonly #ahead: () => number
  readonly #places: Places
  readonly #ground: Ground
  readonly #signal: AbortSignal | undefined
  readonly #warned = new Set<Place>()
  #said = ''
  readonly #jails = new Map<Place, { jail: Jail; action: Action }>()

  constructor({ actionDir, stateDir, execute, executeMany, signal, ...options }: KeeperOptions) {
    const { ahead = () => 0 } = options
    const own = options.now ?? now
    this.now = () => own() - ahead()
    this.#ahead = ahead
    this.#signal = signal
    this.#places = new Places(`${stateDir}/jails.json`)
    this.books = new Books(stateDir)
    this.files = new ActionFiles(actionDir)
    this.#ground = {
      execute,
      executeMany,
      save: () => this.#places.save(),
      log: (line) => options.log?.(line),
      now: this.now,
      local: (moment) => this.local(moment),
      goOn() {
        if (!signal?.aborted) return
        throw new Failure(EXIT.temporary, 'Cannot go on: this node is ending')
      },
    }
  }

  /** See `Ground`. */
  local(moment: number): string {
    const ahead = this.#ahead()
    return String(ahead === 0 ? moment : Math.round(moment + ahead))
  }

  /** The boot that everything known was true in. */
  get boot(): string {
    return this.#places.boot
  }

  /** Throws once the node is to end. */
  goOn(): void {
    this.#ground.goOn()
  }

  get isEnding(): boolean {
    return this.#signal?.aborted === true
  }

  /** Says what went wrong, once if it goes on going wrong. */
  log(error: unknown): void {
    const text = messageOf(error)
    if (text !== this.#said) this.#ground.log(text)
    this.#said = text
  }

  /** Says once of a jail that a ban named other parameters, which have no effect. */
  warn(place: Place): void {
    if (this.#warned.has(place)) return
    this.#warned.add(place)
    this.#ground.log(
      `${place.file} for ${place.name} keeps the parameters that it was started with`,
    )
  }

  close(): void {
    this.books.close()
  }

  /** All jails that are known. */
  places(): Place[] {
    return this.#places.all()
  }

  /** What is known of a jail; undefined if nothing is. */
  place(file: string, name: string): Place | undefined {
    return this.#places.get(file, name)
  }

  /** The same, where it may be the first time. */
  placeFor(file: string, name: string, params: Params): Place {
    const known = this.#places.get(file, name)
    if (known && !this.isIdle(known)) return known
    const settings = settingsOf(params)
    if (!known) return this.#places.add(file, name, settings)
    if (!known.begun && Object.keys(settings).length > 1) known.params = settings
    return known
  }

  /** The jail of a lease, whose name says all that is needed to end it. */
  placeOf(id: string): Place {
    const colon = id.indexOf(':')
    const [file, name] = [id.slice(0, colon), id.slice(colon + 1)]
    return this.#places.get(file, name) ?? this.#places.add(file, name, { name })
  }

  held({ file, name }: Place): Generator<Held> {
    return this.books.held(jailOf(file, name))
  }

  /** True if nothing of it is in the kernel. */
  isIdle(place: Place): boolean {
    return place.started.length === 0 && !place.unsettled && this.held(place).next().done === true
  }

  save(): void {
    this.#places.save()
  }

  /**
   * A jail as it should be: what was interrupted, or is defined otherwise now, is built anew.
   *
   * @throws Failure 75 if that is not possible just now, 78 if its file says nothing usable
   */
  async ready(place: Place): Promise<Jail> {
    const before = this.#jails.get(place)
    const { jail, action } = await this.#define(place, before)
    if (place.unsettled || (before && before.action !== action && !this.isIdle(place))) {
      await jail.replace(before?.jail ?? jail)
    }
    this.#jails.set(place, { jail, action })
    return jail
  }

  /** Gives a jail other parameters, and builds what is in force in it anew. */
  async change(place: Place, params: Params): Promise<void> {
    const before = await this.ready(place)
    const action = await this.files.action(place.file, params)
    const jail = new Jail(place, action, this.#ground, () => this.held(place))
    await jail.replace(before, () => {
      place.params = { ...params }
      this.#jails.set(place, { jail, action })
    })
  }

  /**
   * Redoes what a crash interrupted, or everything after a reboot; else looks whether all is there.
   *
   * @param boot see `thisBoot`
   */
  async recover(boot: string): Promise<void> {
    for (const id of this.books.jails()) this.placeOf(id)
    const rebooted = this.boot !== boot
    if (rebooted) {
      const over = this.books.ended(this.now()).lines
      this.books.note(over.map((line) => ({ ...line, expires: RELEASED })))
      for (const place of this.#places.all()) place.unsettled = !this.isIdle(place) || place.begun
      this.#places.boot = boot
      this.#places.save()
    }
    await this.files.prepare(this.#places.all()).catch((error) => this.log(error))
    for (const place of this.#places.all()) await this.#tryTo(place, (jail) => jail.check())
    for (const { address, jail: id } of rebooted ? [] : this.books.interrupted()) {
      const parsed = parseAddress(address)
      const end = this.books.end(parsed, id)
      await this.#tryTo(this.placeOf(id), async (jail) => {
        if (end === undefined) await jail.unban(parsed, jail.dynamic(parsed, RELEASED))
        else await jail.redo(parsed, jail.dynamic(parsed, end))
      })
    }
    this.books.forget()
  }

  /** What cannot be restored now is left unsettled, for the next call about it. */
  async #tryTo(place: Place, work: (jail: Jail) => Promise<unknown>): Promise<void> {
    try {
      await work(await this.ready(place))
    } catch (error) {
      this.log(error)
      if (place.unsettled || this.isIdle(place)) return
      place.unsettled = true
      this.#places.save()
    }
  }

  /** A file that is broken or gone does not keep us from ending what it began. */
  async #define(place: Place, before: { jail: Jail; action: Action } | undefined) {
    try {
      const action = await this.files.action(place.file, place.params)
      if (before?.action === action) return before
      return { action, jail: new Jail(place, action, this.#ground, () => this.held(place)) }
    } catch (error) {
      if (!before) throw error
      this.log(error)
      return before
    }
  }
}

/** True if a call says other parameters than the jail has. */
export function differs(place: Place, params: Params): boolean {
  return Object.entries(settingsOf(params)).some(([name, value]) => place.params[name] !== value)
}
