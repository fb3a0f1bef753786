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
 * Takes the time of several things in turn, so that a busy moment of the machine hits all of them.
 *
 * @returns the median of each, in milliseconds
 */
export async function medians(
  rounds: number,
  things: ((round: number) => Promise<unknown>)[],
): Promise<number[]> {
  const times = things.map((): number[] => [])
  for (let round = 0; round < rounds; round++) {
    for (const [i, thing] of things.entries()) {
      const began = performance.now()
      await thing(round)
      times[i]?.push(performance.now() - began)
    }
  }
  return times.map((list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? Number.NaN)
}

export function ms(time: number): string {
  return `${time.toFixed(time < 10 ? 1 : 0)} ms`
}
