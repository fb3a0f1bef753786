import type { Address } from '../address.ts'
import { EXIT, type Failure } from '../failure.ts'
import { alive } from '../lease.ts'
import type { Action, ActionFamily } from './actions.ts'
import { dynamicTags, type Tags } from './ban-tags.ts'
import { Commands, type Ground, type Wish } from './commands.ts'
import type { Executed } from './exec.ts'
import type { Held } from './node-leases.ts'
import type { JailState } from './node-state.ts'

/** So many bans are put back at a time. */
const BATCH = 64

/**
 * One action file in force for one jail name, run in the order in which Fail2Ban's action.py runs
 * it: families started on demand, a failed command followed by the check, the repair, and one more
 * try. Beyond Fail2Ban, a repair puts every ban back, and a ban that failed leaves nothing behind.
 */
export class Jail {
  readonly state: JailState
  readonly #action: Action
  readonly #commands: Commands
  readonly #ground: Ground
  /** Everything that the ledger says is in force. */
  readonly #held: () => Iterable<Held>
  /** Addresses whose unban failed although there was one to remove; only unbans can follow. */
  readonly #probed = new Set<string>()
  /** Within `#settling`. */
  #settles = false

  constructor(state: JailState, action: Action, ground: Ground, held: () => Iterable<Held>) {
    this.state = state
    this.#action = action
    this.#commands = new Commands(action, state, ground)
    this.#ground = ground
    this.#held = held
  }

  /** The dynamic tags of a ban that the ledger knows. */
  dynamic(address: Address, expires: number): Tags {
    const now = this.#ground.now()
    const left = expires === 0 ? -1 : Math.max(1, expires - now)
    return dynamicTags(address, { time: this.#ground.local(now), bantime: String(left) })
  }

  /** True if a ban can be made longer where it is. */
  get prolongs(): boolean {
    return this.#commands.has('actionprolong')
  }

  /** True if a ban tells the action when it ends. */
  get timed(): boolean {
    return this.#action.timed
  }

  /** Starts what is not started by a first ban. @returns false if there was nothing to do */
  async start(): Promise<boolean> {
    return this.#action.onDemand ? false : await this.#startFamilies(this.#action.families)
  }

  /** @throws Failure if it could not be banned, and is not: 75, or 65 if the action refuses it */
  async ban(address: Address, dynamic: Tags): Promise<void> {
    const { family } = address
    if (this.#action.onDemand) await this.#startFamilies([family])
    else await this.#startFamilies(this.#action.families)
    const first = await this.#commands.run('actionban', family, dynamic)
    if (first.ok) return
    if (first.code === EXIT.input) throw this.#commands.failure('ban', address, first)
    if (!first.need) await this.#makeSane(family)
    const second = await this.#again(address, dynamic)
    if (second.ok) return
    await this.#commands.run('actionunban', family, dynamic)
    throw this.#commands.failure('ban', address, second)
  }

  /**
   * Bans and unbans many, in order, if all of it is started.
   *
   * @returns true for each that is done; the others may be done in part
   */
  async many(wishes: readonly Wish[]): Promise<boolean[]> {
    const ready = wishes.every(({ address }) => this.#isStarted(address.family))
    if (!ready || wishes.length < 2) return wishes.map(() => false)
    const plain = wishes.filter(({ ban, address }) => ban || !this.state.doubts[address.text])
    const ok = await this.#commands.many(plain)
    const done = new Set(plain.filter((_, i) => ok[i]))
    return wishes.map((wish) => done.has(wish))
  }

  /** Makes a ban longer. @throws Failure 75 */
  async prolong(address: Address, dynamic: Tags): Promise<void> {
    const { family } = address
    const ended = this.prolongs
      ? await this.#commands.run('actionprolong', family, dynamic)
      : await this.#again(address, dynamic)
    if (ended.ok) return
    await this.#makeSane(family)
    const second = await this.#again(address, dynamic)
    if (!second.ok) throw this.#commands.failure('prolong', address, second)
  }

  /**
   * An unban that fails says that nothing is there, or that it cannot be removed just now. Banned once
   * more, it certainly is there, so the next unban tells: but that is one entry more to be removed.
   *
   * @throws Failure 75 if it could not be unbanned, and is not
   */
  async unban(address: Address, dynamic: Tags): Promise<void> {
    const { family, text } = address
    if (!this.#isStarted(family)) return
    const unban = () => this.#commands.run('actionunban', family, dynamic)
    const first = await unban()
    const restored = !first.ok && (await this.#makeSane(family))
    if (!first.ok && !restored) {
      const failure = this.#commands.failure('unban', address, first)
      if (this.#probed.has(text)) throw failure
      this.#doubt(address, 1)
      if (!(await this.#commands.run('actionban', family, dynamic)).ok) {
        this.#doubt(address, -1)
        throw failure
      }
      this.#probed.add(text)
      if (!(await unban()).ok) throw failure
    }
    this.#probed.delete(text)
    for (let left = (this.state.doubts[text] ?? 0) + Number(restored); left > 0; left--) {
      if (!(await unban()).ok) break
    }
    delete this.state.doubts[text]
  }

  /** Removes what a ban that went wrong may have left. */
  async wipe(address: Address, dynamic: Tags): Promise<void> {
    const ended = await this.#commands.run('actionunban', address.family, dynamic)
    if (!ended.ok) this.#doubt(address, 1)
  }

  /** Bans what may be banned already, without asking how things are. */
  async redo(address: Address, dynamic: Tags): Promise<void> {
    const ended = await this.#again(address, dynamic)
    if (!ended.ok) throw this.#commands.failure('ban', address, ended)
  }

  async #again(address: Address, dynamic: Tags): Promise<Executed> {
    await this.wipe(address, dynamic)
    return await this.#commands.run('actionban', address.family, dynamic)
  }

  /** Writes down that there may be an entry more of an address, before it is made. */
  #doubt({ text }: Address, more: number): void {
    const { doubts } = this.state
    doubts[text] = (doubts[text] ?? 0) + more
    // What is unsettled is built anew after a crash.
    if (!this.state.unsettled) this.#ground.save()
  }

  /** True if all bans can be removed at once. */
  get flushes(): boolean {
    return this.#commands.has('actionflush')
  }

  /**
   * Removes all bans at once.
   *
   * @param release writes down that they are gone
   * @throws Failure 75 if they are not; the jail then stays unsettled
   */
  async flush(release: () => void): Promise<void> {
    await this.#settling(async () => {
      const families = new Set(Array.from(this.#held(), ({ address }) => address.family))
      await this.#flushAll([...families])
      release()
    })
  }

  /** Ends what was started; as in Fail2Ban, what then fails is only told. */
  async stop(): Promise<void> {
    await this.#settling(async () => {
      const { started } = this.state
      const ended = await this.#commands.each('actionstop', started)
      this.state.started = []
      if (!ended.ok) this.#ground.log(this.#commands.failure('stop', undefined, ended).message)
    })
  }

  /** Looks whether all is there, and restores what is not. @returns false if it had to */
  async check(): Promise<boolean> {
    let sane = true
    for (const family of [...this.state.started]) sane = !(await this.#makeSane(family)) && sane
    return sane
  }

  /** Restores everything, whatever there is. @throws Failure 75 if something is missing then */
  async repair(): Promise<void> {
    await this.#settling(async () => {
      if (!this.#commands.has('actionrepair')) return await this.#rebuild(this)
      const ended = await this.#commands.each('actionrepair', this.state.started)
      if (!ended.ok) throw this.#commands.failure('repair', undefined, ended)
      await this.#putBack(true)
    })
  }

  /**
   * Ends what another definition of this jail began and begins it with this one.
   *
   * @param adopt called between the two
   * @throws Failure 75 if something could not be restored; the jail then stays unsettled
   */
  async replace(before: Jail, adopt: () => void = () => {}): Promise<void> {
    await this.#settling(async () => await this.#rebuild(before, adopt))
  }

  async #rebuild(before: Jail, adopt: () => void = () => {}): Promise<void> {
    const { started } = this.state
    const families = new Set(started)
    const empty = await before.#clear()
    adopt()
    for (const { address } of this.#held()) families.add(address.family)
    const wanted = this.#action.onDemand ? [...families].filter((f) => f) : this.#action.families
    const start = async () => {
      this.state.started = []
      if (families.size > 0 || this.state.begun) await this.#startFamilies(wanted)
    }
    try {
      await start()
      if (!empty) {
        await this.#flushAll(this.state.started)
        await this.#commands.each('actionstop', this.state.started)
        await start()
      }
    } catch (error) {
      this.state.started = started // So that the next try clears all of it.
      throw error
    }
    if (before.flushes) this.state.doubts = {}
    await this.#putBack(false)
  }

  /**
   * Removes whatever may be there. Not every file's stop removes the bans as well.
   *
   * @returns false if it could not be flushed, and may be there
   */
  async #clear(): Promise<boolean> {
    let empty = true
    if (!this.flushes) await this.#unbanAll()
    else for (const family of this.state.started) empty = (await this.#isEmpty(family)) && empty
    await this.#commands.each('actionstop', this.state.started)
    return empty
  }

  /** Flushes a family. A flush also fails where nothing is there, as the check knows. */
  async #isEmpty(family: ActionFamily): Promise<boolean> {
    if ((await this.#commands.run('actionflush', family)).ok) return true
    const check = this.#commands.has('actioncheck')
    return check && !(await this.#commands.run('actioncheck', family)).ok
  }

  async #flushAll(families: readonly ActionFamily[]): Promise<void> {
    const ended = await this.#commands.each('actionflush', families)
    if (!ended.ok) throw this.#commands.failure('flush', undefined, ended)
  }

  async #unbanAll(): Promise<void> {
    const all = Array.from(this.#held(), ({ address, expires }) => {
      return { address, dynamic: this.dynamic(address, expires), ban: false }
    })
    for (let at = 0; at < all.length; at += BATCH) {
      this.#ground.goOn()
      const batch = all.slice(at, at + BATCH)
      const done = await this.#commands.many(batch)
      for (const [i, { address }] of batch.entries()) if (!done[i]) this.#doubt(address, 1)
    }
  }

  /** Bans again whatever the ledger says. @param careful true if it may be there */
  async #putBack(careful: boolean): Promise<void> {
    let failed: Failure | undefined
    // What is over will be unbanned in a moment.
    const all = [...this.#held()].filter(({ expires }) => alive(expires, this.#ground.now()))
    for (let at = 0; at < all.length; at += BATCH) {
      this.#ground.goOn()
      const batch = all.slice(at, at + BATCH).map(({ address, expires }) => {
        return { address, dynamic: this.dynamic(address, expires), ban: true }
      })
      const done = careful ? [] : await this.many(batch)
      for (const [i, { address, dynamic }] of batch.entries()) {
        const ended = done[i] ? undefined : await this.#again(address, dynamic)
        if (ended?.ok === false) failed = this.#commands.failure('ban', address, ended)
      }
    }
    if (failed) throw failed
  }

  /** @returns true if something was broken, and is restored now @throws Failure 75 if it is not */
  async #makeSane(family: ActionFamily): Promise<boolean> {
    const check = await this.#commands.run('actioncheck', family)
    if (check.ok) return false
    // What cannot even be asked is not torn down.
    if (check.need) throw this.#commands.failure('check', undefined, check)
    const { file, name } = this.state
    this.#ground.log(`restoring ${file} for ${name}: its check failed (${check.reason})`)
    await this.repair()
    const second = await this.#commands.run('actioncheck', family)
    if (!second.ok) throw this.#commands.failure('restore', undefined, second)
    return true
  }

  #isStarted(family: ActionFamily): boolean {
    return this.state.started.includes(family) || this.state.started.includes('')
  }

  /** @throws Failure 75 if one could not be started, and is not */
  async #startFamilies(families: readonly ActionFamily[]): Promise<boolean> {
    const missing = families.filter((family) => !this.#isStarted(family))
    if (missing.length === 0) return false
    const ended = await this.#settling(async () => {
      const before = [...this.state.started]
      const texts = new Set(before.map((family) => this.#commands.startOf(family)))
      this.state.started.push(...missing)
      this.#ground.save() // Were we killed now, the next process would have to stop them.
      const start = await this.#commands.each('actionstart', missing, texts)
      if (start.ok) return start
      await this.#commands.each('actionstop', missing)
      this.state.started = before
      return start
    })
    if (!ended.ok) throw this.#commands.failure('start', undefined, ended)
    return true
  }

  /** Marks the jail while something is changed that cannot be told from half done. */
  async #settling<T>(work: () => Promise<T>): Promise<T> {
    if (this.#settles) return await work()
    this.#settles = true
    try {
      this.state.unsettled = true
      this.#ground.save()
      const result = await work()
      this.state.unsettled = false
      this.#ground.save()
      return result
    } finally {
      this.#settles = false
    }
  }
}
