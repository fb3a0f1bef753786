import { setTimeout as sleep } from 'node:timers/promises'
import type { Machine } from '../../lib/machine.ts'
import { connect, type Probe, probe } from '../../lib/traffic.ts'
import { waitUntil } from '../../lib/wait.ts'
import { way } from './scene.ts'

/** Milliseconds between two connections of a probe: no moment is known better than that. */
const EVERY = 10

export function now(): number {
  return performance.timeOrigin + performance.now()
}

/** Tries to connect all the time, from one address to one machine. */
export function hammer(from: Machine, source: string, to: Machine): Promise<Probe> {
  return probe(from, { ...way(source, to), everyMs: EVERY })
}

/** Waits until connections from an address end in silence: dropped, not refused. */
export function silence(from: Machine, source: string, to: Machine): Promise<void> {
  const target = { ...way(source, to), timeoutMs: 100 }
  const isSilent = async () => (await connect(from, target)) === 'silent'
  return waitUntil(`packets of ${source} to be dropped`, isSilent, { timeout: 15_000 })
}

/** Waits until an address gets through again. */
export async function passage(from: Machine, source: string, to: Machine): Promise<void> {
  const target = { ...way(source, to), timeoutMs: 100 }
  const isThrough = async () => (await connect(from, target)) === 'reached'
  await waitUntil(`packets of ${source} to pass`, isThrough, { timeout: 15_000 })
  await sleep(200) // A probe beside it shall see that, too.
}

/** When the first packet was dropped: the one after the last that got through. */
export function firstDropped(answered: readonly number[]): number {
  return (answered.at(-1) ?? Number.NaN) + EVERY
}

/** When an address was blocked: from the first dropped packet to the first that passed again. */
export function longestBlock(answered: readonly number[]): { from: number; to: number } {
  const blocks = answered
    .slice(1)
    .map((to, index) => ({ from: (answered[index] ?? to) + EVERY, to }))
  const length = ({ from, to }: { from: number; to: number }) => to - from
  return blocks.sort((a, b) => length(b) - length(a))[0] ?? { from: Number.NaN, to: Number.NaN }
}

/** A line of a log, as soon as it is written. */
export interface LogLine {
  text: string
  at: number
}

/** Waits for lines to be written to a file. */
export interface Follower {
  /** @returns the n-th line that contains all these words, the first being 1 */
  line(words: readonly string[], n?: number): Promise<LogLine>
}

/** Follows a log, from its beginning. */
export async function follow(machine: Machine, path: string): Promise<Follower> {
  const lines: LogLine[] = []
  const onLine = (text: string) => void lines.push({ text, at: now() })
  // The first line says that it runs.
  await machine.spawn(['tail', '-s', '0.01', '-n', '+1', '-F', path], { onLine })
  return {
    async line(words, n = 1) {
      let found: LogLine | undefined
      await waitUntil(`"${words.join(' ')}" in ${path}`, seen, { timeout: 15_000, every: 10 })
      function seen(): boolean {
        const all = lines.filter(({ text }) => words.every((word) => text.includes(word)))
        found = all[n - 1]
        return found !== undefined
      }
      return found ?? { text: '', at: Number.NaN }
    },
  }
}
