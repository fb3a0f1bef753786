import { join } from 'node:path'
import { stampOf } from '../durable.ts'
import { type Action, resolveAction } from './action.ts'
import { type ActionFile, readActionFile } from './action-file.ts'

/** Nobody has so many jails with parameters of their own. */
const MOST = 1000

interface Known {
  source: ActionFile
  stamps: string
  actions: Map<string, Action>
}

/** The action files of a directory, read again when they change. */
export class Definitions {
  readonly #directory: string
  readonly #files = new Map<string, Known>()

  constructor(directory: string) {
    this.#directory = directory
  }

  /** @throws Failure 78 */
  file(file: string): ActionFile {
    return this.#known(file).source
  }

  /**
   * The same object for the same parameters, for as long as the file stays as it is.
   *
   * @throws Failure 78
   */
  action(file: string, params: Readonly<Record<string, string>>): Action {
    const { source, actions } = this.#known(file)
    const key = JSON.stringify(params)
    const known = actions.get(key)
    if (known) return known
    const action = resolveAction(source, params)
    if (actions.size >= MOST) actions.clear()
    actions.set(key, action)
    return action
  }

  #known(file: string): Known {
    const known = this.#files.get(file)
    if (known && this.#stamps(known.source) === known.stamps) return known
    const source = readActionFile(this.#directory, file)
    const fresh = { source, stamps: this.#stamps(source), actions: new Map<string, Action>() }
    this.#files.set(file, fresh)
    return fresh
  }

  /** A `.local` that appears later counts, too. */
  #stamps({ file, paths }: ActionFile): string {
    const local = join(this.#directory, `${file}.local`)
    return [...paths, local].map((path) => `${path} ${stampOf(path)}`).join('\n')
  }
}
