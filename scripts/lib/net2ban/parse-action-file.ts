import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import { resolveAction } from './action.ts'
import { type ActionFile, FILE, readAsIf } from './action-file.ts'

/**
 * Reads a text as if it stood in the directory as `<file>.conf`: what `update` does before it
 * installs one.
 *
 * @throws Failure 65 with the reason, if Fail2Ban could not use it or it bans nobody
 */
export function parseActionFile(file: string, text: string, directory: string): ActionFile {
  try {
    if (!FILE.test(file)) throw new Error('that is no name of an action file')
    const parsed = readAsIf(directory, file, text)
    const ban = resolveAction(parsed, {}).command('actionban', 'inet4')
    if (ban.trim() === '') throw new Error('it has no actionban')
    return parsed
  } catch (error) {
    throw new Failure(EXIT.input, `Cannot use action ${quote(file)}: ${messageOf(error)}`)
  }
}
