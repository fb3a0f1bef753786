import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { EXIT, Failure } from '../failure.ts'
import { lock } from '../lock.ts'
import { run } from '../run.ts'
import type { Firewall } from '../settings/firewalls.ts'

/** The program that the firewall's gate reaches through sudo. */
const PERIMETER = '/usr/local/lib/fail2ban-perimeter/perimeter'

const CONFIG_DIR = '/etc/fail2ban-perimeter'
const RUN_DIR = '/run/fail2ban-perimeter'

/** Seconds that TCP and key exchange may take together. */
const CONNECT = 3

/** ssh's own exit status when the transport failed; the far side uses only 0 to 125. */
export const TRANSPORT = 255

/**
 * Does something on a firewall, through one shared connection, so that only the first ban pays for a
 * handshake (200 ms against 9, measured).
 *
 * Callers side by side must not connect side by side: sshd drops them above 10, and racing
 * `ControlMaster=auto` fails too. So exactly one opens the connection, under a lock, and all others
 * go through it and nowhere else: `ProxyCommand=false` lets a call that finds no connection (or one
 * that has its ten sessions) fail at once instead of opening its own. Such a call is repeated; every
 * verb may be.
 *
 * @param attempt told the arguments of ssh, see `programOf`; undefined if ssh has ended with TRANSPORT
 * @throws Failure 69 never connected, 75 no answer in time, 77 key or host key refused
 */
export async function throughShared<T>(
  firewall: Firewall,
  signal: AbortSignal,
  attempt: (connection: string[]) => Promise<T | undefined>,
): Promise<T> {
  if (firewall.host === 'local') {
    const done = await attempt([])
    if (done !== undefined) return done
    throw noAnswer()
  }
  const socket = socketOf(firewall)
  const options = ['-S', socket, '-o', 'ControlMaster=no', '-o', 'ProxyCommand=false']
  for (let wait = 20; ; wait = Math.min(2 * wait, 500)) {
    if (!existsSync(socket)) await connect(firewall, socket, signal)
    const done = await attempt([...options, ...common(firewall)])
    if (done !== undefined) return done
    if (signal.aborted) throw noAnswer()
    if (!(await isAlive(firewall, socket, signal))) await connect(firewall, socket, signal)
    else await pause(wait * (0.5 + Math.random()), signal)
  }
}

/** How a firewall's program is reached, here or there, and what it must be told first. */
export function programOf(
  { host }: Firewall,
  owner: string,
  request: string,
  connection: string[],
): [file: string, args: string[], head: string] {
  if (host !== 'local') return ['ssh', [...connection, request], '']
  if (!existsSync(PERIMETER)) {
    throw new Failure(EXIT.config, 'no firewall side on this machine: run f2b-setup firewall')
  }
  const head = `owner ${owner}\n${request}\n`
  return process.getuid?.() === 0 ? [PERIMETER, [], head] : ['sudo', ['-n', PERIMETER], head]
}

/** Opens the shared connection, if it is not open. */
export async function openConnection(firewall: Firewall, signal: AbortSignal): Promise<void> {
  const socket = socketOf(firewall)
  if (!existsSync(socket) || !(await isAlive(firewall, socket, signal))) {
    await connect(firewall, socket, signal)
  }
}

/** Closes the shared connection, if there is one. */
export async function closeConnection(firewall: Firewall, signal: AbortSignal): Promise<void> {
  const socket = socketOf(firewall)
  const args = ['-S', socket, '-O', 'exit', ...common(firewall)]
  if (existsSync(socket)) await run('ssh', args, { signal })
}

async function connect(firewall: Firewall, socket: string, signal: AbortSignal): Promise<void> {
  const release = await lock(`${socket}.lock`, 18)
  try {
    // The process that held the lock before has opened it; a dead socket is left from a crash.
    if (existsSync(socket) && (await isAlive(firewall, socket, signal))) return
    rmSync(socket, { force: true })
    const args = ['-M', '-N', '-f', '-S', socket, '-o', 'ControlPersist=10m']
    // Since 8.5 a master lets go of its caller's pipes; older ones would keep us waiting for them.
    const log = ['-E', `${socket}.log`]
    const ended = await run('ssh', [...args, ...log, ...common(firewall)], { signal })
    if (signal.aborted) throw noAnswer()
    if (ended.code === 127)
      throw new Failure(EXIT.config, 'ssh is not there: install openssh-client')
    if (ended.code !== 0) throw refusal(takeLog(`${socket}.log`))
  } finally {
    release()
  }
}

/** Asks the shared connection itself, which may hang like anything else. @throws Failure 75 */
async function isAlive(firewall: Firewall, socket: string, signal: AbortSignal): Promise<boolean> {
  const ended = await run('ssh', ['-S', socket, '-O', 'check', ...common(firewall)], { signal })
  if (signal.aborted) throw noAnswer()
  return ended.code === 0
}

function takeLog(log: string): string {
  const text = readFileSync(log, 'utf8')
  rmSync(log, { force: true })
  return text
}

/** The arguments of an ssh that has a connection of its own, for a long session. */
export function ownConnection(firewall: Firewall): string[] {
  return ['-S', 'none', '-o', 'ControlMaster=no', ...common(firewall)]
}

/**
 * What to do about a connection that could not be opened. ssh ends with 255 for everything, so its
 * two sentences that mean "refused" have to be known by sight.
 *
 * @param said everything that ssh said
 */
export function refusal(said: string): Failure {
  const text = said.trim()
  const line = text.split('\n').at(-1) ?? ''
  if (/Host key verification failed|host key .* has changed/i.test(text)) {
    return new Failure(
      EXIT.refused,
      `host key not known: add it to ${CONFIG_DIR}/known_hosts (f2b-setup server does)`,
    )
  }
  if (/Permission denied/.test(text)) {
    return new Failure(
      EXIT.refused,
      `key refused: run f2b-setup firewall there with our public key`,
    )
  }
  // A connection that dies of silence ends without a word.
  const why =
    line === '' ? 'the connection was lost' : `cannot connect: ${line.replace(/^ssh: /, '')}`
  return new Failure(EXIT.unreachable, why)
}

/** Options for every call; the host comes last, after `--`, so that it is never an option. */
function common(firewall: Firewall): string[] {
  const { host, user, port } = firewall
  const identity = firewall.identity_file ?? existing('id_ed25519')
  const known = firewall.known_hosts ?? existing('known_hosts')
  const options = [
    'BatchMode=yes',
    'StrictHostKeyChecking=yes',
    `ConnectTimeout=${CONNECT}`,
    'ServerAliveInterval=3',
    'ServerAliveCountMax=2',
    'ClearAllForwardings=yes',
    'LogLevel=ERROR',
    ...(identity ? [`IdentityFile=${identity}`, 'IdentitiesOnly=yes'] : []),
    ...(known ? [`UserKnownHostsFile=${known}`, `HostKeyAlias=${host}`] : []),
    ...(user ? [`User=${user}`] : []),
    ...(port ? [`Port=${port}`] : []),
  ]
  return ['-T', ...options.flatMap((option) => ['-o', option]), '--', host]
}

/** What `f2b-setup server` put there; without it, ssh_config decides, as in the document. */
function existing(name: string): string | undefined {
  const path = join(CONFIG_DIR, name)
  return existsSync(path) ? path : undefined
}

/** One socket per way of connecting, in a directory that only we can write; 90 bytes at most. */
function socketOf(firewall: Firewall): string {
  const directory = socketDirectory()
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const { uid, mode } = statSync(directory)
  if (uid !== process.getuid?.() || mode & 0o022) {
    throw new Failure(EXIT.config, `Cannot use "${directory}": others can write it`)
  }
  const { host, user = '', port = '', identity_file = '', known_hosts = '' } = firewall
  const name = [user, host, port, identity_file, known_hosts].join(',').replace(/[^\w.,:-]/g, '%')
  return join(directory, name.length > 32 || name.includes('%') ? hash(firewall) : name)
}

function socketDirectory(): string {
  if (process.getuid?.() === 0) {
    mkdirSync(RUN_DIR, { recursive: true, mode: 0o755 }) // the service's socket is there, too
    return join(RUN_DIR, 'ssh')
  }
  const { RUNTIME_DIRECTORY, XDG_RUNTIME_DIR } = process.env
  return join(RUNTIME_DIRECTORY ?? XDG_RUNTIME_DIR ?? homedir(), '.fail2ban-perimeter')
}

/** A short name for a long one; other ways of connecting must not share it. */
function hash(firewall: Firewall): string {
  const { createHash } = process.getBuiltinModule('node:crypto')
  return createHash('sha256').update(common(firewall).join(' ')).digest('hex').slice(0, 32)
}

function noAnswer(): Failure {
  return new Failure(EXIT.temporary, 'no answer in time')
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await setTimeout(milliseconds, undefined, { signal }).catch(() => {})
  if (signal.aborted) throw noAnswer()
}
