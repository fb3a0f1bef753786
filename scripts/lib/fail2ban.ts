import { parseAddress } from './address.ts'
import { EXIT, Failure } from './failure.ts'
import { checkJail, expiry, isSameEnd, type Lease } from './lease.ts'
import { run } from './run.ts'
import type { Fail2Ban } from './settings/fail2ban.ts'
import { shell } from './shell.ts'

/** A jail that uses actions of ours, with what it has banned now. */
export interface Jail {
  name: string
  leases: Lease[]
  actions: { command: string; ports: string; protocol: string }[]
}

/** Prints the stored bans: jail, address, when it began, and its seconds. Reads, never writes. */
const STORED_BANS = `
import sqlite3, sys, urllib.parse
db = sqlite3.connect("file:" + urllib.parse.quote(sys.argv[1]) + "?mode=ro", uri=True, timeout=5)
for row in db.execute("SELECT jail, ip, timeofban, bantime FROM bips"):
    print(*row)
`

/**
 * Asks Fail2Ban which jails use an action of ours and whom they ban. Never call it from inside an
 * action: Fail2Ban waits for the action then, and cannot answer.
 *
 * After a restart Fail2Ban bans the stored addresses again one by one and lists only those it has
 * got to. So the stored ones count as banned too.
 *
 * @param isOurs tells from an `actionban` whether the action is meant
 * @throws Failure 75 if Fail2Ban cannot be asked now
 */
export async function askFail2Ban(
  settings: Fail2Ban,
  owner: string,
  isOurs: (command: string) => boolean,
): Promise<Jail[]> {
  const ask = (questions: string[]) => converse(settings, questions)
  const [status = '', dbfile = ''] = await ask(['status', 'get dbfile'])
  const names = jailsIn(status)
  const stored = await storedBans(dbfile, owner)
  const lists = await ask(names.map((name) => `get ${name} actions`))
  const pairs = names.flatMap((jail, i) => actionsIn(lists[i]).map((action) => ({ jail, action })))
  const commands = await ask(
    pairs.map(({ jail, action }) => `get ${jail} action ${action} actionban`),
  )
  const ours = pairs.filter((_, i) => isOurs(commands[i] ?? ''))
  const details = await ask(
    ours.flatMap(({ jail, action }) => [
      `get ${jail} action ${action} port`,
      `get ${jail} action ${action} protocol`,
    ]),
  )
  const used = [...new Set(ours.map(({ jail }) => jail))]
  const banned = await ask(used.map((jail) => `get ${jail} banip --with-time`))
  const actions = ours.map(({ jail, action }, i) => {
    const at = pairs.findIndex((pair) => pair.jail === jail && pair.action === action)
    const [ports = '', protocol = ''] = details.slice(2 * i)
    return { jail, command: commands[at] ?? '', ports, protocol }
  })
  return used.map((name, i) => {
    const now = readBans(checkJail(name), banned[i] ?? '', owner)
    const leases = withStored(
      now,
      stored.filter(({ jail }) => jail === name),
    )
    const own = actions.flatMap(({ jail, ...action }) => (jail === name ? [action] : []))
    return { name, leases, actions: own }
  })
}

/**
 * Those that Fail2Ban lists, and the stored ones that it has not got to. It lists the time of a ban
 * without its fraction and stores it rounded, which is what `<time>` is after a restart: the end of a
 * ban is taken from there.
 */
function withStored(now: Lease[], stored: Lease[]): Lease[] {
  const listed = new Map(now.map((lease) => [lease.address.text, lease]))
  for (const lease of stored) {
    const known = listed.get(lease.address.text)
    if (!known || isSameEnd(known.expires, lease.expires)) listed.set(lease.address.text, lease)
  }
  return [...listed.values()]
}

/** The names that `status` lists. */
export function jailsIn(status: string): string[] {
  return (/Jail list:\s*(.*)/.exec(status)?.[1] ?? '').split(/,\s*/).filter(Boolean)
}

/** The file that `get dbfile` names; undefined if Fail2Ban has none. */
export function databaseIn(answer: string): string | undefined {
  return /^`- (\/.*)$/m.exec(answer)?.[1]
}

/** The lines below the first, such as `The jail sshd has the following actions:`. */
function actionsIn(answer = ''): string[] {
  return answer.split('\n').slice(1).filter(Boolean)
}

/** Puts questions to fail2ban-client in one go: each start of it costs 70 ms. */
export async function converse(settings: Fail2Ban, questions: string[]): Promise<string[]> {
  if (questions.length === 0) return []
  const input = `${questions.join('\n')}\n`
  // Not with zx, which a client that ends without reading takes down (EPIPE).
  const { stdout, stderr } = await run(settings.client, [...optionsOf(settings), '-i'], { input })
  // The prompt stands before every answer, and once more before the end of the input.
  const answers = stdout.split('fail2ban> ').slice(1, -1)
  if (answers.length === questions.length && !/access socket|Is fail2ban running/.test(stderr)) {
    return answers.map((answer) => answer.trimEnd())
  }
  throw new Failure(EXIT.temporary, `Cannot ask Fail2Ban: ${whyIn(stderr)}`)
}

/** The options that lead fail2ban-client to the server that is meant. */
export function optionsOf({ socket, config_dir }: Fail2Ban): string[] {
  return [...(socket ? ['-s', socket] : []), ...(config_dir ? ['-c', config_dir] : [])]
}

/** What fail2ban-client complains about. */
export function whyIn(stderr: string): string {
  const [line = ''] = stderr.trim().split('\n')
  return line.replace(/^.*ERROR\s*/, '') || 'it does not answer'
}

function readBans(jail: string, text: string, owner: string): Lease[] {
  return listedIn(text).flatMap(({ ip, began, seconds }) => lease(ip, jail, began, seconds, owner))
}

/** Lines such as `192.0.2.1 \t2026-11-20 13:00:00 + 600 = 2026-11-20 13:10:00`, in local time. */
export function listedIn(text: string): { ip: string; began: number; seconds: number }[] {
  return text.split('\n').flatMap((line) => {
    const [, ip, date, time, seconds] = /^(\S+)\s+(\S+) (\S+) \+ (-?\d+) =/.exec(line) ?? []
    if (!ip) return []
    return [{ ip, began: Date.parse(`${date}T${time}`) / 1000, seconds: Number(seconds) }]
  })
}

async function storedBans(answer: string, owner: string): Promise<Lease[]> {
  const file = databaseIn(answer)
  if (!file) return [] // no database: nothing is restored either
  const $ = await shell()
  const { exitCode, stdout, stderr } = await $`python3 -c ${STORED_BANS} ${file}`
  if (exitCode !== 0) {
    const why = stderr.trim().split('\n').at(-1) ?? ''
    throw new Failure(EXIT.temporary, `Cannot read Fail2Ban's database "${file}": ${why}`)
  }
  return stdout.split('\n').flatMap((line) => {
    const [jail = '', ip = '', began, seconds] = line.split(' ')
    return ip ? lease(ip, jail, Number(began), Number(seconds), owner) : []
  })
}

/** Fail2Ban can ban things that are no address; they were refused then, and are left out here. */
function lease(ip: string, jail: string, began: number, seconds: number, owner: string): Lease[] {
  try {
    return [{ address: parseAddress(ip), jail, expires: expiry(began, seconds), owner }]
  } catch {
    return []
  }
}
