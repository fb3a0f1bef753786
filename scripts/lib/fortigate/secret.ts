import { timingSafeEqual } from 'node:crypto'

/** Whatever is shorter is compared as if it were so long, in bytes. */
const ROOM = 512

/** Compares in constant time, whatever the lengths. */
export function sameSecret(given: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(wanted)]
  const room = Math.max(ROOM, a.length, b.length)
  return timingSafeEqual(padded(a, room), padded(b, room)) && a.length === b.length
}

function padded(bytes: Buffer, room: number): Buffer {
  return Buffer.concat([bytes], room)
}
