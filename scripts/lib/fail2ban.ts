import { closeSync, openSync, readSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import program from '#fail2ban.py'
import { EXIT, Failure } from './failure.ts'
import { run } from './run.ts'
import type { Fail2Ban } from './settings/fail2ban.ts'

// What fail2ban.py prints. Moments are epoch seconds.

/** A ban that runs, or one of the database. */
export interface Ban {
  /** What Fail2Ban bans: an address in most jails, anything where a filter has `<F-ID>`. */
  id: string
  /** What the actions got as `<ip>`, if the database knows it. */
  ip: string | null
  /** Its length; -1 is for ever. */
  seconds: number
  /** When it began; null if that is not known exactly. */
  began: number | null
}

/** What Fail2Ban executes for one family: the words of a shell, null if it is not one's text. */
type Commands = Record<'inet4' | 'inet6', string[] | null>

/** An action of ours, or one of which that is not known: then with an `error`. */
export interface Action {
  name: string
  error?: string
  actionban?: string
  ban?: Commands
  start?: Commands
  /** As it has them: `port`, `blocktype`, `mask?family=inet6`. */
  properties?: Record<string, string>
}

export interface Jail {
  name: string
  /** Why nothing is known of its actions. */
  error?: string
  actions: Action[]
  bans: Ban[]
  /** Why nothing is known of its bans. */
  bansError?: string
  /** Stored bans that Fail2Ban may be about to restore after the start of the jail. */
  waiting: Ban[]
  started?: number
  /** How far in its database it has come with that. */
  restored?: number
}

export interface Fail2BanState {
  started: number
  /** Tells it from any Fail2Ban before it. */
  instance: string
  /** Whether its database could be read. */
  database: boolean
  jails: Jail[]
}

/** A ban that may be about an address. */
export type KnownBan = Ban & { jail: string; times?: number; matches?: string[] }

/** Seconds until an answer is given up; for an unban, which ends when all actions have. */
const PATIENCE = { ask: 60, unban: 70 }

/** Debian's own, which has its modules; another Python is as good as long as it is one. */
const PYTHON = '/usr/bin/python3'

/**
 * The jails with an action whose `actionban` matches, and those of which that is not known. Never
 * call it from inside an action: Fail2Ban waits for the action then, and cannot answer.
 *
 * @throws Failure 75 if Fail2Ban cannot be asked now
 */
export function askJails(settings: Fail2Ban, uses: RegExp): Promise<Fail2BanState> {
  return ask(settings, { uses: uses.source })
}

/** Bans of an address, and all of ranges; of every jail there is. */
export function askBans(
  settings: Fail2Ban,
  address: string,
): Promise<{ live: KnownBan[]; stored: KnownBan[]; failures: string[] }> {
  return ask(settings, { about: address })
}

/**
 * Frees an address in all jails, and what some jails have banned it as.
 *
 * @returns how many bans that ended
 * @throws Failure 75
 */
export async function unban(
  settings: Fail2Ban,
  address: string,
  others: [jail: string, id: string][],
): Promise<number> {
  const question = { unban: address, others }
  return (await ask<{ freed: number }>(settings, question, PATIENCE.unban)).freed
}

async function ask<T>(
  { client, socket, config_dir, database }: Fail2Ban,
  question: Record<string, unknown>,
  seconds = PATIENCE.ask,
): Promise<T> {
  const words = JSON.stringify({ ...question, socket, config_dir, database })
  const signal = AbortSignal.timeout(seconds * 1000)
  // The program comes on standard input: what root runs is in no file that has to be installed.
  const args = ['-IS', '-', words]
  const { code, stdout, stderr } = await run(pythonOf(client), args, { input: program, signal })
  if (signal.aborted) throw silent('it does not answer in time')
  const answer = parse(stdout)
  if (code === 0 && answer) return answer as T
  const [why = 'it does not answer'] = stderr.trim().split('\n').slice(-1).filter(Boolean)
  throw silent(typeof answer?.failure === 'string' ? answer.failure : why)
}

export function silent(why: string): Failure {
  return new Failure(EXIT.temporary, `Cannot ask Fail2Ban: ${why}`)
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** The Python that runs Fail2Ban itself, which its first line names. */
export function pythonOf(client: string): string {
  const folders = client.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter)
  for (const folder of folders) {
    const first = firstLineOf(folder ? join(folder, client) : client)
    if (first !== undefined) return /^#! *(\/\S*\/python[\d.]*)\b/.exec(first)?.[1] ?? PYTHON
  }
  return PYTHON
}

function firstLineOf(path: string): string | undefined {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return undefined
  }
  try {
    const bytes = Buffer.alloc(128)
    return bytes.toString('latin1', 0, readSync(fd, bytes)).split('\n')[0]
  } finally {
    closeSync(fd)
  }
}
