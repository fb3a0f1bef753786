import type { IncomingMessage } from 'node:http'
import { isIP, type Socket } from 'node:net'
import { type Address, canonicalAddress, overlaps, parseAddress } from '../address.ts'

const MAX_PER_SOURCE = 64
const MAX_CONNECTIONS = 512

/**
 * Keeps connections from being used up: hears of each new one, and ends those of a source above 64.
 * Above 512 in all, the oldest one of the source that has most makes room: so several sources that
 * open what they may and say nothing keep no device out. A proxy of ours speaks for many.
 */
export function limitConnections(proxies: readonly Address[]): (socket: Socket) => void {
  const open = new Map<string, Set<Socket>>()
  let all = 0
  return (socket) => {
    const from = sourceOf(socket.remoteAddress)
    const own = open.get(from) ?? new Set()
    if (own.size >= MAX_PER_SOURCE && !isIn(proxies, from)) {
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

/**
 * The address that a request comes from: what the nearest proxy that is not one of ours has said.
 * Whoever is no proxy of ours may write into the header what he likes.
 */
export function askerOf({ socket, headers }: IncomingMessage, proxies: readonly Address[]): string {
  const said = [headers['x-forwarded-for'] ?? []].flat().join(',').split(',')
  let asker = hostOf(socket.remoteAddress)
  while (isIn(proxies, asker)) {
    const before = hostOf(
      said
        .pop()
        ?.trim()
        .replace(/^\[(.*)\](:\d+)?$|^([\d.]+):\d+$/, '$1$3'),
    )
    if (isIP(before) === 0) break
    asker = before
  }
  return asker
}

function isIn(list: readonly Address[], text: string): boolean {
  if (list.length === 0) return false
  const address = canonicalAddress(text)
  return address !== undefined && list.some((entry) => overlaps(entry, address))
}

/** An IPv4 address as such, and an IPv6 one as short as it can be. */
function hostOf(address = ''): string {
  const host = address.replace(/%.*/, '') // a link-local one comes with its interface
  return isIP(host) === 0 ? address : parseAddress(host).text
}

/** Who has one IPv6 address has a whole /64 of them. */
export function sourceOf(address = ''): string {
  const host = hostOf(address)
  return isIP(host) === 6 ? parseAddress(`${host}/64`).text : host // '' where nobody is any more
}
