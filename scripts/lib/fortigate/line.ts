import { parseAddress } from '../address.ts'
import { checkJail, checkOwner, parseExpires } from '../lease.ts'
import type { Line, Style } from '../ledger.ts'

/** Owner of a line without a remark: a person, whom no verb can be. */
export const BY_HAND = ''

/**
 * The lines of the list file: `<address> # <jail> <expires> <owner>`, and `<address>` alone for what
 * a person wrote, with any note behind it, which lasts until a person deletes it. An address first and a remark behind it is
 * what FortiGates read too (a list of that form is in daily use, facts/peers.md 2.1).
 */
export function listStyle(mode: number): Style {
  return { format, parse, replace: mode }
}

function format(line: Line): string {
  if (line.owner === BY_HAND) return line.address
  return `${line.address} # ${line.jail} ${line.expires} ${line.owner}`
}

const LEASE = /^(\S+) +#\s*(\S+)\s+(\d+)\s+(\S+)\s*$/
/** Whoever makes a note has no moment as its second word: such a line was meant to be a lease. */
const NO_NOTE = /^#\s*\S+\s+(0|\d{10,})(\s|$)/

function parse(raw: string): Line | undefined {
  try {
    return leaseOf(raw) ?? byHand(raw)
  } catch {
    return undefined
  }
}

/** @throws Failure 65 for what looks like a lease and is none */
function leaseOf(raw: string): Line | undefined {
  const [, address = '', jail = '', moment = '', owner = ''] = LEASE.exec(raw) ?? []
  const expires = moment === '' ? Number.NaN : parseExpires(moment)
  // A small number is no moment, but part of a note.
  if (!(expires <= 1 || expires > 999_999_999)) return undefined
  // Only the canonical form is found again when the lease ends.
  if (parseAddress(address).text !== address) throw new RangeError(address)
  return { address, jail: checkJail(jail), expires, owner: checkOwner(owner) }
}

/** An address, with a note behind it or not, as people and their editors write it. */
function byHand(raw: string): Line | undefined {
  const [, text = '', note = ''] = /^([^\s#;]+)\s*([#;].*)?$/.exec(raw.trim()) ?? []
  if (text === '' || NO_NOTE.test(note)) return undefined
  return { address: parseAddress(text).text, jail: '-', expires: 0, owner: BY_HAND }
}
