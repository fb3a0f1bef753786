import { readFileSync } from 'node:fs'
import { parseAddress } from '../address.ts'
import { replaceDurably } from '../durable.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { now } from '../lease.ts'
import { RELEASED } from '../ledger.ts'
import { type Action, type ActionFamily, ActionFiles } from './actions.ts'
import { jailOf, settingsOf } from './call.ts'
import type { Ground } from './commands.ts'
import { Jail } from './jail.ts'
import { type Held, NodeLeases } from './node-leases.ts'

/** What a node remembers of one jail beyond its leases. */
export interface JailState {
  readonly file: string
  readonly name: string
  /** Of the last `actionstart`; of the first ban, if there was none. */
  params: Record<string, string>
  /** True once there was an `actionstart`. */
  begun: boolean
  /** The families that are started; `''` for an action that makes no difference. */
  started: ActionFamily[]
  /** True while something is being changed that a crash would leave half done. */
  unsettled: boolean
  /** By address: how many entries more than one may be there, since an unban failed. */
  doubts: Record<string, number>
}

interface Content {
  /** Tells the boot that all this was true in. */
  boot: string
  places: JailState[]
}

/** The jails of a node, in a small file that is rewritten when one is started or stopped. */
export class JailStates {
  readonly #path: string
  readonly #all = new Map<string, JailState>()
  boot: string

  /** @throws Failure 75 if the file is there and cannot be read, or is damaged */
  constructor(path: string) {
    this.#path = path
    const content = read(path)
    this.boot = content?.boot ?? ''
    for (const given of content?.places ?? []) {
      const state = { ...given, doubts: given.doubts ?? {} } // An earlier version wrote none.
      this.#all.set(jailOf(state.file, state.name), state)
    }
  }

  /** What is known of a jail; undefined if nothing is. */
  get(file: string, name: string): JailState | undefined {
    return this.#all.get(jailOf(file, name))
  }

  /** Begins to remember a jail; `save` writes it. */
  add(file: string, name: string, params: Record<string, string>): JailState {
    const state = { file, name, params, begun: false, started: [], unsettled: false, doubts: {} }
    this.#all.set(jailOf(file, name), state)
    return state
  }

  all(): JailState[] {
    return [...this.#all.values()]
  }

  /** Forces everything to the disk. @throws Failure 75 */
  save(): void {
    const content: Content = { boot: this.boot, places: this.all() }
    replaceDurably(this.#path, `${JSON.stringify(content, undefined, 1)}\n`)
  }
}

function read(path: string): Content | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Content
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new Failure(EXIT.temporary, `Cannot read "${path}"`, { cause: error })
  }
}

export interface NodeStateOptions {
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
export class NodeState {
  readonly leases: NodeLeases
  readonly files: ActionFiles
  readonly now: () => number
  readonly #ahead: () => number
  readonly #states: JailStates
  readonly #ground: Ground
  readonly #signal: AbortSignal | undefined
  readonly #warned = new Set<JailState>()
  #said = ''
  readonly #jails = new Map<JailState, { jail: Jail; action: Action }>()

  constructor({ actionDir, stateDir, execute, executeMany, signal, ...options }: NodeStateOptions) {
    const { ahead = () => 0 } = options
    const own = options.now ?? now
    this.now = () => own() - ahead()
    this.#ahead = ahead
    this.#signal = signal
    this.#states = new JailStates(`${stateDir}/jails.json`)
    this.leases = new NodeLeases(stateDir)
    this.files = new ActionFiles(actionDir)
    this.#ground = {
      execute,
      executeMany,
      save: () => this.#states.save(),
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
    return this.#states.boot
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
  warn(state: JailState): void {
    if (this.#warned.has(state)) return
    this.#warned.add(state)
    this.#ground.log(
      `${state.file} for ${state.name} keeps the parameters that it was started with`,
    )
  }

  close(): void {
    this.leases.close()
  }

  /** All jails that are known. */
  jails(): JailState[] {
    return this.#states.all()
  }

  /** What is known of a jail; undefined if nothing is. */
  state(file: string, name: string): JailState | undefined {
    return this.#states.get(file, name)
  }

  /** The same, where it may be the first time. */
  stateFor(file: string, name: string, params: Params): JailState {
    const known = this.#states.get(file, name)
    if (known && !this.isIdle(known)) return known
    const settings = settingsOf(params)
    if (!known) return this.#states.add(file, name, settings)
    if (!known.begun && Object.keys(settings).length > 1) known.params = settings
    return known
  }

  /** The jail of a lease, whose name says all that is needed to end it. */
  stateOf(id: string): JailState {
    const colon = id.indexOf(':')
    const [file, name] = [id.slice(0, colon), id.slice(colon + 1)]
    return this.#states.get(file, name) ?? this.#states.add(file, name, { name })
  }

  held({ file, name }: JailState): Generator<Held> {
    return this.leases.held(jailOf(file, name))
  }

  /** True if nothing of it is in the kernel. */
  isIdle(state: JailState): boolean {
    return state.started.length === 0 && !state.unsettled && this.held(state).next().done === true
  }

  save(): void {
    this.#states.save()
  }

  /**
   * A jail as it should be: what was interrupted, or is defined otherwise now, is built anew.
   *
   * @throws Failure 75 if that is not possible just now, 78 if its file says nothing usable
   */
  async ready(state: JailState): Promise<Jail> {
    const before = this.#jails.get(state)
    const { jail, action } = await this.#define(state, before)
    if (state.unsettled || (before && before.action !== action && !this.isIdle(state))) {
      await jail.replace(before?.jail ?? jail)
    }
    this.#jails.set(state, { jail, action })
    return jail
  }

  /** Gives a jail other parameters, and builds what is in force in it anew. */
  async change(state: JailState, params: Params): Promise<void> {
    const before = await this.ready(state)
    const action = await this.files.action(state.file, params)
    const jail = new Jail(state, action, this.#ground, () => this.held(state))
    await jail.replace(before, () => {
      state.params = { ...params }
      this.#jails.set(state, { jail, action })
    })
  }

  /**
   * Redoes what a crash interrupted, or everything after a reboot; else looks whether all is there.
   *
   * @param boot see `thisBoot`
   */
  async recover(boot: string): Promise<void> {
    for (const id of this.leases.jails()) this.stateOf(id)
    const rebooted = this.boot !== boot
    if (rebooted) {
      const over = this.leases.ended(this.now()).lines
      this.leases.note(over.map((line) => ({ ...line, expires: RELEASED })))
      for (const state of this.#states.all()) state.unsettled = !this.isIdle(state) || state.begun
      this.#states.boot = boot
      this.#states.save()
    }
    await this.files.prepare(this.#states.all()).catch((error) => this.log(error))
    for (const state of this.#states.all()) await this.#tryTo(state, (jail) => jail.check())
    for (const { address, jail: id } of rebooted ? [] : this.leases.interrupted()) {
      const parsed = parseAddress(address)
      const end = this.leases.end(parsed, id)
      await this.#tryTo(this.stateOf(id), async (jail) => {
        if (end === undefined) await jail.unban(parsed, jail.dynamic(parsed, RELEASED))
        else await jail.redo(parsed, jail.dynamic(parsed, end))
      })
    }
    this.leases.forget()
  }

  /** What cannot be restored now is left unsettled, for the next call about it. */
  async #tryTo(state: JailState, work: (jail: Jail) => Promise<unknown>): Promise<void> {
    try {
      await work(await this.ready(state))
    } catch (error) {
      this.log(error)
      if (state.unsettled || this.isIdle(state)) return
      state.unsettled = true
      this.#states.save()
    }
  }

  /** A file that is broken or gone does not keep us from ending what it began. */
  async #define(state: JailState, before: { jail: Jail; action: Action } | undefined) {
    try {
      const action = await this.files.action(state.file, state.params)
      if (before?.action === action) return before
      return { action, jail: new Jail(state, action, this.#ground, () => this.held(state)) }
    } catch (error) {
      if (!before) throw error
      this.log(error)
      return before
    }
  }
}

/** True if a call says other parameters than the jail has. */
export function differs(state: JailState, params: Params): boolean {
  return Object.entries(settingsOf(params)).some(([name, value]) => state.params[name] !== value)
}
