import type { Address } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { type Action, type ActionFamily, Unmet } from './actions.ts'
import type { Tags } from './ban-tags.ts'
import type { ActionName } from './call.ts'
import type { Executed } from './exec.ts'
import type { JailState } from './node-state.ts'

/** A ban or an unban among many. */
export interface Wish {
  address: Address
  dynamic: Tags
  ban: boolean
}

/** What a jail needs of its node. */
export interface Ground {
  /** Runs a piece of shell. */
  execute(text: string, seconds: number): Promise<Executed>
  /** Runs many, one after another. @returns true for each that ended well */
  executeMany(texts: readonly string[], seconds: number): Promise<boolean[]>
  /** Forces what is known of the jails to the disk. */
  save(): void
  log(line: string): void
  /** Epoch seconds, by the clock that leases are told in. */
  now(): number
  /** A moment of that clock by this machine's own, as actions take it. */
  local(moment: number): string
  /** Throws once the node is to end. */
  goOn(): void
}

/** The commands of one action file for one jail. */
export class Commands {
  readonly #action: Action
  readonly #state: JailState
  readonly #ground: Ground

  constructor(action: Action, state: JailState, ground: Ground) {
    this.#action = action
    this.#state = state
    this.#ground = ground
  }

  /** True if the file says what to do. */
  has(action: ActionName): boolean {
    return this.#action.command(action, 'inet4').trim() !== ''
  }

  /** Runs an action; nothing to do is done well. */
  async run(action: ActionName, family: ActionFamily, dynamic?: Tags): Promise<Executed> {
    const text = this.#action.command(action, family, dynamic)
    if (text.trim() === '') return { ok: true, reason: '' }
    return await this.#ground.execute(text, this.#action.timeout)
  }

  /** Runs many bans and unbans, one after another. @returns true for each that ended well */
  async many(wishes: readonly Wish[]): Promise<boolean[]> {
    const texts = wishes.map(({ address: { family }, dynamic, ban }) => {
      return this.#action.command(ban ? 'actionban' : 'actionunban', family, dynamic)
    })
    return await this.#ground.executeMany(texts, this.#action.timeout)
  }

  /** Runs an action for several families, the same text only once. */
  async each(
    action: ActionName,
    families: readonly ActionFamily[],
    done = new Set<string>(),
  ): Promise<Executed> {
    let all: Executed = { ok: true, reason: '' }
    for (const family of families) {
      const text = this.#action.command(action, family)
      if (done.has(text)) continue
      done.add(text)
      const ended = await this.run(action, family)
      if (!ended.ok) all = ended
    }
    return all
  }

  /** The text that starts a family: what two families share is started once. */
  startOf(family: ActionFamily): string {
    return this.#action.command('actionstart', family)
  }

  /** Programs of this project, and others that follow sysexits(3), say 65 of what never works. */
  failure(what: string, address: Address | undefined, { code, reason, need }: Executed): Failure {
    const exit = code === EXIT.input ? EXIT.input : EXIT.temporary
    const whom = address ? ` ${address.text}` : ''
    const { file, name } = this.#state
    if (need) return new Unmet(exit, `Cannot use ${file} for ${name}: ${need}`)
    return new Failure(exit, `Cannot ${what}${whom} with ${file} for ${name}: ${reason}`)
  }
}
