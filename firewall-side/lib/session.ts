import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import type { Answer } from './perimeter.ts'
import { isNoSync, LONGEST_LINE, parseLine, parseSyncLine, type Request } from './request.ts'

/** Nobody sends so many lines by mistake; whoever means it does not keep us busy. */
const UNREADABLE = 1000

/** A sync names more jails than a server may have only by mistake. */
const MOST_JAILS = 4096

/** A sync whose lines are still arriving. */
interface Incomplete {
  request: Request & { verb: 'sync' }
  missing: number
  failure: Failure | undefined
}

/**
 * Turns what arrives in a `firewall` session into requests. A request is handed out only when it is
 * complete: half a `sync` changes nothing. Memory stays bounded whatever arrives: an endless line
 * and the lines of a refused sync are thrown away as they come.
 */
export class Reader {
  readonly #maxLeases: number
  #rest = ''
  /** Discarding the remainder of a line that was too long. */
  #skipping = false
  #sync: Incomplete | undefined
  /** Jails that a sync has named, for a `flushrest` to leave alone. */
  #synced = new Set<string>()
  /** Something could not be read that may have named a jail. */
  #doubtful = false
  /** Lines since the last that could be read. */
  #unreadable = 0

  /** @param maxLeases a sync of more leases is refused before it is stored */
  constructor(maxLeases: number) {
    this.#maxLeases = maxLeases
  }

  /**
   * @returns what has become complete, in order; a Failure for a line that could not be read
   * @throws Failure 65 if nothing but such lines arrives
   */
  feed(chunk: string): (Request | Failure)[] {
    const done: (Request | Failure)[] = []
    const lines = (this.#rest + chunk).split('\n')
    this.#rest = lines.pop() ?? ''
    for (const line of lines) {
      if (this.#skipping) this.#skipping = false
      else this.#line(line, done)
    }
    if (this.#rest.length > LONGEST_LINE) {
      if (!this.#skipping) this.#line(this.#rest, done)
      this.#skipping = true
      this.#rest = ''
    }
    return done
  }

  #line(line: string, done: (Request | Failure)[]): void {
    try {
      if (this.#sync) this.#syncLine(this.#sync, line)
      else if (line.trim() !== '') this.#request(line, done)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      if (this.#sync) this.#sync.failure ??= error
      else {
        done.push(error)
        if (!isNoSync(line)) this.#doubtful = true
      }
      if (++this.#unreadable > UNREADABLE) {
        throw new Failure(EXIT.input, `Cannot read this session: ${UNREADABLE} bad lines in a row`)
      }
    }
    if (this.#sync?.missing === 0) {
      done.push(this.#sync.failure ?? this.#sync.request)
      this.#sync = undefined
    }
  }

  #request(line: string, done: (Request | Failure)[]): void {
    const request = parseLine(line)
    this.#unreadable = 0
    if (request.verb === 'flush' && request.but) request.but = this.#named()
    if (request.verb !== 'sync') {
      done.push(request)
      return
    }
    // Also one that is refused: what the server could not say about a jail must not free anybody.
    if (this.#synced.size < MOST_JAILS) this.#synced.add(request.jail)
    else this.#doubtful = true
    const missing = request.count ?? 0
    this.#sync = { request, missing, failure: undefined }
    if (missing > this.#maxLeases) {
      throw new Failure(
        EXIT.refused,
        `max_leases ${this.#maxLeases} reached: the sync has ${missing}`,
      )
    }
  }

  /** @throws Failure 65 if it is not sure that these are all */
  #named(): ReadonlySet<string> {
    const [named, doubtful] = [this.#synced, this.#doubtful]
    // What comes next is another sync of everything.
    this.#synced = new Set()
    this.#doubtful = false
    if (!doubtful) return named
    throw new Failure(EXIT.input, 'Cannot flush the rest: not all of this session could be read')
  }

  #syncLine(sync: Incomplete, line: string): void {
    sync.missing--
    if (!sync.failure) {
      sync.request.leases.push(parseSyncLine(line, sync.request.jail))
    }
  }
}

/**
 * Cuts requests into turns, so that what others ask comes in between: bans and unbans are quick and
 * share a transaction; all else may walk through every lease and is a turn of its own.
 */
export function turnsOf(requests: (Request | Failure)[]): (Request | Failure)[][] {
  const turns: (Request | Failure)[][] = []
  let open = false
  for (const request of requests) {
    const quick = request instanceof Failure || request.verb === 'ban' || request.verb === 'unban'
    if (quick && open) turns.at(-1)?.push(request)
    else turns.push([request])
    open = quick
  }
  return turns
}

/**
 * An answer as a `firewall` session gives it: the lines, then `ok` or `error <code> <text>`. The one to
 * `session` begins with what the server said, `@<milliseconds>`: what stands before it on the same
 * channel was a greeting of somebody else's.
 */
export function answerText(request: Request | Failure, answer: Answer): string {
  const isFirst = !(request instanceof Failure) && request.verb === 'session' && request.said
  const mark = isFirst ? `@${request.said?.at}\n` : ''
  if (answer.code !== EXIT.done) return `${mark}error ${answer.code} ${answer.error}\n`
  const counts =
    !(request instanceof Failure) &&
    (request.verb === 'sync' || (request.verb === 'flush' && request.but !== undefined))
  if (counts) return `ok ${answer.lines.join(' ')}\n`
  return mark + [...answer.lines, 'ok', ''].join('\n')
}
