import { parseAddress } from '../address.ts'
import { checkJail, checkOwner, parseExpires } from '../lease.ts'
import type { Line, Style } from '../ledger.ts'

/** Owner of a line without a remark: a person, whom no verb can be. */
export const BY_HAND = ''

/**
 * The lines of the list file: `<address> # <jail> <expires> <owner>`, and `<address>` alone for what
 * a person wrote, which lasts until a person deletes it. An address first and a remark behind it is
 * what FortiGates read too (a list of that form is in daily use, facts/peers.md 2.1).
 */
export function listStyle(mode: number): Style {
  return { format, parse, replace: mode }
}

function format(line: Line): string {
  if (line.owner === BY_HAND) return line.address
  return `${line.address} # ${line.jail} ${line.expires} ${line.owner}`
}

const LEASE = /^(\S+) +#\s*(\S+)\s+(\S+)\s+(\S+)\s*$/

function parse(raw: string): Line | undefined {
  const [, address, jail = '', expires = '', owner = ''] = LEASE.exec(raw) ?? []
  try {
    if (address === undefined) return byHand(raw.trim())
    const known = {
      jail: checkJail(jail),
      expires: parseExpires(expires),
      owner: checkOwner(owner),
    }
    // Only the canonical form is found again when the lease ends.
    const text = parseAddress(address).text
    return text === address ? { address, ...known } : undefined
  } catch {
    return undefined
  }
}

function byHand(text: string): Line | undefined {
  if (text === '' || text.startsWith('#')) return undefined
  return { address: parseAddress(text).text, jail: '-', expires: 0, owner: BY_HAND }
}
