import { isIP, type Socket } from 'node:net'
import { parseAddress } from '../address.ts'

const MAX_PER_SOURCE = 64

/** Keeps one source from taking every connection: hears of each new one, ends those above 64. */
export function limitPerSource(): (socket: Socket) => void {
  const open = new Map<string, number>()
  return (socket) => {
    const from = sourceOf(socket.remoteAddress)
    const count = (open.get(from) ?? 0) + 1
    open.set(from, count)
    if (count > MAX_PER_SOURCE) socket.destroy()
    socket.once('close', () => {
      const left = (open.get(from) ?? 1) - 1
      if (left > 0) open.set(from, left)
      else open.delete(from)
    })
  }
}

/** Who has one IPv6 address has a whole /64 of them. */
export function sourceOf(address = ''): string {
  const host = address.replace(/%.*/, '') // a link-local one comes with its interface
  if (isIP(host) === 0) return address // nobody is there any more
  const { text, family } = parseAddress(host)
  return family === 'inet6' ? parseAddress(`${text}/64`).text : text
}
