import { accessSync, constants } from 'node:fs'
import { type Address, checkBannable, type MinPrefix } from '../address.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import { neverBan } from '../never.ts'
import type { ActionFiles } from './actions.ts'
import { isDynamic, isUsual, isVerdict, word } from './call.ts'
import { PATH } from './exec.ts'

/** What a shell runs although it is no file: a value must not be one of these either. */
const BUILTINS = new Set(
  `alias bg bind break builtin caller case cd chdir command compgen complete continue coproc declare
  dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi for function
  getopts hash help history if in jobs kill let local logout mapfile popd printf pushd pwd read
  readarray readonly return select set shift shopt source suspend test then time times trap true type
  typeset ulimit umask unalias unset until wait while`.split(/\s+/),
)

/** What the files' authors call Fail2Ban's own tables and sets. */
const OWN = /^(f2b|fail2ban)/

/**
 * Checks that every parameter sets a public `[Init]` tag of this very file. What the author wrote
 * there must be one plain word, so that the tag holds no command; and neither that word nor the
 * value may name a program, so that the tag names none. What blocks stays something that blocks, and
 * a table of Fail2Ban's own stays one: `table=filter` would have nftables.conf delete the node's.
 *
 * @param files asked only for parameters that not every jail may pass
 * @throws Failure 65; 78 or 75 as `ActionFiles`
 */
export async function checkPublic(
  file: string,
  params: Readonly<Record<string, string>>,
  files: Pick<ActionFiles, 'init'>,
): Promise<void> {
  const own = Object.entries(params).filter(([name]) => !isDynamic(name) && !isUsual(name))
  if (own.length === 0) return
  const init = new Map(Object.entries(await files.init(file)))
  for (const [name, value] of own) {
    const fixed = [init.get(name), init.get(`${name}?family=inet6`)]
    const defaults = fixed.filter((text) => text !== undefined)
    if (defaults.length === 0) throw refused(name, `${quote(file)} has no such [Init] tag`)
    if (!defaults.every(isWord)) throw refused(name, `in ${quote(file)} it is no plain word`)
    if ([...defaults, value].some(isProgram)) throw refused(name, 'that is the name of a program')
    if (defaults.some(isVerdict) && !isVerdict(value)) throw refused(name, 'it does not block')
    if (defaults.some((text) => OWN.test(text)) && !OWN.test(value)) {
      throw refused(name, 'what it names must begin with f2b, as in the file')
    }
  }
}

function refused(name: string, reason: string): Failure {
  return new Failure(EXIT.input, `Cannot set ${quote(name)}: ${reason}`)
}

function isWord(text: string): boolean {
  try {
    return word(text) === text
  } catch {
    return false
  }
}

function isProgram(name: string): boolean {
  return BUILTINS.has(name) || PATH.split(':').some((folder) => isExecutable(`${folder}/${name}`))
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** What may be banned on a node. */
export interface Limits {
  /** Addresses and ranges never to ban here, beside this machine's own. */
  neverBan?: readonly string[] | undefined
  /** The widest range; default /24 and /48. */
  minPrefix?: MinPrefix | undefined
}

/** The default of the whole project. */
const MIN_PREFIX = { ipv4: 24, ipv6: 48 }

/** Throws a Failure 65 for what must never be banned here. */
export type Check = (address: Address) => void

/** This machine's own addresses and gateways are read again after so many milliseconds. */
const FRESH = 10_000

/** What a node refuses: what is never banned anywhere, what would cut it off, what is configured. */
export function limitsOf({ neverBan: more = [], minPrefix = MIN_PREFIX }: Limits): Check {
  let never: Address[] = []
  let read = Number.NEGATIVE_INFINITY
  return (address) => {
    if (performance.now() - read > FRESH) {
      never = neverBan(more)
      read = performance.now()
    }
    try {
      checkBannable(address, never, minPrefix)
    } catch (error) {
      throw new Failure(EXIT.input, `Cannot ban "${address.text}": ${messageOf(error)}`)
    }
  }
}
