import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { replaceDurably } from '../durable.ts'
import { ioFailure } from '../failure.ts'
import { checkActionFile } from './actions.ts'

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
