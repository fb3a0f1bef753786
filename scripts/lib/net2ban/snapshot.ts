import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { appendDurably, readFinished } from '../durable.ts'
import { EXIT, Failure } from '../failure.ts'
import { formatLease, type Lease, parseLease } from '../lease.ts'
import type { Claims, Order } from './message.ts'

/** Sealed, a message grows by a third: so many bytes of leases leave room for the rest of it. */
const CHUNK = 40_000

type SyncOrder = Extract<Order, { cmd: 'sync' }>
type SyncClaims = Extract<Claims, { cmd: 'sync' }>

/** What a snapshot says about one jail. */
export interface Snapshot {
  file: string
  name: string
  /** Of the last `actionstart`, as far as they are known. */
  params: Readonly<Record<string, string>>
  leases: readonly Lease[]
}

/** A snapshot as messages, each below the size that a message may have. */
export function split({ file, name, params, leases }: Snapshot): SyncOrder[] {
  const chunks: string[] = []
  let chunk = ''
  for (const lease of leases) {
    const line = `${formatLease({ ...lease, jail: name })}\n`
    if (chunk.length + line.length > CHUNK) {
      chunks.push(chunk)
      chunk = ''
    }
    chunk += line
  }
  chunks.push(chunk)
  const common = { cmd: 'sync' as const, file, name, params: { ...params }, snapshot: randomUUID() }
  return chunks.map((content, i) => ({ ...common, part: i + 1, parts: chunks.length, content }))
}

/** The leases of a complete snapshot. @throws Failure 65 */
export function leasesOf(content: string): Lease[] {
  const lines = content.split('\n').filter(Boolean)
  return lines.map((line) => parseLease(line, line.split(' ')[3] ?? ''))
}

/**
 * Collects the parts of snapshots on disk: what was put here may be acknowledged, and nothing of a
 * snapshot takes effect before all of it is here.
 */
export class Parts {
  readonly #folder: string

  /** @param keep seconds; what is older will never be complete */
  constructor(folder: string, keep: number) {
    this.#folder = folder
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    for (const name of readdirSync(folder)) {
      const path = join(folder, name)
      if (Date.now() - statSync(path).mtimeMs > keep * 1000) rmSync(path, { force: true })
    }
  }

  /**
   * Puts a part to the others.
   *
   * @returns the whole content once it is complete
   * @throws Failure 75 if it cannot be written, 65 if the parts do not belong together
   */
  add({ snapshot, part, parts, content }: SyncClaims): string | undefined {
    if (part < 1 || part > parts) throw new Failure(EXIT.input, 'no such part of a snapshot')
    if (parts === 1) return content
    appendDurably(this.#path(snapshot), Buffer.from(`${JSON.stringify({ part, content })}\n`))
    const all = new Map<number, string>()
    const size = statSync(this.#path(snapshot)).size
    // Not before it could be complete: reading all of it for each part would take for ever.
    if (size < (parts - 1) * (CHUNK / 2)) return undefined
    for (const line of readFinished(this.#path(snapshot)).toString('utf8').split('\n')) {
      if (line === '') continue
      const one = JSON.parse(line) as { part: number; content: string }
      all.set(one.part, one.content)
    }
    if (all.size < parts) return undefined
    return Array.from({ length: parts }, (_, i) => all.get(i + 1)).join('')
  }

  /** Forgets a snapshot, because it has taken effect or never will. */
  remove(snapshot: string): void {
    if (existsSync(this.#path(snapshot))) rmSync(this.#path(snapshot))
  }

  #path(snapshot: string): string {
    return join(this.#folder, `${snapshot}.parts`)
  }
}
