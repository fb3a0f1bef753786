import { readFileSync } from 'node:fs'
import { replaceDurably } from '../durable.ts'
import { EXIT, Failure } from '../failure.ts'
import type { ActionFamily } from './actions.ts'
import { jailOf } from './call.ts'

/** What a node remembers of one jail beyond its leases. */
export interface Place {
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
  places: Place[]
}

/** The jails of a node, in a small file that is rewritten when one is started or stopped. */
export class Places {
  readonly #path: string
  readonly #all = new Map<string, Place>()
  boot: string

  /** @throws Failure 75 if the file is there and cannot be read, or is damaged */
  constructor(path: string) {
    this.#path = path
    const content = read(path)
    this.boot = content?.boot ?? ''
    for (const given of content?.places ?? []) {
      const place = { ...given, doubts: given.doubts ?? {} } // An earlier version wrote none.
      this.#all.set(jailOf(place.file, place.name), place)
    }
  }

  /** What is known of a jail; undefined if nothing is. */
  get(file: string, name: string): Place | undefined {
    return this.#all.get(jailOf(file, name))
  }

  /** Begins to remember a jail; `save` writes it. */
  add(file: string, name: string, params: Record<string, string>): Place {
    const place = { file, name, params, begun: false, started: [], unsettled: false, doubts: {} }
    this.#all.set(jailOf(file, name), place)
    return place
  }

  all(): Place[] {
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
