import { setTimeout as sleep } from 'node:timers/promises'

export interface WaitOptions {
  /** Milliseconds to wait in all, and between two looks. */
  timeout?: number
  every?: number
}

/** Waits until something is true. @throws Error `Waited 5000 ms in vain for ...` */
export async function waitUntil(
  what: string,
  check: () => boolean | Promise<boolean>,
  { timeout = 5000, every = 20 }: WaitOptions = {},
): Promise<void> {
  const end = performance.now() + timeout
  while (!(await check())) {
    if (performance.now() > end) throw new Error(`Waited ${timeout} ms in vain for ${what}`)
    await sleep(every)
  }
}
