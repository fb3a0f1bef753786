/**
 * Whole seconds that an answer asks us to wait: `Retry-After` in seconds or as a date.
 *
 * @returns undefined if it does not say, or nothing that can be read
 */
export function readRetryAfter(text = '', now = Date.now()): number | undefined {
  const seconds = /^\d+$/.test(text) ? Number(text) : Math.ceil((Date.parse(text) - now) / 1000)
  return Number.isNaN(seconds) ? undefined : Math.max(seconds, 1)
}
