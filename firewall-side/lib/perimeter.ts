import { isSingle } from '../../scripts/lib/address.ts'
import { codeOf, EXIT, type ExitCode, Failure, messageOf } from '../../scripts/lib/failure.ts'
import { alive, now } from '../../scripts/lib/lease.ts'
import { lock } from '../../scripts/lib/lock.ts'
import { type Backend, type Chain, type Change, directOf, type Entry, shapeOf } from './backend.ts'
import { Books, type Caller, type Plan, SLACK, Unread } from './books.ts'
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

/** What walks through every lease, and needs memory for it. */
const HEAVY: ReadonlySet<string> = new Set(['list', 'sync', 'flush', 'digest', 'check'])

/** What such a request does under the lock; the rest is done without it. */
type Begun = (request: Request) => string[] | Promise<string[]>

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

  /**
   * Performs requests in order, in one transaction, or one that may walk through every lease: what
   * takes long is done without the lock, and what is changed is changed in pieces.
   *
   * @returns an answer for each, in order
   */
  async perform(requests: (Request | Failure)[]): Promise<Answer[]> {
    const [request] = requests
    if (!request || request instanceof Failure || !isHeavy(request)) {
      return await this.#turn(requests, (each) => this.#request(each))
    }
    const heavy = await lock(`${this.#paths.run}/firewall.heavy.${this.#caller.owner}`)
    try {
      if (request.verb === 'check') this.#books.examine()
      else this.#books.study()
      return [await this.#heavy(request)]
    } finally {
      this.#books.news()
      heavy()
    }
  }

  async #heavy(request: Request): Promise<Answer> {
    const { verb, said } = request
    if (verb === 'sync' || verb === 'flush') return await this.#inPieces(request)
    const answer = await this.#only(request, true, (each) => this.#request(each))
    if (answer.code !== EXIT.done) return answer
    const { lines } = answer
    if (verb === 'list') return { ...answer, lines: this.#books.list(request.jail, said) }
    if (verb === 'blocked') return { ...answer, lines: this.#books.blocked(request.address) }
    if (verb === 'digest') return { ...answer, lines: [this.#books.digest(said)] }
    const restored = await this.#compare()
    return { ...answer, lines: [...lines, ...restored, ...this.#books.clock(said)] }
  }

  /**
   * Changes many leases: each piece in a turn and a transaction of its own, durable and in the kernel
   * like any other change. Killed in between, the next sync finds what is left to do.
   */
  async #inPieces(request: Request & { verb: 'sync' | 'flush' }): Promise<Answer> {
    const leases = request.verb === 'sync' ? request.leases.length : 0
    let plan: Plan | undefined
    let next = 0
    for (;;) {
      const from = next
      const answer = await this.#only(request, plan === undefined, async (each) => {
        if (!plan) await this.#request(each)
        if (!plan && !this.#books.isSmall(leases)) {
          this.#books.announce()
          return []
        }
        plan ??= this.#books.plan(request)
        next = this.#books.step(plan, from, this.#backend.atOnce)
        return plan.answer ?? []
      })
      if (answer.code !== EXIT.done || plan?.answer) {
        if (this.#books.isLarge) await this.#tryCompact()
        return answer
      }
      plan ??= this.#books.plan(request)
    }
  }

  /** Rewrites the ledger without what has ended; only the swap is done under the lock. */
  async #compact(): Promise<void> {
    const compact = this.#books.compacting()
    await this.#locked(async () => {
      // After a process that was killed, the next one has to see that before the books are saved.
      if (!this.#books.usage.unclean) compact()
    })
  }

  /** What was changed is in force; a ledger that cannot be rewritten now is left to the sweep. */
  async #tryCompact(): Promise<void> {
    try {
      await this.#compact()
    } catch (error) {
      if (!(error instanceof Failure)) throw error
    }
  }

  async #only(request: Request, isFirst: boolean, begun: Begun): Promise<Answer> {
    const [answer] = await this.#turn([request], begun, isFirst)
    return answer ?? { code: EXIT.done, lines: [], error: '' }
  }

  /** One transaction under the lock. @param isFirst false if the request was begun in an earlier one */
  async #turn(requests: (Request | Failure)[], begun: Begun, isFirst = true): Promise<Answer[]> {
    const changes = requests.some((request) => isOneOf(CHANGING, request))
    return await this.#locked(async () => {
      this.#mended = this.#books.usage.unclean ? await this.#tryRepair() : []
      const answers: Answer[] = []
      for (const request of requests) answers.push(await this.#answer(request, begun, isFirst))
      return await this.#conclude(answers)
    }, changes)
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
    this.#books.examine()
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
    this.#books.examine()
    const isKnown = await this.#locked(async () => {
      this.#books.mend()
      if (!this.#backend.expires) this.#books.touchEnded()
      this.#renewLong()
      await this.#takeEffect()
      return (await this.#repairShape()) === undefined
    })
    if (isKnown) await this.#compare()
    const { ended, isLarge } = this.#books
    if (isLarge || ended > (this.#backend.expires ? COMPACT_AT : 0)) await this.#compact()
  }

  /**
   * Runs something under the firewall's lock, with the books as they are on the disk. What needs no
   * lock is done while it is waited for. If it turns out that all of a large ledger has to be parsed,
   * that is done without the lock, and then everything anew.
   *
   * @param changes whether the kernel is likely to be told something, and the journal
   */
  async #locked<T>(work: () => Promise<T>, changes = false): Promise<T> {
    try {
      return await this.#lockedOnce(work, changes)
    } catch (error) {
      if (!(error instanceof Unread)) throw error
      this.#books.study()
      return await this.#lockedOnce(work, changes)
    }
  }

  async #lockedOnce<T>(work: () => Promise<T>, changes: boolean): Promise<T> {
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
      } catch (error) {
        if (error instanceof Unread) this.#books.discard()
        throw error
      } finally {
        this.#books.close()
        this.#backend.tool?.dismiss()
        release()
      }
    } finally {
      this.#backend.tool?.dismiss()
      this.#journal.write(this.#books.log.splice(0))
    }
  }

  async #answer(request: Request | Failure, begun: Begun, isFirst: boolean): Promise<Answer> {
    try {
      this.#books.usage.operation(this.#caller.owner, this.#books.at)
      if (request instanceof Failure) throw request
      this.#checkOrder(request, isFirst)
      return { code: EXIT.done, lines: await begun(request), error: '' }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return { code: error.code, lines: [], error: error.message }
    }
  }

  /** What has been on its way since before a newer session or command began is refused. */
  #checkOrder(request: Request, isFirst: boolean): void {
    if (request.verb === 'session') return
    if (this.session === undefined) {
      if (isFirst) this.#order.check(request)
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

  /** What is done under the lock; of what walks through every lease that is only the beginning. */
  async #request(request: Request): Promise<string[]> {
    if (request.verb === 'session') return this.#begin(request)
    if (request.verb === 'sync' || request.verb === 'digest') await this.#glance()
    if (isHeavy(request)) this.#books.ahead(request.said)
    else if (request.verb === 'blocked') return this.#books.blocked(request.address)
    if (request.verb === 'check') return await this.#check()
    if (request.verb === 'generation') return [this.#books.generation]
    if (request.verb === 'ban') this.#books.ban(request)
    if (request.verb === 'unban') this.#books.unban(request)
    return []
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
    const restored = await this.#repairShape()
    const counts = [`generation ${generation}`, `leases ${this.#books.leases}`]
    return [...counts, ...this.#mended, ...(restored ?? [])]
  }

  /** Whoever asks for a sync or a digest wants to know that the kernel is right: a look at its shape. */
  async #glance(): Promise<void> {
    const { at, usage } = this.#books
    if (Math.abs(at - this.#looked) < LOOK_EVERY) return
    this.#looked = at
    if ((await this.#shape(this.#before)) !== usage.shape) await this.#rebuildAndSay()
  }

  /** Builds our part anew if another program has changed its shape; else undefined. */
  async #repairShape(): Promise<string[] | undefined> {
    const { usage } = this.#books
    const shape = usage.shape !== undefined && (await this.#shape(this.#books.chains()))
    return shape === usage.shape ? undefined : await this.#rebuildAndSay()
  }

  /** Compares the kernel's own dump with the books, and builds our part anew if they differ. */
  async #repair(): Promise<string[]> {
    const restored = await this.#repairShape()
    if (restored) return restored
    const { differing, entries, isStale } = await this.#look()
    if (differing.size > 0) return await this.#rebuildAndSay()
    const chains = this.#books.chains()
    if (isStale) await this.#backend.apply(reindexing(chains, entries))
    return []
  }

  /** The same without the lock, which is taken only if something seems to be wrong. */
  async #compare(): Promise<string[]> {
    this.#books.watch()
    const { differing, isStale } = await this.#look()
    if (differing.size === 0 && !isStale) return []
    return await this.#locked(async () => {
      // What others have changed meanwhile the dump may or may not have had.
      for (const { jail, address } of this.#books.news()) differing.delete(blockOf(jail, address))
      return differing.size > 0 || isStale ? await this.#repair() : []
    })
  }

  /** Reads back what the kernel holds, and compares it with the books as they were before. */
  async #look() {
    const { at } = this.#books
    const { blocks, indexed } = await this.#backend.held(this.#books.chains())
    const { entries } = this.#books.contents(at - SLACK)
    const isStale = indexed > 2 * entries.length + STALE
    return { differing: differingIn(blocks, entries, now()), entries, isStale }
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
      const change = changeOf(this.#books, this.#before, never !== this.#books.usage.never)
      this.#books.commit()
      await this.#intoKernel(change)
      this.#before = this.#books.chains()
      this.#books.usage.never = never
      this.#books.settle()
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

function isHeavy(request: Request): boolean {
  return HEAVY.has(request.verb) || (request.verb === 'blocked' && !isSingle(request.address))
}

function isOneOf(verbs: ReadonlySet<string>, request: Request | Failure): boolean {
  return !(request instanceof Failure) && verbs.has(request.verb)
}

/** What is blocked and should not be, or the other way round; either is right about what is just ending. */
function differingIn(
  blocks: ReadonlySet<string>,
  entries: readonly Entry[],
  at: number,
): Set<string> {
  const differing = new Set(blocks)
  for (const { jail, address, expires } of entries) {
    const block = blockOf(jail, address.text)
    if (!differing.delete(block) && alive(expires, at + SLACK)) differing.add(block)
  }
  return differing
}

/** As `Held` says it. */
function blockOf(jail: string, address: string): string {
  return `${chainName(jail)} ${address}`
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
