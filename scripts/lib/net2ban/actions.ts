import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import program from '#actions.py'
import { replaceDurably, stampOf } from '../durable.ts'
import { pythonOf } from '../fail2ban.ts'
import { EXIT, Failure, ioFailure } from '../failure.ts'
import { quote } from '../lease.ts'
import { run } from '../run.ts'
import { fillBan, type Tags } from './ban-tags.ts'
import { type ActionName, FILE } from './call.ts'

/** Fail2Ban's word for a family; empty where an action makes no difference. */
export type ActionFamily = 'inet4' | 'inet6' | ''

/** An action file with the parameters of one jail, as Fail2Ban's own code has resolved it. */
export interface Action {
  /** The families that `actionstart` starts. */
  readonly families: readonly ActionFamily[]
  /** True if a family is started by its first ban. */
  readonly onDemand: boolean
  /** Seconds until a command is killed. */
  readonly timeout: number
  /** True if a ban tells when it ends. */
  readonly timed: boolean
  /** The shell text of an action; empty if there is nothing to do. */
  command(action: ActionName, family: ActionFamily, ban?: Tags): string
}

type Params = Readonly<Record<string, string>>

/** What `[Init]` says, before anything is put in the place of a tag. */
export type Init = Readonly<Record<string, string>>

interface Wanted {
  file: string
  params: Params
  /** Of a file that is to be. */
  text?: string
}

/** What actions.py answers; without an `error` all of it. */
interface Answer {
  error?: string
  init: Init
  /** Every file that was read. */
  paths: string[]
  /** By action and family. */
  commands?: Record<string, string>
  families?: ActionFamily[]
  onDemand?: boolean
  timeout?: number
}

/** An action that this node cannot run until an operator installs or allows something. */
export class Unmet extends Failure {}

/** Jails with parameters of their own, at most; an answer is some kilobytes. */
const MOST = 1000

/** Seconds; more than Fail2Ban lets any command run, so a typing error. */
const LONGEST = 3600
const TIMEOUT = 60

/** Milliseconds until an answer is given up: a busy machine may take ten seconds to start Python. */
const PATIENCE = 60_000

interface Known {
  paths: readonly string[]
  stamps: string
  init: Init
  actions: Map<string, Action | Failure>
}

/** The action files of a folder, resolved once for each jail's parameters until one changes. */
export class ActionFiles {
  readonly #folder: string
  readonly #files = new Map<string, Known>()

  constructor(folder: string) {
    this.#folder = folder
  }

  /**
   * The same object for the same parameters, for as long as the file stays as it is.
   *
   * @throws Failure 78 if Fail2Ban could not use it, 75 if it cannot be asked
   */
  async action(file: string, params: Params): Promise<Action> {
    if (!this.#found(file, params)) await this.prepare([{ file, params }])
    const found = this.#found(file, params)
    if (found && !(found instanceof Failure)) return found
    throw found ?? new Failure(EXIT.temporary, `Cannot use ${quote(file)}: it changes just now`)
  }

  /** The `[Init]` tags; those of a family are called `tag?family=inet6`. @throws as `action` */
  async init(file: string): Promise<Init> {
    const known = this.#known(file)
    if (known) return known.init
    await this.action(file, { name: 'default' })
    return this.#known(file)?.init ?? {}
  }

  /** Resolves what many jails need at once: to start Python takes longest. @throws as `action` */
  async prepare(jails: readonly { file: string; params: Params }[]): Promise<void> {
    const wanted = jails.filter(({ file, params }) => !this.#found(file, params))
    if (wanted.length === 0) return
    const answers = await ask(this.#folder, wanted)
    for (const [i, answer] of answers.entries()) {
      const { file, params } = wanted[i] as Wanted
      const known = this.#known(file) ?? this.#remember(file, answer)
      if (known.actions.size >= MOST) known.actions.clear()
      known.actions.set(JSON.stringify(params), actionOf(file, answer))
    }
  }

  #found(file: string, params: Params): Action | Failure | undefined {
    return this.#known(file)?.actions.get(JSON.stringify(params))
  }

  #known(file: string): Known | undefined {
    const known = this.#files.get(file)
    if (known && stampsOf(known.paths) === known.stamps) return known
    this.#files.delete(file)
    return undefined
  }

  #remember(file: string, { init, paths: read }: Answer): Known {
    // A `.local` that appears later counts, too; of a file that is missing, the file itself.
    const paths = [...read, `${this.#folder}/${file}.conf`].flatMap((path) => [
      path,
      path.replace(/\.conf$/, '.local'),
    ])
    const known = { paths, stamps: stampsOf(paths), init, actions: new Map() }
    this.#files.set(file, known)
    return known
  }
}

/**
 * Looks whether a text could be a node's action file: what `update` does before it installs one.
 *
 * @throws Failure 65 with the reason, if Fail2Ban could not use it or it has no ban; Unmet where
 *   there is no Fail2Ban to say so
 */
export async function checkActionFile(file: string, text: string, folder: string): Promise<void> {
  const refused = (why: string) => {
    return new Failure(EXIT.input, `Cannot use action ${quote(file)}: ${why}`)
  }
  if (!FILE.test(file)) throw refused('that is no name of an action file')
  const [answer] = await ask(folder, [{ file, params: { name: 'default' }, text }])
  if (!answer?.commands) throw refused(answer?.error ?? 'Fail2Ban says nothing of it')
  if (!answer.commands['actionban inet4']?.trim()) throw refused('it has no actionban')
}

async function ask(folder: string, wanted: readonly Wanted[]): Promise<Answer[]> {
  const names = [...new Set(wanted.map(({ file }) => file))].join(', ')
  const input = JSON.stringify({ folder, wanted })
  const signal = AbortSignal.timeout(PATIENCE)
  // -s, -B: no modules of a person's own, and nothing is written beside Fail2Ban's.
  const python = pythonOf('fail2ban-client')
  const { code, stdout, stderr } = await run(python, ['-sBc', program], { input, signal })
  if (code === 127) throw unmet(names, `there is no "${python}"`)
  if (code === 0 && stdout.startsWith('{')) {
    throw unmet(names, `"${python}" has no Fail2Ban (${JSON.parse(stdout).missing})`)
  }
  if (code === 0) return JSON.parse(stdout)
  const [why = `exit code ${code}`] = stderr.trim().split('\n').slice(-1).filter(Boolean)
  const reason = signal.aborted ? 'Python does not answer in time' : why
  throw new Failure(EXIT.temporary, `Cannot resolve action "${names}": ${reason}`)
}

function unmet(file: string, why: string): Unmet {
  return new Unmet(EXIT.temporary, `Cannot use ${file}: ${why}, install Fail2Ban`)
}

function actionOf(file: string, answer: Answer): Action | Failure {
  const { error, commands = {}, families = [], onDemand = false, timeout = 0 } = answer
  if (error !== undefined) {
    return new Failure(EXIT.config, `Cannot use action ${quote(file)}: ${error}`)
  }
  return {
    families,
    onDemand,
    timeout: timeout > 0 && timeout <= LONGEST ? timeout : TIMEOUT,
    timed: /<(bantime|time)>/.test(commands['actionban inet4'] ?? ''),
    command(action, family, ban = new Map()) {
      return fillBan(commands[`${action} ${family}`] ?? '', new Map([['family', family], ...ban]))
    },
  }
}

function stampsOf(paths: readonly string[]): string {
  return paths.map((path) => `${path} ${stampOf(path)}`).join('\n')
}

/**
 * Puts an action file in place, once it has been parsed; the previous version is kept beside it as
 * `<file>.conf.previous`.
 *
 * @throws Failure 65 if it cannot be parsed, 75 if it cannot be written
 */
export async function installAction(directory: string, file: string, content: string) {
  await checkActionFile(file, content, directory)
  const path = join(directory, `${file}.conf`)
  if (existsSync(path)) replaceDurably(`${path}.previous`, read(path), 0o644)
  replaceDurably(path, content, 0o644)
}

function read(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw ioFailure(`read "${path}"`, error)
  }
}
