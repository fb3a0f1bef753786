import { statSync } from 'node:fs'
import { messageOf } from '../failure.ts'
import type { Loaded } from '../settled.ts'

/** The configuration that a deliverer works with. */
export interface ConfigState {
  path: string
  /** When it was read, epoch seconds. */
  since: number
  /** Why the file as it is now is not taken; empty if it is the one that is in use. */
  error: string
}

/** Milliseconds that may pass between reading a configuration and watching it. */
const FRESH = 60_000

/** Notices when the configuration has changed. One that cannot be used changes nothing. */
export class ConfigWatch {
  readonly state: ConfigState
  readonly #load: () => Promise<Loaded>
  readonly #stateDir: string
  #stamp: string

  /** @param loaded what is in use, read a moment ago; @param load reads it again */
  constructor({ path, config }: Loaded, load: () => Promise<Loaded>) {
    this.#load = load
    this.#stateDir = config.state_dir
    // One that is so new may have been read before it was changed.
    const { mtimeMs = 0 } = statSync(path, { throwIfNoEntry: false }) ?? {}
    this.#stamp = Date.now() - mtimeMs < FRESH ? '' : stampOf(path)
    this.state = { path, since: Math.floor(Date.now() / 1000), error: '' }
  }

  /** True if the file is not the one that was looked at last. */
  get isChanged(): boolean {
    return stampOf(this.state.path) !== this.#stamp
  }

  /**
   * @param open makes something of it, which may show that it cannot be used
   * @returns what was made of it; undefined if it cannot be used: `state` says why
   */
  async read<T>(open: (loaded: Loaded) => Promise<T>): Promise<T | undefined> {
    // Before it is read: what changes meanwhile is read again.
    this.#stamp = stampOf(this.state.path)
    try {
      const loaded = await this.#load()
      if (loaded.config.state_dir !== this.#stateDir) {
        throw new Error('another state_dir needs a restart of f2b-deliver')
      }
      return await open(loaded)
    } catch (error) {
      this.state.error = messageOf(error).split('\n').join('; ')
      return undefined
    }
  }

  /** Says that what was read last is in use. */
  taken(): void {
    this.state.since = Math.floor(Date.now() / 1000)
    this.state.error = ''
  }
}

function stampOf(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
  return stat ? `${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs} ${stat.mode}` : ''
}
