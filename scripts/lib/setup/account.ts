import { EXIT, Failure } from '../failure.ts'
import { run } from '../run.ts'
import type { Item, State } from './changes.ts'
import { endProcesses } from './processes.ts'

/** The account that all servers log in as. */
export const ACCOUNT = 'fail2ban'

/** Its home belongs to root, so that it can add neither keys nor start-up files for itself. */
export const HOME = '/etc/fail2ban-perimeter/ssh'

// sshd starts a forced command through the login shell: nologin would refuse it, and bash would
// read ~/.bashrc first. A password of "*" fits nothing; "!" means locked, and an sshd without PAM
// then refuses the key as well.
const SHELL = '/bin/sh'
const PASSWORD = '*'

/** So often the account is tried to be removed. */
const TRIES = 3

/** How to make the account by hand, for `--prefix`. */
export const USERADD = `useradd --system --no-create-home --home-dir ${HOME} --shell ${SHELL} --password '${PASSWORD}' ${ACCOUNT}`

/** The system account without rights that the servers' keys lead to. */
export function account(): Item {
  return {
    name: `user ${ACCOUNT}`,
    look,
    make,
    remove,
    remedy: `take its sudo rights away and remove it (userdel ${ACCOUNT}) or hand it over (usermod --home ${HOME} ${ACCOUNT})`,
  }
}

/**
 * Ends what runs as the account: sessions of servers, also the idle connections that they keep open,
 * and what systemd keeps for it for a while. A server whose key still counts connects again.
 *
 * @returns whether there was anything
 */
export async function endSessions(): Promise<boolean> {
  const uid = await uidOf()
  return uid !== undefined && (await endProcesses((process) => process.uid === uid)) > 0
}

/** The number of the account; undefined if there is none. */
export async function uidOf(): Promise<number | undefined> {
  const [, , uid] = await entry('passwd')
  return uid === undefined ? undefined : Number(uid)
}

/** The account of that name may be another's: of the document that this follows, for instance. */
async function look(): Promise<State> {
  const [, , uid, , , home, shell] = await entry('passwd')
  if (uid === undefined) return 'absent'
  if (home !== HOME || uid === '0') return 'foreign'
  const [, password] = await entry('shadow')
  return shell === SHELL && password === PASSWORD ? 'same' : 'different'
}

/** What was just about to become the account is it a moment later, and userdel refuses. */
async function remove(): Promise<void> {
  for (let tries = 1; ; tries++) {
    await endSessions()
    try {
      return await call('userdel', [ACCOUNT])
    } catch (error) {
      if (tries === TRIES) throw error
    }
  }
}

async function make(): Promise<void> {
  const wanted = ['--home-dir', HOME, '--shell', SHELL, '--password', PASSWORD]
  if ((await look()) === 'different') {
    return call('usermod', ['--shell', SHELL, '--password', PASSWORD, ACCOUNT])
  }
  const group = (await entry('group')).length > 1 ? ['--gid', ACCOUNT] : ['--user-group']
  await call('useradd', ['--system', '--no-create-home', ...group, ...wanted, ACCOUNT])
}

async function entry(database: string): Promise<string[]> {
  const { stdout } = await run('getent', [database, ACCOUNT])
  return stdout.trimEnd().split(':')
}

/** Runs a program of the system that must succeed. @throws Failure 75 with what it said */
export async function call(program: string, args: string[]): Promise<void> {
  const { code, stderr } = await run(program, args)
  if (code === 0) return
  const why = stderr.trim().replace(/\s*\n\s*/g, ' ') || `exit status ${code}`
  throw new Failure(EXIT.temporary, why.startsWith(program) ? why : `${program}: ${why}`)
}
