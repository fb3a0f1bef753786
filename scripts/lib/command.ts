import { type ParseArgsConfig, parseArgs } from 'node:util'
import manifest from '../../package.json' with { type: 'json' }
import { codeOf, EXIT, EXIT_TABLE, Failure, ioFailure, messageOf } from './failure.ts'
import { quote } from './lease.ts'
import { print } from './print.ts'

export type Options = NonNullable<ParseArgsConfig['options']>
export type Values = Record<string, string | boolean | (string | boolean)[] | undefined>

export interface Command {
  /** What messages begin with. */
  name: string
  /**
   * Everything that `--help` prints, but for the common options and the exit codes. What depends on
   * the word before it can be had by `help WORD`, too.
   */
  help: string | ((words: string[]) => string)
  options: Options
  run(positionals: string[], values: Values): Promise<void>
}

const COMMON: Options = {
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
  verbose: { type: 'boolean', short: 'v' },
}

const COMMON_HELP = `  -v, --verbose     say what is done, and the stack of a bug
  -h, --help        this text
      --version     the version`

/**
 * Runs a script: reads its arguments, prints help, and is the one place where errors end. Success
 * is silent; a failure is one line on standard error (a configuration has one per problem).
 */
export async function main(command: Command): Promise<void> {
  const options = { ...command.options, ...COMMON }
  let verbose = false
  try {
    const { positionals, values } = read(process.argv.slice(2), options)
    verbose = values.verbose === true
    const help = helpFor(command, positionals, values)
    if (help !== undefined) print(`${help.trim()}\n${COMMON_HELP}\n\n${EXIT_TABLE}\n`)
    else if (values.version) print(`${manifest.version}\n`)
    else await command.run(positionals, values)
  } catch (thrown) {
    const error = explained(thrown)
    process.exitCode = codeOf(error)
    for (const line of linesOf(error, verbose)) process.stderr.write(`${command.name}: ${line}\n`)
  }
}

/** @throws Failure 64, with a hint where to read on */
export function usageFailure(message: string): Failure {
  return new Failure(EXIT.usage, `${message}: see --help`)
}

/**
 * For a word that is none of the known ones: says which was meant, or which there are.
 *
 * @param what the word stands for, as in `verb`
 * @throws Failure 64
 */
export function unknownWord(what: string, word: string, known: readonly string[]): Failure {
  const list = known.length > 0 ? ` (one of ${known.join(', ')})` : ''
  return usageFailure(`Unknown ${what} ${quote(word)}${meant(word, known) || list}`)
}

/** For a command that takes no words, or no more. @throws Failure 64 if there is one */
export function noWords([word]: string[]): void {
  if (word !== undefined) throw usageFailure(`One word too many ${quote(word)}`)
}

/** What the system refuses a plain user is no bug: root would have been let. */
export function explained(error: unknown): unknown {
  if (!(error instanceof Error) || process.getuid?.() === 0) return error
  const { code, syscall, path } = (error.cause ?? error) as NodeJS.ErrnoException
  if (code !== 'EACCES') return error
  const known = error instanceof Failure ? error : ioFailure(`${syscall} "${path}"`, error)
  return new Failure(known.code, `${known.message}, are you root?`)
}

/** The value of a text option. */
export function textOption(values: Values, name: string): string | undefined {
  const value = values[name]
  return typeof value === 'string' ? value : undefined
}

function helpFor({ help }: Command, words: string[], values: Values): string | undefined {
  if (typeof help === 'string') return values.help ? help : undefined
  if (words[0] === 'help') return help(words.slice(1))
  return values.help ? help(words) : undefined
}

function read(argv: string[], options: Options) {
  // Nothing to read for the firewall's program: looking for it costs a millisecond.
  if (argv.length === 0) return { positionals: [], values: {} as Values }
  try {
    return parseArgs({ args: joinValues(argv, options), options, allowPositionals: true })
  } catch (error) {
    const text = messageOf(error).split(/[.:] /)[0] ?? 'Cannot read the options'
    const [, unknown] = /^Unknown option '(--.*)'$/.exec(text) ?? []
    const known = Object.keys(options).map((name) => `--${name}`)
    throw usageFailure(unknown ? text + meant(unknown, known) : text)
  }
}

/** `, did you mean "ban"?` if something of that kind is near; else nothing. */
function meant(word: string, known: readonly string[]): string {
  const most = Math.ceil(word.replace(/^--/, '').length / 4)
  const near = known
    .map((one) => ({
      one,
      mistakes: word !== '' && one.startsWith(word) ? 0 : mistakes(word, one),
    }))
    .filter((one) => one.mistakes <= most)
    .sort((a, b) => a.mistakes - b.mistakes)
  return near[0] ? `, did you mean "${near[0].one}"?` : ''
}

/** How many letters are missing, too many, wrong or changed places with the next one. */
function mistakes(a: string, b: string): number {
  let [older, old] = [[] as number[], Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const wrong = (old[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? older[j - 2] : undefined
      row.push(Math.min(wrong, (swapped ?? Infinity) + 1, (old[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1))
    }
    ;[older, old] = [old, row]
  }
  return old[b.length] ?? 0
}

/** `--bantime -1` becomes `--bantime=-1`: a value may begin with a dash, and is never an option. */
function joinValues(argv: string[], options: Options): string[] {
  const joined: string[] = []
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? ''
    const next = argv[i + 1]
    if (word === '--') return [...joined, ...argv.slice(i)]
    const takesValue = word.startsWith('--') && options[word.slice(2)]?.type === 'string'
    if (takesValue && next !== undefined) {
      joined.push(`${word}=${next}`)
      i++
    } else {
      joined.push(word)
    }
  }
  return joined
}

function linesOf(error: unknown, verbose: boolean): string[] {
  if (verbose && error instanceof Error && !(error instanceof Failure)) return [String(error.stack)]
  const lines = messageOf(error).split('\n')
  if (codeOf(error) === EXIT.config) return lines.map(plain)
  const line = plain(lines.join(' '))
  if (error instanceof Failure) return [line]
  return [`Bug, please report it: ${line} (--verbose shows where)`]
}

/** What another program or machine said may have codes in it that a terminal or log obeys. */
function plain(line: string): string {
  return line.replace(/\p{Cc}+/gu, ' ')
}
