import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Tells this boot of the machine from every other: a word in /run, which is empty after each boot,
 * and the kernel's own boot id, for a machine that lets us write nothing there.
 *
 * @param known the word of the last time
 * @returns the same word if the machine was not rebooted since
 */
export function thisBoot(runDir: string, stateDir: string, known: string): string {
  const name = createHash('sha256').update(stateDir).digest('hex').slice(0, 12)
  const path = join(runDir, `net2ban.${name}`)
  const kernel = read('/proc/sys/kernel/random/boot_id')
  const word = read(path)
  if (word !== '' && word === known && word.startsWith(kernel)) return word
  const fresh = `${kernel} ${randomBytes(8).toString('hex')}`
  try {
    mkdirSync(runDir, { recursive: true, mode: 0o755 })
    writeFileSync(path, `${fresh}\n`, { mode: 0o600 })
    return fresh
  } catch {
    return kernel
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return ''
  }
}
