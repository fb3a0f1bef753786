/** Runs work after all that came before it; what fails holds up nothing. */
export type InTurn = <T>(work: () => T | Promise<T>) => Promise<T>

/**
 * Makes a line in which one piece of work waits for another. The next one begins when the promise of
 * the one before settles: what need not be waited for is wrapped in an object.
 */
export function inTurn(): InTurn {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const result = last.then(work)
    last = result.catch(() => {})
    return result
  }
}
