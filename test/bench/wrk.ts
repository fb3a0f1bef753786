import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { run } from '../../scripts/lib/run.ts'

/** What a server did under load. */
export interface Load {
  perSecond: number
  /** Milliseconds. */
  p99: number
  /** Processor time of the server for each answer, user and system, in milliseconds. */
  cpu: number
}

export interface Asked {
  pid: number
  url: URL
  headers: string[]
  /** A new connection for each request, as devices poll; else they are kept open. */
  closing: boolean
}

/** As many as one source may have open at a device's usual poll, and enough to keep a server busy. */
export const WIDTH = 8
const TICK_MS = 10

/**
 * Asks for one thing again and again with wrk, which parses HTTP in C and so takes less of the
 * machine than any client of ours would.
 *
 * @throws Error if one answer was an error or a connection broke
 */
export async function load(asked: Asked, seconds: number): Promise<Load> {
  const headers = [...asked.headers, ...(asked.closing ? ['Connection: close'] : [])]
  const args = ['-t1', `-c${WIDTH}`, `-d${seconds}s`, '-s', resolve('test/bench/wrk.lua')]
  const before = cpuTime(asked.pid)
  const { stdout, stderr } = await run('wrk', [
    ...args,
    ...headers.flatMap((header) => ['-H', header]),
    asked.url.href,
  ])
  const spent = cpuTime(asked.pid) - before
  const json = stdout.split('\n').find((line) => line.startsWith('{'))
  if (json === undefined) throw new Error(`wrk: ${stderr}${stdout}`)
  const { requests, micros, p99, errors } = JSON.parse(json) as Record<string, number>
  if (!requests || !micros || p99 === undefined || errors) throw new Error(`wrk: ${json}`)
  return { perSecond: requests / (micros / 1e6), p99: p99 / 1000, cpu: spent / requests }
}

/** What a process has taken of the processors so far, all threads, in milliseconds: proc(5). */
function cpuTime(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}

/** The one in the middle of several runs, by requests a second. */
export function median(loads: Load[]): Load {
  const sorted = [...loads].sort((a, b) => a.perSecond - b.perSecond)
  return sorted[sorted.length >> 1] ?? { perSecond: Number.NaN, p99: Number.NaN, cpu: Number.NaN }
}
