import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { ioFailure } from '../failure.ts'
import type { Line } from '../ledger.ts'

/**
 * What is being done at this moment: one lease line for each, whose end is `RELEASED` for an unban.
 *
 * A kill at any point leaves it to be read by the next process, since what was written is the
 * kernel's then. It is not forced to the disk: after a power cut everything is put back anyway.
 */
export class Intents {
  readonly #path: string
  readonly #fd: number

  /** @throws Failure 75 if it cannot be opened */
  constructor(path: string) {
    this.#path = path
    try {
      this.#fd = openSync(path, 'a', 0o600)
    } catch (error) {
      throw ioFailure(`open "${path}"`, error)
    }
  }

  /** What somebody who was killed had begun and not ended. */
  left(): Line[] {
    const lines = readFileSync(this.#path, 'utf8').split('\n').slice(0, -1)
    return lines.flatMap((raw) => {
      const [address, jail, expires, owner] = raw.split(' ')
      return address && jail && owner ? [{ address, jail, expires: Number(expires), owner }] : []
    })
  }

  /** @throws Failure 75 if it cannot be written; nothing may be done then */
  begin(lines: readonly Line[]): void {
    const text = lines.map((l) => `${l.address} ${l.jail} ${l.expires} ${l.owner}\n`).join('')
    try {
      writeSync(this.#fd, text)
    } catch (error) {
      this.end()
      throw ioFailure(`write "${this.#path}"`, error)
    }
  }

  end(): void {
    ftruncateSync(this.#fd, 0)
  }

  close(): void {
    closeSync(this.#fd)
  }
}
