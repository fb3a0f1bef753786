import { PROJECT } from '../lib/lab.ts'
import type { Machine } from '../lib/machine.ts'

/** One figure: what was measured, and against what. */
export interface Row {
  what: string
  /** As shown: `105 ms`, `5200 a second`. */
  ours: string
  other: string
  /** Ours to the other's; below the limit is good. */
  ratio: number
  /** Undefined where nothing was promised. */
  limit?: number
}

/** Prints rows as a table that lines up, each with what was promised. */
export function printRows(rows: Row[]): void {
  for (const { what, ours, other, ratio, limit } of rows) {
    const verdict =
      limit === undefined
        ? ''
        : ratio <= limit
          ? `  ok, at most ${limit}`
          : `  MISSED, at most ${limit}`
    const cells = [
      what.padEnd(58),
      ours.padStart(14),
      other.padStart(20),
      ratio.toFixed(2).padStart(7),
    ]
    process.stdout.write(`${cells.join('  ')}${verdict}\n`)
  }
}

/**
 * Takes the time of several commands in turn, on the machine itself, so that a busy moment hits all
 * of them. `{round}` in an argument becomes the number of the round.
 *
 * @returns the median of each, in milliseconds
 */
export async function medians(
  machine: Machine,
  rounds: number,
  commands: string[][],
): Promise<number[]> {
  const script = `${PROJECT}/test/lib/stopwatch.py`
  const args = [String(rounds), ...commands.map((command) => JSON.stringify(command))]
  const output = await machine.run(['python3', script, ...args], { timeout: 300_000 })
  return JSON.parse(output) as number[]
}

export function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

export function ms(time: number): string {
  return `${time.toFixed(time < 10 ? 1 : 0)} ms`
}
