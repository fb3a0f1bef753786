import { createHash } from 'node:crypto'
import { statSync } from 'node:fs'
import { type Address, compareAddresses, overlaps, parseAddress } from '../address.ts'
import { ioFailure } from '../failure.ts'
import { alive } from '../lease.ts'
import type { Line } from '../ledger.ts'
import { BY_HAND } from './line.ts'
import { readList, unreadableLines } from './list.ts'

/** The routes' names for what they serve. */
export const PARTS = ['all', 'ipv4', 'ipv6'] as const
export type Part = (typeof PARTS)[number]

/** One route's body. */
export interface Content {
  bytes: Uint8Array
  /** Hash of the bytes, for the ETag. */
  hash: string
  entries: number
  /** Addresses over the budget, the oldest ones, which are not in it. */
  dropped: number
}

/** Everything that is served, from one state of the list. */
export interface Snapshot {
  parts: Record<Part, Content>
  /** When the content last changed: the file, or a lease that ended. Epoch seconds. */
  modified: number
  /** When the next lease ends and this is out of date; Infinity if none does. Epoch seconds. */
  until: number
  /** Addresses that are in the list but that nobody may ban. */
  refused: number
  /** Addresses that were not in the list when it was rendered before; 0 the first time. */
  added: number
  /** Lines that nobody can read, as `<number>: <text>`; at most ten. */
  unreadable: string[]
}

export interface Rules {
  path: string
  maxEntries: number
  never: Address[]
  minPrefix: { ipv4: number; ipv6: number }
}

/** A row of the status page. */
export interface Found {
  address: string
  /** Who holds it: jail, owner and end of each lease; an owner of '' is a person. */
  holders: Omit<Line, 'address'>[]
  /** False for one that nobody may ban: it is in the list, but no device gets it. */
  served: boolean
}

/**
 * Renders the list as devices fetch it: each address once, IPv4 first, numeric order, LF, no remarks.
 * Runs in a worker, since 100,000 lines cost it some 0.3 s.
 *
 * @param at now, in epoch seconds
 * @throws Failure 75 if the list is missing or cannot be read
 */
export function render(rules: Rules, at: number): Snapshot {
  const changed = statSync(rules.path).mtimeMs / 1000
  const ledger = readList(rules.path)
  if (!ledger.exists) throw ioFailure(`read "${rules.path}"`, { code: 'ENOENT' })
  const newest = new Map<string, Address>()
  const times = { until: Number.POSITIVE_INFINITY, modified: Math.floor(changed) }
  let refused = 0
  for (const { line } of ledger.lines()) {
    if (!line) continue
    if (!alive(line.expires, at)) {
      times.modified = Math.max(times.modified, line.expires)
      continue
    }
    if (line.expires > 0) times.until = Math.min(times.until, line.expires)
    const address = parseAddress(line.address)
    newest.delete(address.text)
    if (isAllowed(address, rules)) newest.set(address.text, address)
    else refused++
  }
  const parts = contents([...newest.values()], rules.maxEntries)
  const unreadable = first(unreadableLines(ledger), 10)
  return { parts, ...times, refused, added: countNew(newest), unreadable }
}

let before: Set<string> | undefined

function countNew(addresses: Map<string, Address>): number {
  let added = 0
  if (before) for (const address of addresses.keys()) if (!before.has(address)) added++
  before = new Set(addresses.keys())
  return added
}

/** The addresses in force whose text, jail or owner contains the words; at most `limit` of them. */
export function search(rules: Rules, words: string, limit: number, at: number) {
  const byAddress = new Map<string, Omit<Found, 'served'>>()
  for (const line of readList(rules.path).living(at)) {
    const { address, ...holder } = line
    const found = byAddress.get(address)
    if (found) found.holders.push(holder)
    else byAddress.set(address, { address, holders: [holder] })
  }
  const needle = words.trim().toLowerCase()
  const hits = [...byAddress.values()].filter((found) => matches(found, needle)).reverse()
  const rows = hits.slice(0, limit).map((found): Found => {
    return { ...found, served: isAllowed(parseAddress(found.address), rules) }
  })
  return { total: byAddress.size, hits: hits.length, rows }
}

function matches({ address, holders }: Omit<Found, 'served'>, needle: string): boolean {
  const texts = holders.map((h) => `${h.jail} ${h.owner === BY_HAND ? 'by hand' : h.owner}`)
  return needle === '' || `${address} ${texts.join(' ')}`.toLowerCase().includes(needle)
}

function isAllowed(address: Address, { never, minPrefix }: Rules): boolean {
  const floor = address.family === 'inet4' ? minPrefix.ipv4 : minPrefix.ipv6
  return address.prefix >= floor && !never.some((entry) => overlaps(entry, address))
}

/** @param addresses the newest last */
function contents(addresses: Address[], max: number): Record<Part, Content> {
  const ipv4 = addresses.filter((address) => address.family === 'inet4')
  const ipv6 = addresses.filter((address) => address.family === 'inet6')
  const parts = { ipv4: content(ipv4, max), ipv6: content(ipv6, max) }
  // With one family only, the whole list is that family's: once in memory, not twice.
  const only = [ipv6, ipv4].findIndex((family) => family.length === 0)
  const all = [parts.ipv4, parts.ipv6][only] ?? content(addresses, max)
  return { all, ...parts }
}

function content(addresses: Address[], max: number): Content {
  const kept = addresses.slice(-max).sort(compareAddresses)
  const bytes = Buffer.from(kept.map((address) => `${address.text}\n`).join(''))
  const hash = createHash('sha256').update(bytes).digest('base64url').slice(0, 22)
  return { bytes, hash, entries: kept.length, dropped: addresses.length - kept.length }
}

function first<T>(items: Iterable<T>, count: number): T[] {
  const found: T[] = []
  for (const item of items) {
    if (found.length === count) break
    found.push(item)
  }
  return found
}
