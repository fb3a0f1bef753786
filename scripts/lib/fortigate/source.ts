import { isIP, type Socket } from 'node:net'
import { parseAddress } from '../address.ts'

const MAX_PER_SOURCE = 64
const MAX_CONNECTIONS = 512

/**
 * Keeps connections from being used up: hears of each new one, and ends those of a source above 64.
 * Above 512 in all, the oldest one of the source that has most makes room: so several sources that
 * open what they may and say nothing keep no device out.
 */
export function limitConnections(): (socket: Socket) => void {
  const open = new Map<string, Set<Socket>>()
  let all = 0
  return (socket) => {
    const from = sourceOf(socket.remoteAddress)
    const own = open.get(from) ?? new Set()
    if (own.size >= MAX_PER_SOURCE) {
      socket.destroy()
      return
    }
    if (all >= MAX_CONNECTIONS) oldestOfMost(open)?.destroy()
    open.set(from, own.add(socket))
    all++
    socket.once('close', () => {
      all--
      own.delete(socket)
      if (own.size === 0) open.delete(from)
    })
  }
}

function oldestOfMost(open: Map<string, Set<Socket>>): Socket | undefined {
  let most = new Set<Socket>()
  for (const own of open.values()) if (own.size > most.size) most = own
  return [...most].find((socket) => !socket.destroyed)
}

/** Who has one IPv6 address has a whole /64 of them. */
export function sourceOf(address = ''): string {
  const host = address.replace(/%.*/, '') // a link-local one comes with its interface
  if (isIP(host) === 0) return address // nobody is there any more
  const { text, family } = parseAddress(host)
  return family === 'inet6' ? parseAddress(`${text}/64`).text : text
}
