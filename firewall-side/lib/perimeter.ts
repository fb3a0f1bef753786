import { codeOf, EXIT, type ExitCode, Failure, messageOf } from '../../scripts/lib/failure.ts'
import { alive } from '../../scripts/lib/lease.ts'
import { lock } from '../../scripts/lib/lock.ts'
import { type Backend, type Chain, type Change, directOf, type Entry, shapeOf } from './backend.ts'
import { Books, type Caller, SLACK } from './books.ts'
import { changeOf } from './change.ts'
import type { FirewallConfig } from './config.ts'
import { Journal } from './journal.ts'
import { chainName } from './names.ts'
import { foreignText } from './netfilter.ts'
import { neverHere } from './never.ts'
import { Order, superseded } from './order.ts'
import type { Paths } from './paths.ts'
import type { Request } from './request.ts'
import { keepOpen } from './tool.ts'
import { Turns } from './turns.ts'

/** What a request came to: lines to print, or a code and one sentence. */
export interface Answer {
  code: ExitCode
  lines: string[]
  error: string
}

/** A ledger with this many ended lines is rewritten without them. */
const COMPACT_AT = 1000

/** What the kernel is most likely to be told of. */
const CHANGING: ReadonlySet<string> = new Set(['ban', 'unban', 'sync', 'flush'])

/** A session looks at the shape of the kernel's part at most so often, seconds. */
const LOOK_EVERY = 5

/** The index is made anew when it has so many entries more than twice what is needed. */
const STALE = 1000

/** What may walk through every lease, and needs memory for it. */
const HEAVY: ReadonlySet<string> = new Set(['list', 'sync', 'flush', 'digest', 'check'])

/** So many refusals of one batch stand in the journal; the others are counted. */
const REFUSED = 10

/**
 * The perimeter of one firewall: the books say who holds what and until when; the backend only
 * enters, removes and loads addresses with the latest end that any owner's lease has.
 *
 * A batch of requests changes the books first, durably, and then the kernel, in one transaction. If
 * we are killed in between, the books are the truth that `check` and the next boot restore. If the
 * kernel refuses, everything of ours is built anew from the books; if that fails too, the books are
 * taken back and the caller is told.
 */
export class Perimeter {
  readonly #config: FirewallConfig
  readonly #paths: Paths
  readonly #backend: Backend
  readonly #caller: Caller
  readonly #books: Books
  readonly #order: Order
  readonly #turns: Turns
  readonly #journal = new Journal()
  /** The number of this session; undefined for a single command, and for a session without one. */
  session: number | undefined
  #isSuperseded = false
  /** The chains that the kernel has, as far as the books know. */
  #before: readonly Chain[] = []
  /** What was repaired before the first request, since the last process did not end well. */
  #mended: string[] = []
  /** When the shape of the kernel's part was last looked at, epoch seconds. */
  #looked = 0

  constructor(config: FirewallConfig, paths: Paths, backend: Backend, caller: Caller) {
    this.#config = config
    this.#paths = paths
    this.#backend = backend
    this.#caller = caller
    this.#books = new Books(config, paths, caller)
    this.#order = new Order(paths.run, caller.owner)
    this.#turns = new Turns(paths.run, caller.owner)
  }

  /** True when a newer session of the owner has taken the place of this one, which is of no use then. */
  get isSuperseded(): boolean {
    return this.#isSuperseded
  }

  /** Performs requests in order, in one transaction. @returns an answer for each, in order */
  async perform(requests: (Request | Failure)[]): Promise<Answer[]> {
    const work = async () => {
      this.#mended = this.#books.usage.unclean ? await this.#tryRepair() : []
      const answers: Answer[] = []
      for (const request of requests) answers.push(await this.#answer(request))
      return await this.#conclude(answers)
    }
    const changes = requests.some((request) => isOneOf(CHANGING, request))
    if (!requests.some((request) => isOneOf(HEAVY, request))) return this.#locked(work, changes)
    const heavy = await lock(`${this.#paths.run}/firewall.heavy.${this.#caller.owner}`)
    try {
      return await this.#locked(work, changes)
    } finally {
      heavy()
    }
  }

  /** Lets go of everything that can be read again. */
  rest(): void {
    this.#books.forget()
  }

  /** Makes what was answered take effect; if that fails, that is the answer. */
  async #conclude(answers: Answer[]): Promise<Answer[]> {
    this.#logRefused(answers)
    try {
      await this.#takeEffect()
      return answers
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      const failed = { code: error.code, lines: [], error: error.message }
      return answers.map((answer) => (answer.code === 0 ? failed : answer))
    }
  }

  /** Makes the kernel equal to the books: at boot, before the network is up. */
  async restore(): Promise<string> {
    return await this.#locked(async () => {
      try {
        this.#books.mend()
      } catch (error) {
        this.#books.log.push(messageOf(error)) // a full disk must not keep the rest from being blocked
      }
      const { entries, chains } = await this.#rebuild()
      this.#books.settle()
      return `restored ${counted(entries, 'block')} in ${counted(chains, 'chain')}`
    })
  }

  /** Removes everything of ours from the kernel; the books stay. */
  async remove(): Promise<void> {
    await this.#locked(async () => {
      await this.#backend.remove()
      this.#books.usage.never = ''
      this.#books.usage.shape = undefined
      this.#books.settle()
    })
  }

  /** What a timer does every minute: ends what the kernel cannot end, renews, repairs, compacts. */
  async sweep(): Promise<void> {
    await this.#locked(async () => {
      this.#books.mend()
      if (!this.#backend.expires) this.#books.touchEnded()
      this.#renewLong()
      await this.#takeEffect()
      await this.#repair()
      this.#books.compact(this.#backend.expires ? COMPACT_AT : 0)
      this.#books.shrink()
    })
  }

  /**
   * Runs something under the firewall's lock, with the books as they are on the disk. What needs no
   * lock is done while it is waited for.
   *
   * @param changes whether the kernel is likely to be told something, and the journal
   */
  async #locked<T>(work: () => Promise<T>, changes = false): Promise<T> {
    try {
      const locked = this.#turns.take((fd) => {
        keepOpen(fd)
        if (changes) this.#backend.tool?.start()
      })
      if (changes) this.#journal.open()
      const never = neverHere(this.#config, this.#paths)
      const release = await locked
      try {
        this.#books.open(never)
        this.#before = this.#books.chains()
        return await work()
      } finally {
        this.#books.clear()
        this.#backend.tool?.dismiss()
        release()
      }
    } finally {
      this.#backend.tool?.dismiss()
      this.#journal.write(this.#books.log.splice(0))
    }
  }

  async #answer(request: Request | Failure): Promise<Answer> {
    try {
      this.#books.usage.operation(this.#caller.owner, this.#books.at)
      if (request instanceof Failure) throw request
      this.#checkOrder(request)
      return { code: EXIT.done, lines: await this.#request(request), error: '' }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return { code: error.code, lines: [], error: error.message }
    }
  }

  /** What has been on its way since before a newer session or command began is refused. */
  #checkOrder(request: Request): void {
    if (request.verb === 'session') return
    if (this.session === undefined) {
      this.#order.check(request)
      return
    }
    this.#isSuperseded = this.session < this.#books.session
    if (this.#isSuperseded) throw superseded(this.#books.session)
  }

  #begin({ number, said }: Request & { verb: 'session' }): string[] {
    if (number === undefined) return this.#books.clock(said)
    // Should it be refused, so is whatever comes after it.
    this.session = -1
    this.#books.begin(number)
    this.session = number
    return this.#books.clock(said)
  }

  /** A flood of what is refused must not become a flood in the journal. */
  #logRefused(answers: Answer[]): void {
    const refused = answers.filter((answer) => answer.code !== EXIT.done)
    const { owner } = this.#caller
    for (const { error } of refused.slice(0, REFUSED)) {
      this.#books.log.push(`${owner} refused: ${error}`)
    }
    const more = refused.length - REFUSED
    if (more > 0) this.#books.log.push(`${owner} refused: ${more} more`)
  }

  async #request(request: Request): Promise<string[]> {
    if (request.verb === 'session') return this.#begin(request)
    if (request.verb === 'sync' || request.verb === 'digest') await this.#glance()
    if (request.verb === 'list') return this.#books.list(request.jail, request.said)
    if (request.verb === 'blocked') return this.#books.blocked(request.address)
    if (request.verb === 'sync') return [this.#books.sync(request)]
    if (request.verb === 'check') {
      return [...(await this.#check()), ...this.#books.clock(request.said)]
    }
    if (request.verb === 'generation') return [this.#books.generation]
    if (request.verb === 'digest') return [this.#books.digest(request.said)]
    if (request.verb === 'ban') this.#books.ban(request)
    if (request.verb === 'unban') this.#books.unban(request)
    if (request.verb !== 'flush') return []
    const removed = this.#books.flush(request.jail, request.but)
    return request.but ? [`removed ${removed}`] : []
  }

  async #check(): Promise<string[]> {
    this.#books.mend()
    const { generation, needsSync } = this.#books
    if (needsSync) {
      throw new Failure(
        EXIT.temporary,
        `lost generation: the firewall has a new, empty ledger (${generation}) and needs a sync`,
      )
    }
    if (!this.#backend.expires) this.#books.touchEnded()
    await this.#takeEffect()
    const restored = await this.#repair()
    const counts = [`generation ${generation}`, `leases ${this.#books.leases}`]
    return [...counts, ...this.#mended, ...restored]
  }

  /** Whoever asks for a sync or a digest wants to know that the kernel is right: a look at its shape. */
  async #glance(): Promise<void> {
    const { at, usage } = this.#books
    if (Math.abs(at - this.#looked) < LOOK_EVERY) return
    this.#looked = at
    if ((await this.#shape(this.#before)) !== usage.shape) await this.#rebuildAndSay()
  }

  /** Compares the kernel's own dump with the books, and builds our part anew if they differ. */
  async #repair(): Promise<string[]> {
    const chains = this.#books.chains()
    const { usage, at } = this.#books
    const known = usage.shape !== undefined && (await this.#shape(chains)) === usage.shape
    if (!known) return await this.#rebuildAndSay()
    const { blocks, indexed } = await this.#backend.held(chains)
    const { entries } = this.#books.contents(at - SLACK)
    if (!isSame(blocks, entries, at)) return await this.#rebuildAndSay()
    if (indexed > 2 * entries.length + STALE) await this.#backend.apply(reindexing(chains, entries))
    return []
  }

  /** What cannot be repaired now, on a full disk, say, must not keep anybody from an answer. */
  async #tryRepair(): Promise<string[]> {
    try {
      return await this.#repair()
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#books.log.push(error.message)
      return []
    }
  }

  async #rebuildAndSay(): Promise<string[]> {
    const { entries, foreign } = await this.#rebuild()
    this.#books.noteClean()
    const line = `restored ${counted(entries, 'block')} that the kernel did not have as they should be`
    const lines = [...(entries.length > 0 ? [line] : []), ...foreign]
    this.#books.log.push(...lines)
    return lines
  }

  /** Writes the books, then the kernel; see the class comment for what happens if that fails. */
  async #takeEffect(): Promise<void> {
    const never = this.#books.never.map((address) => address.text).join(' ')
    try {
      this.#books.commit()
      await this.#intoKernel(changeOf(this.#books, this.#before, never !== this.#books.usage.never))
      this.#before = this.#books.chains()
      this.#books.usage.never = never
      this.#books.settle()
      // Without a kernel that ends leases by itself, the sweeper needs to see what has ended.
      if (this.#backend.expires) this.#books.shrink()
    } catch (error) {
      this.#books.log.push(messageOf(error))
      this.#books.revert()
      throw error
    }
  }

  async #intoKernel(change: Change): Promise<void> {
    if (isNothing(change)) return
    const { chains, never } = change
    this.#books.usage.begin()
    try {
      await this.#backend.apply(change)
      if (never || chains.before !== chains.now) await this.#noteShape(chains.now)
    } catch (error) {
      if (codeOf(error) !== EXIT.temporary) throw error
      // Something of ours is missing, because another program flushed the rules, say.
      await this.#rebuildAndSay()
    }
  }

  async #rebuild() {
    const contents = this.#books.contents()
    this.#books.usage.begin()
    const foreign = (await this.#backend.rebuild(contents)).map(foreignText)
    this.#books.commit()
    this.#books.usage.never = contents.never.map((address) => address.text).join(' ')
    await this.#noteShape(contents.chains)
    return { ...contents, foreign }
  }

  /** What the kernel's part looks like after our own change, to see when another program changes it. */
  async #noteShape(chains: readonly Chain[]): Promise<void> {
    this.#books.usage.shape = await this.#shape(chains)
  }

  /** Tells what the kernel has, and for which chains that is right, from all else. */
  async #shape(chains: readonly Chain[]): Promise<string> {
    return shapeOf(`${await this.#backend.shape(chains)} ${JSON.stringify(chains)}`)
  }

  /** A kernel that counts to 24 days is told again every day how long a longer lease still runs. */
  #renewLong(): void {
    const { at, usage } = this.#books
    if (at - usage.renewed < 86_400) return
    this.#books.touchLong(at + this.#backend.longest - 2 * 86_400)
    usage.renewed = at
  }
}

function isOneOf(verbs: ReadonlySet<string>, request: Request | Failure): boolean {
  return !(request instanceof Failure) && verbs.has(request.verb)
}

/** True if exactly those entries are blocked; either is right about what is just ending. */
function isSame(blocks: ReadonlySet<string>, entries: readonly Entry[], at: number): boolean {
  const most = new Set<string>()
  for (const { jail, address, expires } of entries) {
    const block = `${chainName(jail)} ${address.text}`
    most.add(block)
    if (alive(expires, at + SLACK) && !blocks.has(block)) return false
  }
  return [...blocks].every((block) => most.has(block))
}

/** A change of the index alone: without what nobody needs in it any more. */
function reindexing(chains: readonly Chain[], index: readonly Entry[]): Change {
  const nothing = { enter: [], extend: [], leave: [], free: [], load: [] }
  return { chains: { before: chains, now: chains }, direct: directOf(chains), index, ...nothing }
}

function isNothing({ chains, never, index, ...lists }: Change): boolean {
  if (chains.before !== chains.now || never || index) return false
  return Object.values(lists).every((list) => !Array.isArray(list) || list.length === 0)
}

function counted(list: readonly unknown[], noun: string): string {
  return `${list.length} ${noun}${list.length === 1 ? '' : 's'}`
}
