import { setTimeout as sleep } from 'node:timers/promises'

export interface WaitOptions {
  /** Milliseconds to wait in all, and between the first looks. */
  timeout?: number
  every?: number
}

/**
 * Waits until something is true: a busy machine may take its time, and only what fails waits to the
 * end. It looks less often the longer it has waited, for a look may start processes. @throws Error `Waited 60000 ms in vain for ...`
 */
export async function waitUntil(
  what: string,
  check: () => boolean | Promise<boolean>,
  { timeout = 60_000, every = 20 }: WaitOptions = {},
): Promise<void> {
  const begun = performance.now()
  while (!(await check())) {
    const waited = performance.now() - begun
    if (waited > timeout) throw new Error(`Waited ${timeout} ms in vain for ${what}`)
    await sleep(Math.max(every, Math.min(waited / 8, 1000)))
  }
}

/** Waits for some work, but no longer than until the signal: it then throws the signal's reason. */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const stop = new AbortController()
  const aborted = new Promise<never>((_, reject) => {
    const options = { once: true, signal: stop.signal }
    signal.addEventListener('abort', () => reject(signal.reason), options)
    if (signal.aborted) reject(signal.reason)
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    stop.abort()
    work.catch(() => {}) // It fails when what it stands on is taken away.
  }
}
