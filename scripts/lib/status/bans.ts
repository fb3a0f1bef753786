import { type Address, isSingle, overlaps, parseAddress } from '../address.ts'
import { converse, databaseIn, jailsIn, listedIn, optionsOf, whyIn } from '../fail2ban.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import { alive, expiry } from '../lease.ts'
import { run } from '../run.ts'
import type { Fail2Ban } from '../settings/fail2ban.ts'
import { shell } from '../shell.ts'
import { type Trouble, within } from './look.ts'

/** A ban of Fail2Ban's that has something in common with the address that was asked for. */
export interface Ban {
  jail: string
  address: Address
  /** Epoch seconds. */
  began: number
  expires: number
  /** How many times this jail has banned the address by now, if Fail2Ban's database says so. */
  times: number | undefined
  /** False if it is only stored, and will be in force again when Fail2Ban is started. */
  live: boolean
  /** The log lines that Fail2Ban kept: an attacker wrote them. */
  matches: string[]
}

/** What is known of it, and what kept us from knowing more. */
export interface Known {
  bans: Ban[]
  troubles: Trouble[]
}

/** Where Fail2Ban has its database unless it is told otherwise. */
const DATABASE = '/var/lib/fail2ban/fail2ban.sqlite3'

/** Seconds that fail2ban-client may take for an unban: it ends when all actions have. */
const PATIENCE = { ask: 10, unban: 60 }

/** Prints the stored bans that may be meant, one JSON array a line. Reads, never writes. */
const STORED = `
import json, sqlite3, sys, urllib.parse
db = sqlite3.connect("file:" + urllib.parse.quote(sys.argv[1]) + "?mode=ro", uri=True, timeout=5)
db.text_factory = lambda data: data.decode("utf-8", "replace")
for row in db.execute("SELECT jail, ip, timeofban, bantime, bancount, data FROM bips "
                      "WHERE ip = ? OR instr(ip, '/') > 0 OR ?", (sys.argv[2], int(sys.argv[3]))):
    data = row[5].decode("utf-8", "replace") if isinstance(row[5], bytes) else row[5]
    try: matches = json.loads(data or "{}").get("matches") or []
    except Exception: matches = []
    lines = ["".join(map(str, m)) if isinstance(m, list) else str(m) for m in matches]
    print(json.dumps([*row[:5], lines]))
`

/** Asks Fail2Ban, whatever actions its jails have, and its database. */
export async function bansOf(settings: Fail2Ban, address: Address): Promise<Known> {
  const late = 'Cannot ask Fail2Ban: it does not answer in time'
  const troubles: Trouble[] = []
  const attempt = async <T>(work: Promise<T>, instead: T): Promise<T> => {
    try {
      return await within(PATIENCE.ask, late, work)
    } catch (error) {
      troubles.push({ code: codeOf(error), message: messageOf(error) })
      return instead
    }
  }
  const asked = await attempt(liveBans(settings, address), undefined)
  const isDefault = !settings.socket && !settings.config_dir
  const database = asked ? asked.database : isDefault ? DATABASE : undefined
  const stored = database ? await attempt(storedBans(database, address), []) : []
  const live = (asked?.bans ?? []).map((ban) => {
    const same = stored.find((one) => isSame(one, ban))
    return same ? { ...ban, began: same.began, times: same.times, matches: same.matches } : ban
  })
  const waiting = stored.filter((one) => !live.some((ban) => isSame(one, ban)))
  return { bans: [...live, ...waiting].sort((a, b) => a.began - b.began), troubles }
}

/** Frees an address in all jails, by Fail2Ban's own means. @returns how many @throws Failure 75 */
export async function unbanIn(settings: Fail2Ban, address: Address): Promise<number> {
  const signal = AbortSignal.timeout(PATIENCE.unban * 1000)
  const args = [...optionsOf(settings), 'unban', address.text]
  const { code, stdout, stderr } = await run(settings.client, args, { signal })
  if (signal.aborted) throw new Failure(EXIT.temporary, 'it does not answer in time')
  if (code !== 0) throw new Failure(EXIT.temporary, whyIn(stderr || stdout))
  return Number(stdout.trim()) || 0
}

async function liveBans(settings: Fail2Ban, address: Address) {
  const [status = '', file = ''] = await converse(settings, ['status', 'get dbfile'])
  const names = jailsIn(status)
  const lists = await converse(
    settings,
    names.map((name) => `get ${name} banip --with-time`),
  )
  const bans = names.flatMap((jail, i) =>
    listedIn(lists[i] ?? '').flatMap(({ ip, began, seconds }) =>
      banOf({ jail, ip, began, seconds, live: true }, address),
    ),
  )
  return { bans, database: databaseIn(file) }
}

async function storedBans(file: string, address: Address): Promise<Ban[]> {
  const $ = await shell()
  const all = isSingle(address) ? '0' : '1'
  const { exitCode, stdout, stderr } = await $`python3 -c ${STORED} ${file} ${address.text} ${all}`
  if (exitCode !== 0) {
    const why = stderr.trim().split('\n').at(-1) ?? ''
    throw new Failure(EXIT.temporary, `Cannot read Fail2Ban's database "${file}": ${why}`)
  }
  return stdout.split('\n').flatMap((line) => {
    if (line === '') return []
    const [jail, ip, began, seconds, times, matches] = JSON.parse(line)
    const found = banOf({ jail, ip, began, seconds, live: false }, address)
    const now = Date.now() / 1000
    return found
      .filter(({ expires }) => alive(expires, now))
      .map((ban) => ({ ...ban, times, matches }))
  })
}

interface Row {
  jail: string
  ip: string
  began: number
  seconds: number
  live: boolean
}

/** Fail2Ban bans things that are no address, too: they are not meant. */
function banOf({ jail, ip, began, seconds, live }: Row, address: Address): Ban[] {
  try {
    const own = parseAddress(ip)
    if (!overlaps(own, address)) return []
    const expires = expiry(began, seconds)
    return [{ jail, address: own, began, expires, times: undefined, live, matches: [] }]
  } catch {
    return []
  }
}

function isSame(a: Ban, b: Ban): boolean {
  return a.jail === b.jail && a.address.text === b.address.text
}
