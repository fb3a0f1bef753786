import type { Address } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { alive } from '../lease.ts'
import type { Action, ActionFamily } from './action.ts'
import type { Held } from './books.ts'
import type { ActionName } from './call.ts'
import type { Executed } from './exec.ts'
import type { Place } from './places.ts'
import type { Tags } from './tags.ts'

/** A ban or an unban among many. */
export interface Wish {
  address: Address
  dynamic: Tags
  ban: boolean
}

/** So many bans are put back at a time. */
const BATCH = 64

/** What a jail needs of its node. */
export interface Ground {
  /** Runs a piece of shell. */
  execute(text: string, seconds: number): Promise<Executed>
  /** Runs many, one after another. @returns true for each that ended well */
  executeMany(texts: readonly string[], seconds: number): Promise<boolean[]>
  /** Forces what is known of the jails to the disk. */
  save(): void
  log(line: string): void
  /** Epoch seconds. */
  now(): number
  /** Throws once the node is to end. */
  goOn(): void
}

/**
 * One action file in force for one jail name, run in the order in which Fail2Ban's action.py runs
 * it: families started on demand, a failed command followed by the check, the repair, and one more
 * try. Beyond Fail2Ban, a repair puts every ban back, and a ban that failed leaves nothing behind.
 */
export class Jail {
  readonly place: Place
  readonly #action: Action
  readonly #ground: Ground
  /** Everything that the ledger says is in force. */
  readonly #held: () => Iterable<Held>
  /** Within `#settling`. */
  #settles = false

  constructor(place: Place, action: Action, ground: Ground, held: () => Iterable<Held>) {
    this.place = place
    this.#action = action
    this.#ground = ground
    this.#held = held
  }

  /** True if a ban can be made longer where it is. */
  get prolongs(): boolean {
    return this.#action.command('actionprolong', 'inet4') !== ''
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
    const first = await this.#run('actionban', family, dynamic)
    if (first.ok) return
    if (first.code === EXIT.input) throw this.#failure('ban', address, first)
    await this.#makeSane(family)
    const second = await this.#again(address, dynamic)
    if (second.ok) return
    await this.#run('actionunban', family, dynamic)
    throw this.#failure('ban', address, second)
  }

  /**
   * Bans and unbans many, in order, if all of it is started.
   *
   * @returns true for each that is done; the others may be done in part
   */
  async many(wishes: readonly Wish[]): Promise<boolean[]> {
    const texts = wishes.map(({ address: { family }, dynamic, ban }) => {
      return this.#action.command(ban ? 'actionban' : 'actionunban', family, dynamic)
    })
    const ready = wishes.every(({ address }) => this.#isStarted(address.family))
    if (!ready || texts.length < 2) return wishes.map(() => false)
    return await this.#ground.executeMany(texts, this.#action.timeout)
  }

  /** Makes a ban longer. @throws Failure 75 */
  async prolong(address: Address, dynamic: Tags): Promise<void> {
    const { family } = address
    const ended = this.prolongs
      ? await this.#run('actionprolong', family, dynamic)
      : await this.#again(address, dynamic)
    if (ended.ok) return
    await this.#makeSane(family)
    const second = await this.#again(address, dynamic)
    if (!second.ok) throw this.#failure('prolong', address, second)
  }

  /** @throws Failure 75 if it could not be unbanned, and is not */
  async unban(address: Address, dynamic: Tags): Promise<void> {
    const { family } = address
    if (!this.#isStarted(family)) return
    const first = await this.#run('actionunban', family, dynamic)
    if (first.ok || (await this.#makeSane(family))) return
    // Gone already, or not to be removed just now: afterwards it is certain.
    await this.#run('actionban', family, dynamic)
    const second = await this.#run('actionunban', family, dynamic)
    if (!second.ok) throw this.#failure('unban', address, first)
    await this.#run('actionunban', family, dynamic)
  }

  /** Removes what a ban that went wrong may have left. */
  async wipe(address: Address, dynamic: Tags): Promise<void> {
    if (this.#isStarted(address.family)) await this.#run('actionunban', address.family, dynamic)
  }

  /** Bans what may be banned already, without asking how things are. */
  async redo(address: Address, dynamic: Tags): Promise<void> {
    const ended = await this.#again(address, dynamic)
    if (!ended.ok) throw this.#failure('ban', address, ended)
  }

  /** True if all bans can be removed at once. */
  get flushes(): boolean {
    return this.#action.command('actionflush', 'inet4') !== ''
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
      const ended = await this.#each('actionflush', [...families])
      if (!ended.ok) throw this.#failure('flush', undefined, ended)
      release()
    })
  }

  /** Ends what was started; as in Fail2Ban, what then fails is only told. */
  async stop(): Promise<void> {
    await this.#settling(async () => {
      const { started } = this.place
      const ended = await this.#each('actionstop', started)
      this.place.started = []
      if (!ended.ok) this.#ground.log(this.#failure('stop', undefined, ended).message)
    })
  }

  /** Looks whether all is there, and restores what is not. @returns false if it had to */
  async check(): Promise<boolean> {
    let sane = true
    for (const family of [...this.place.started]) sane = !(await this.#makeSane(family)) && sane
    return sane
  }

  /** Restores everything, whatever there is. @throws Failure 75 if something is missing then */
  async repair(): Promise<void> {
    await this.#settling(async () => {
      if (this.#action.command('actionrepair', 'inet4') === '') return await this.#rebuild(this)
      const ended = await this.#each('actionrepair', this.place.started)
      if (!ended.ok) throw this.#failure('repair', undefined, ended)
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
    const families = new Set(this.place.started)
    await before.#clear()
    adopt()
    this.place.started = []
    for (const { address } of this.#held()) families.add(address.family)
    const wanted = this.#action.onDemand ? [...families].filter((f) => f) : this.#action.families
    if (families.size > 0 || this.place.begun) await this.#startFamilies(wanted)
    await this.#putBack(!before.#stops)
  }

  /** Removes whatever may be there. */
  async #clear(): Promise<void> {
    if (this.#stops) {
      await this.#each('actionstop', this.place.started)
      return
    }
    for (const { address, expires } of this.#held()) {
      await this.#run('actionunban', address.family, this.dynamic(address, expires))
    }
  }

  get #stops(): boolean {
    return this.#action.command('actionstop', 'inet4') !== ''
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
        if (ended?.ok === false) failed = this.#failure('ban', address, ended)
      }
    }
    if (failed) throw failed
  }

  /** The dynamic tags of a ban that the ledger knows. */
  dynamic(address: Address, expires: number): Tags {
    const now = this.#ground.now()
    const left = expires === 0 ? -1 : Math.max(1, expires - now)
    return dynamicTags(address, { time: String(now), bantime: String(left) })
  }

  /** @returns true if something was broken, and is restored now @throws Failure 75 if it is not */
  async #makeSane(family: ActionFamily): Promise<boolean> {
    const check = await this.#run('actioncheck', family)
    if (check.ok) return false
    const { file, name } = this.place
    this.#ground.log(`restoring ${file} for ${name}: its check failed (${check.reason})`)
    await this.repair()
    const second = await this.#run('actioncheck', family)
    if (!second.ok) throw this.#failure('restore', undefined, second)
    return true
  }

  async #again(address: Address, dynamic: Tags): Promise<Executed> {
    await this.#run('actionunban', address.family, dynamic)
    return await this.#run('actionban', address.family, dynamic)
  }

  #isStarted(family: ActionFamily): boolean {
    return this.place.started.includes(family) || this.place.started.includes('')
  }

  /** @throws Failure 75 if one could not be started, and is not */
  async #startFamilies(families: readonly ActionFamily[]): Promise<boolean> {
    const missing = families.filter((family) => !this.#isStarted(family))
    if (missing.length === 0) return false
    const ended = await this.#settling(async () => {
      const before = [...this.place.started]
      const texts = new Set(before.map((family) => this.#action.command('actionstart', family)))
      this.place.started.push(...missing)
      this.#ground.save() // Were we killed now, the next process would have to stop them.
      const start = await this.#each('actionstart', missing, texts)
      if (start.ok) return start
      await this.#each('actionstop', missing)
      this.place.started = before
      return start
    })
    if (!ended.ok) throw this.#failure('start', undefined, ended)
    return true
  }

  /** Marks the jail while something is changed that cannot be told from half done. */
  async #settling<T>(work: () => Promise<T>): Promise<T> {
    if (this.#settles) return await work()
    this.#settles = true
    try {
      this.place.unsettled = true
      this.#ground.save()
      const result = await work()
      this.place.unsettled = false
      this.#ground.save()
      return result
    } finally {
      this.#settles = false
    }
  }

  /** Runs an action for several families, the same text only once. */
  async #each(
    action: ActionName,
    families: readonly ActionFamily[],
    done = new Set<string>(),
  ): Promise<Executed> {
    let all: Executed = { ok: true, reason: '' }
    for (const family of families) {
      const text = this.#action.command(action, family)
      if (done.has(text)) continue
      done.add(text)
      const ended = await this.#run(action, family)
      if (!ended.ok) all = ended
    }
    return all
  }

  async #run(action: ActionName, family: ActionFamily, dynamic?: Tags): Promise<Executed> {
    const text = this.#action.command(action, family, dynamic)
    if (text.trim() === '') return { ok: true, reason: '' }
    return await this.#ground.execute(text, this.#action.timeout)
  }

  /** Programs of this project, and others that follow sysexits(3), say 65 of what never works. */
  #failure(what: string, address: Address | undefined, { code, reason }: Executed): Failure {
    const exit = code === EXIT.input ? EXIT.input : EXIT.temporary
    const whom = address ? ` ${address.text}` : ''
    const { file, name } = this.place
    return new Failure(exit, `Cannot ${what}${whom} with ${file} for ${name}: ${reason}`)
  }
}

/** Fail2Ban's dynamic tags of one ban; what a node cannot know is empty. */
export function dynamicTags(address: Address, params: Readonly<Record<string, string>>): Tags {
  return new Map([
    ['matches', ''],
    ['ipmatches', ''],
    ['ipjailmatches', ''],
    ['ip-host', ''],
    ['ip-rev', reversed(address)],
    ['failures', '0'],
    ['ipfailures', '0'],
    ['ipjailfailures', '0'],
    ['bancount', '1'],
    ['restored', '0'],
    ['bantime', '-1'],
    ...Object.entries(params),
    ['ip', address.text],
    ['fid', address.text],
    ['family', address.family],
  ])
}

/** As in a DNS name, with the dot behind, as Fail2Ban has it. */
function reversed({ text, family }: Address): string {
  const [host = ''] = text.split('/')
  if (family === 'inet4') return `${host.split('.').reverse().join('.')}.`
  const [left = '', right] = host.split('::')
  const head = left ? left.split(':') : []
  const tail = right ? right.split(':') : []
  const zeros = Array<string>(8 - head.length - tail.length).fill('0')
  const digits = [...head, ...zeros, ...tail].map((group) => group.padStart(4, '0')).join('')
  return `${[...digits].reverse().join('.')}.`
}
