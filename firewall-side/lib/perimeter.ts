import { codeOf, EXIT, type ExitCode, Failure, messageOf } from '../../scripts/lib/failure.ts'
import { lock } from '../../scripts/lib/lock.ts'
import type { Backend, Chain, Change } from './backend.ts'
import { Books, type Caller, SLACK } from './books.ts'
import { byJail, changeOf } from './change.ts'
import type { FirewallConfig } from './config.ts'
import { Journal } from './journal.ts'
import { neverHere } from './never.ts'
import type { Paths } from './paths.ts'
import type { Request } from './request.ts'

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
  readonly #journal = new Journal()
  /** The chains that the kernel has, as far as the books know. */
  #before = new Map<string, Chain>()

  constructor(config: FirewallConfig, paths: Paths, backend: Backend, caller: Caller) {
    this.#config = config
    this.#paths = paths
    this.#backend = backend
    this.#caller = caller
    this.#books = new Books(config, paths, caller)
  }

  /** Performs requests in order, in one transaction. @returns an answer for each, in order */
  async perform(requests: (Request | Failure)[]): Promise<Answer[]> {
    const work = async () => {
      const answers: Answer[] = []
      for (const request of requests) answers.push(await this.#answer(request))
      return await this.#conclude(answers)
    }
    return await this.#locked(work, requests.some(changesKernel))
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
      this.#books.settle()
    })
  }

  /** What a timer does every minute: ends what the kernel cannot end, renews, repairs, compacts. */
  async sweep(): Promise<void> {
    await this.#locked(async () => {
      if (!this.#backend.expires) this.#books.touchEnded()
      this.#renewLong()
      if (this.#before.size > 0 && !(await this.#backend.present())) {
        await this.#rebuild()
        this.#books.log.push('restored what somebody had removed from the kernel')
      }
      await this.#takeEffect()
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
      const locked = lock(`${this.#paths.run}/firewall.lock`)
      if (changes) this.#backend.tool?.start()
      if (changes) this.#journal.open()
      const never = neverHere(this.#config, this.#paths)
      const release = await locked
      try {
        this.#books.open(never)
        this.#before = byJail(this.#books.chains())
        return await work()
      } finally {
        this.#books.clear()
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
      return { code: EXIT.done, lines: await this.#request(request), error: '' }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return { code: error.code, lines: [], error: error.message }
    }
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
    if (request.verb === 'list') return this.#books.list(request.jail)
    if (request.verb === 'blocked') return this.#books.blocked(request.address)
    if (request.verb === 'sync') return [this.#books.sync(request)]
    if (request.verb === 'check') return await this.#check()
    if (request.verb === 'generation') return [this.#books.generation]
    if (request.verb === 'digest') return [this.#books.digest()]
    if (request.verb === 'ban') this.#books.ban(request)
    if (request.verb === 'unban') this.#books.unban(request)
    if (request.verb !== 'flush') return []
    const removed = this.#books.flush(request.jail, request.but)
    return request.but ? [`removed ${removed}`] : []
  }

  async #check(): Promise<string[]> {
    const { generation, needsSync, usage } = this.#books
    if (needsSync) {
      throw new Failure(
        EXIT.temporary,
        `lost generation: the firewall has a new, empty ledger (${generation}) and needs a sync`,
      )
    }
    if (!this.#backend.expires) this.#books.touchEnded()
    await this.#takeEffect()
    const restored = await this.#repair()
    return [`generation ${generation}`, `leases ${usage.leases(this.#caller.owner)}`, ...restored]
  }

  /** Compares the counts of books and kernel, and builds the kernel's part anew if they differ. */
  async #repair(): Promise<string[]> {
    const least = countPerJail(this.#books.contents(this.#books.at + SLACK).entries)
    const most = countPerJail(this.#books.contents(this.#books.at - SLACK).entries)
    const chains = this.#books.chains()
    const counts = await this.#backend.count(chains)
    const equal = chains.every(({ jail }) => {
      const count = counts?.get(jail) ?? -1
      return count >= (least.get(jail) ?? 0) && count <= (most.get(jail) ?? 0)
    })
    if (counts && equal) return []
    const { entries } = await this.#rebuild()
    if (entries.length === 0) return []
    const line = `restored ${counted(entries, 'block')} that the kernel did not have as they should be`
    this.#books.log.push(line)
    return [line]
  }

  /** Writes the books, then the kernel; see the class comment for what happens if that fails. */
  async #takeEffect(): Promise<void> {
    const never = this.#books.never.map((address) => address.text).join(' ')
    try {
      this.#books.commit()
      await this.#intoKernel(changeOf(this.#books, this.#before, never !== this.#books.usage.never))
      this.#before = byJail(this.#books.chains())
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
    try {
      await this.#backend.apply(change)
    } catch (error) {
      if (codeOf(error) !== EXIT.temporary) throw error
      // Something of ours is missing, because somebody flushed the rules, say.
      await this.#rebuild()
    }
  }

  async #rebuild() {
    const contents = this.#books.contents()
    await this.#backend.rebuild(contents)
    this.#books.commit()
    this.#books.usage.never = contents.never.map((address) => address.text).join(' ')
    return contents
  }

  /** A kernel that counts to 24 days is told again every day how long a longer lease still runs. */
  #renewLong(): void {
    const { at, usage } = this.#books
    if (at - usage.renewed < 86_400) return
    this.#books.touchLong(at + this.#backend.longest - 2 * 86_400)
    usage.renewed = at
  }
}

function changesKernel(request: Request | Failure): boolean {
  return !(request instanceof Failure) && CHANGING.has(request.verb)
}

function countPerJail(entries: { jail: string }[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { jail } of entries) counts.set(jail, (counts.get(jail) ?? 0) + 1)
  return counts
}

function counted(list: readonly unknown[], noun: string): string {
  return `${list.length} ${noun}${list.length === 1 ? '' : 's'}`
}
