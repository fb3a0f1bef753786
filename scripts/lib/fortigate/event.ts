import { type Address, isSingle, overlaps, parseAddress } from '../address.ts'
import type { Webhook } from '../settings/fortigate.ts'
import { type Fields, Refused } from './body.ts'

type Kind = Webhook['events'][number]

/** What is done with a log. */
export type Verdict =
  | { write: string; kind: Kind; decoy: boolean }
  | { ignore: 'not a failure' | 'not selected' | 'reason' | 'never banned' }

/** What a failed login is, by the log's id and its action. */
interface Failed {
  kind: Kind
  /** What has the attacker's address. */
  address(fields: Fields): string | undefined
  failed(fields: Fields): boolean
}

const IPSEC: Failed = {
  kind: 'ipsec',
  address: (f) => f.get('remip'),
  // These ids are errors; behind an unclear name a status is not known.
  failed: (f) => f.get('action') === 'negotiate' && /err|fail|^$/.test(f.get('status') ?? ''),
}

/**
 * FortiOS message ids, the last six digits of `logid`. Constants and samples: facts/peers.md 2.4.
 * 39424 and 39947, which some how-tos ban on, are tunnel-up: people who logged in fine.
 */
const FAILURES: Record<string, Failed> = {
  '039426': {
    kind: 'sslvpn',
    address: (f) => f.get('remip'),
    failed: (f) => f.get('action') === 'ssl-login-fail',
  },
  // A wrong password of XAuth (IKEv1), and of EAP (IKEv2).
  '037121': IPSEC,
  '037128': { ...IPSEC, failed: (f) => IPSEC.failed(f) && isLogin(f) },
  '037124': IPSEC,
  '037125': IPSEC,
  '032002': {
    kind: 'admin',
    // FortiOS 5 has no srcip, but says `ui=ssh(192.0.2.7)`.
    address: (f) => known(f.get('srcip')) ?? /\(([^()]+)\)$/.exec(f.get('ui') ?? '')?.[1],
    failed: (f) => f.get('action') === 'login' && /^fail/.test(f.get('status') ?? ''),
  },
}

/**
 * 37128 comes with every negotiation that breaks off: of a proposal that does not fit, 37124 tells as
 * well, and of one that our device has begun nobody is to blame.
 */
function isLogin(fields: Fields): boolean {
  const isAsked = fields.get('exch') === 'AUTH' && fields.get('role') === 'responder'
  return isAsked || nameOf(fields) !== undefined
}

function nameOf(fields: Fields): string | undefined {
  return known(fields.get('user')) ?? known(fields.get('xauthuser'))
}

/** A value, unless it is one of the device's words for none. */
function known(value = ''): string | undefined {
  return /^(N\/A|\(null\)|%%log\..*%%)?$/.test(value) ? undefined : value
}

/**
 * Decides about a log: a failed login becomes one line of our own, everything else is ignored.
 *
 * @param never addresses that nobody may ban; a failure from one is ignored here, not at the ban
 * @throws Refused for a body that is no FortiOS log, or a failure without one clear address
 */
export function judge(fields: Fields, settings: Webhook, never: Address[], at: Date): Verdict {
  const id = /^(?:\d{4})?(\d{5,6})$/.exec(fields.get('logid') ?? '')?.[1]
  if (id === undefined) throw new Refused('no logid')
  const failure = FAILURES[id.padStart(6, '0')]
  if (!failure?.failed(fields)) return { ignore: 'not a failure' }
  if (!settings.events.includes(failure.kind)) return { ignore: 'not selected' }
  const address = attacker(failure.address(fields))
  const decoy = isDecoy(nameOf(fields) ?? '', settings.decoy_users)
  if (!decoy && isIgnored(fields.get('reason') ?? '', settings)) return { ignore: 'reason' }
  if (never.some((entry) => overlaps(entry, address))) return { ignore: 'never banned' }
  return { write: lineOf(fields, failure.kind, address, decoy, at), kind: failure.kind, decoy }
}

function attacker(text: string | undefined): Address {
  try {
    const address = parseAddress(text ?? '')
    if (isSingle(address) && !/^(0\.0\.0\.0|::)$/.test(address.text)) return address
  } catch {
    // Not an address, or none at all: refused alike.
  }
  throw new Refused('no address in the log')
}

/** `password_expired` means `sslvpn_login_password_expired` too. */
function isIgnored(reason: string, { ignore_reasons }: Webhook): boolean {
  return ignore_reasons.some((word) => reason === word || reason.endsWith(`_${word}`))
}

function isDecoy(user: string, decoys: readonly string[]): boolean {
  const name = user.trim().toLowerCase()
  return decoys.some((decoy) => decoy.toLowerCase() === name)
}

/**
 * One line, whose foreign parts are encoded so that they can hold neither a blank nor a `=`: `remip=`
 * stands in it once. filter.d/fortigate.conf is anchored to exactly this form.
 */
function lineOf(fields: Fields, kind: Kind, address: Address, decoy: boolean, at: Date): string {
  const time = at.toISOString().replace(/\.\d+Z$/, '+00:00')
  const devtime = [fields.get('date'), fields.get('time'), fields.get('tz')].filter(Boolean)
  const details = {
    user: nameOf(fields) ?? fields.get('user'),
    reason: fields.get('reason'),
    device: fields.get('devname') ?? fields.get('devid'),
    devtime: devtime.join('T'),
  }
  const foreign = Object.entries(details).map(([key, value]) => `${key}=${encode(value ?? '')}`)
  const what = decoy ? 'decoy-login' : 'failed-login'
  return `${time} fortigate: ${kind} ${what} remip=${address.text} ${foreign.join(' ')}`
}

/** Foreign text with everything but plain characters as %XX; `-` if there is none. */
function encode(text: string): string {
  const bytes = [...Buffer.from(text.slice(0, 64), 'utf8')]
  const safe = bytes.map((byte) => {
    const char = String.fromCharCode(byte)
    return /[A-Za-z0-9._@:+/-]/.test(char) ? char : `%${byte.toString(16).padStart(2, '0')}`
  })
  return safe.join('') || '-'
}
