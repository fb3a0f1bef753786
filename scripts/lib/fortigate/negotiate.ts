import type { IncomingHttpHeaders } from 'node:http'
import { now } from '../lease.ts'

/**
 * The list may change again within the second that is the present one. Until it is over, the time
 * before is given, so that nobody who asks by time alone is told "unchanged" about the second change.
 */
export function lastModified(modified: number): number {
  return Math.min(modified, now() - 1)
}

/** If-None-Match decides if it is there (RFC 9110, 13.1.3), else If-Modified-Since. */
export function isUnchanged(headers: IncomingHttpHeaders, etag: string, modified: number): boolean {
  const tags = headers['if-none-match']
  if (tags !== undefined) {
    return tags.split(',').some((tag) => ['*', etag].includes(tag.trim().replace(/^W\//, '')))
  }
  const since = Date.parse(headers['if-modified-since'] ?? '')
  return modified * 1000 <= since
}

/** `gzip` or `*` with a weight above zero. */
export function wantsGzip(header: string | string[] | undefined): boolean {
  return String(header ?? '')
    .split(',')
    .some((item) => /^\s*(x-)?gzip\s*(;\s*q=(1|0?\.0*[1-9]).*)?$/i.test(item))
}
