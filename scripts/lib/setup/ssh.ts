import { readdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { type Address, overlaps, parseAddress } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import type { Firewall } from '../settings/firewalls.ts'
import { ACCOUNT, fingerprint } from './access.ts'
import { tried } from './commands.ts'
import { ask, type InstallTarget, say } from './plan.ts'
import { textOf } from './things.ts'

// How server and firewall get to know each other, and what in sshd's own configuration is in the way.

const HOST_KEY = /^(?:ssh-|ecdsa-|sk-)[A-Za-z0-9@.-]+ [A-Za-z0-9+/]{40,}={0,3}(?= |$)/

/**
 * The host keys of a firewall in a file: a bare public key, or the firewall's entries in a
 * known_hosts (hashed names and patterns as well).
 *
 * @param alone whether it is the only firewall: a bare key does not say whose it is
 * @throws Failure 65 if there is none in it
 */
export async function readHostKeys(
  path: string,
  firewall: Firewall,
  alone: boolean,
): Promise<string[]> {
  const text = textOf(path)
  if (text === undefined) throw new Failure(EXIT.input, `Cannot read ${quote(path)}: no such file`)
  const bare = text.split('\n').flatMap((line) => HOST_KEY.exec(line.trim())?.[0] ?? [])
  const names = [firewall.host, `[${firewall.host}]:${firewall.port ?? 22}`]
  const keys = alone && bare.length > 0 ? bare : await findHost(path, names)
  for (const key of keys) await fingerprint(key)
  if (keys.length > 0) return [...new Set(keys)]
  throw new Failure(
    EXIT.input,
    `Cannot find a host key of ${quote(firewall.host)} in ${quote(path)}`,
  )
}

/**
 * Asks the firewall itself for its host keys and a person whether they are the right ones.
 *
 * @throws Failure 69 if it does not answer, 77 if the person says no
 */
export async function fetchHostKeys(firewall: Firewall): Promise<string[]> {
  const keys = await scan(firewall)
  say(`The host keys that ${firewall.host} shows:`)
  for (const key of keys) say(`  ${await fingerprint(key)}`)
  const answer = await ask(
    `Is this the fingerprint that \`f2b-setup firewall\` printed on ${firewall.host}? [yes/no] `,
    '--host-key-file',
  )
  if (answer.trim() === 'yes') return keys
  throw new Failure(
    EXIT.refused,
    `Nothing was changed: the host key of "${firewall.host}" was not confirmed`,
  )
}

/** @throws Failure 64 if there is no terminal to ask at */
export function checkTerminal(firewall: Firewall): void {
  if (process.stdin.isTTY) return
  throw new Failure(
    EXIT.usage,
    `Cannot ask whether the host key of "${firewall.host}" is right, this is no terminal: give --host-key-file`,
  )
}

/** The known_hosts with exactly these keys for a firewall. Our client looks it up by this name. */
export function withHostKeys(text: string, host: string, keys: string[]): string {
  const wanted = keys.map((key) => `${host} ${key}`)
  const lines = text.split('\n').filter((line) => line !== '')
  const others = lines.filter((line) => line.split(' ')[0] !== host)
  const same = lines.length === others.length + wanted.length
  if (same && wanted.every((line) => lines.includes(line))) return text
  return `${[...others, ...wanted].join('\n')}\n`
}

/** True if a known_hosts that we wrote names this firewall. */
export function knowsHost(text: string, host: string): boolean {
  return text.split('\n').some((line) => line.split(' ')[0] === host)
}

async function findHost(path: string, names: string[]): Promise<string[]> {
  const keys: string[] = []
  for (const name of names) {
    const { stdout } = await tried`ssh-keygen -F ${name} -f ${path}`
    for (const line of stdout.split('\n')) {
      // Marked lines (@revoked, @cert-authority) are no host keys, and remarks are ssh-keygen's.
      const key = /^[^@#]\S* (.*)$/.exec(line)?.[1]
      keys.push(...(HOST_KEY.exec(key ?? '')?.[0].split('\n') ?? []))
    }
  }
  return keys
}

/** The name may be one of ssh_config, which ssh-keyscan does not read but `ssh -G` does. */
async function scan(firewall: Firewall): Promise<string[]> {
  const port = firewall.port === undefined ? [] : ['-p', String(firewall.port)]
  const { stdout: dump } = await tried`ssh -G ${port} -- ${firewall.host}`
  const real = (word: string): string | undefined =>
    new RegExp(`^${word} (\\S+)$`, 'm').exec(dump)?.[1]
  const host = real('hostname') ?? firewall.host
  const { stdout } = await tried`ssh-keyscan -T 5 -p ${real('port') ?? '22'} -- ${host}`
  const keys = stdout.split('\n').flatMap((line) => {
    const key = /^[^#]\S* (.*)$/.exec(line)?.[1]
    return HOST_KEY.exec(key ?? '')?.[0] ?? []
  })
  if (keys.length > 0) return keys
  throw new Failure(
    EXIT.unreachable,
    `Cannot fetch the host key of "${firewall.host}": ${host} does not answer (--host-key-file does without)`,
  )
}

/**
 * Prints what is to be done next, and this firewall's host keys.
 *
 * @param owner the server that was let in; without it none is yet
 */
export async function adviseServer(target: InstallTarget, owner?: string): Promise<void> {
  const host = hostname().split('.')[0] ?? 'this-host'
  const keys = ownHostKeys(target)
  const [first] = keys.toSorted((a, b) => rank(a) - rank(b))
  if (owner === undefined) {
    say(
      '\nNow, as root on each server that shall ban here, with the name that it knows this host by:',
    )
    say(`  f2b-setup server --owner NAME --firewall ${host}`)
  } else {
    // What it calls this host, and knows its key by, is its own affair.
    say(`\nNow test it from ${owner}, as root; it prints nothing and ends with status 0:`)
    say('  f2b-firewall check')
  }
  if (first === undefined) return
  say(`\nThe server asks whether it sees one of these host keys of ${host}:`)
  for (const key of keys) say(`  ${await fingerprint(key)}`)
  say('or takes it from a file (f2b-setup server --host-key-file) with this line:')
  say(`  ${first}`)
}

/** The one key that is shown whole is the shortest of the kinds that ssh prefers. */
function rank(key: string): number {
  return key.startsWith('ssh-ed25519') ? 0 : key.length
}

/**
 * Says what in sshd's own configuration would keep a server out.
 *
 * @param from where its key may come from: what sshd allows may depend on it
 */
export async function adviseSshd(from: readonly string[]): Promise<void> {
  const addresses = from.length > 0 ? from.map((text) => text.replace(/\/.*/, '')) : ['127.0.0.1']
  const dumps: string[] = []
  for (const address of addresses) {
    const who = `user=${ACCOUNT},host=${address},addr=${address}`
    const { code, stdout } = await tried`/usr/sbin/sshd -T -C ${who}`
    if (code !== 0) continue
    dumps.push(stdout)
    const known = from.length > 0 ? address : undefined
    for (const trouble of troubles(stdout, known)) {
      say(`note: sshd would refuse ${known ?? 'the servers'}: ${trouble}`)
    }
  }
  for (const leak of leaks(dumps[0] ?? '')) {
    say(`note: sshd lets servers set what a shell obeys before our gate starts: narrow ${leak}`)
  }
}

/** What `sshd -T` shows of AcceptEnv that reaches the login shell: bash obeys PS4, and ld LD_*. */
export function leaks(dump: string): string[] {
  const obeyed = ['SHELLOPTS', 'PS4', 'BASH_ENV', 'ENV', 'LD_PRELOAD', 'LD_AUDIT']
  const patterns = [...dump.matchAll(/^acceptenv (.*)$/gm)].flatMap(([, list = '']) =>
    list.split(' '),
  )
  const lets = (pattern: string): boolean => {
    const glob = pattern
      .replace(/[^\w*?]/g, '')
      .replace(/\*/g, '.*')
      .replace(/\?/g, '.')
    return obeyed.some((name) => new RegExp(`^${glob}$`).test(name))
  }
  return patterns.filter(lets).map((pattern) => `AcceptEnv ${pattern}`)
}

/**
 * What `sshd -T` shows that keeps a key of the account from reaching its forced command.
 *
 * @param address where the key comes from; undefined if that is not known
 */
export function troubles(dump: string, address?: string): string[] {
  const words = (name: string): string[] =>
    dump
      .split('\n')
      .flatMap((line) => (line.startsWith(`${name} `) ? line.split(' ').slice(1) : []))
  const names = (pattern: string): boolean => isNamed(pattern, address)
  const lets = (name: string): boolean => words(name).length === 0 || words(name).some(names)
  const found: string[] = []
  if (!lets('allowusers')) found.push(`add ${ACCOUNT} to AllowUsers`)
  if (!lets('allowgroups')) found.push(`add ${ACCOUNT} to AllowGroups`)
  if (words('denyusers').some(names)) found.push(`take ${ACCOUNT} out of DenyUsers`)
  const methods = words('authenticationmethods')
  if (methods.length > 0 && !methods.some((list) => list === 'publickey' || list === 'any')) {
    const match = `Match User ${ACCOUNT}`
    found.push(`set AuthenticationMethods publickey for it (${match}): nobody is there to answer`)
  }
  if (words('pubkeyauthentication')[0] === 'no') found.push('set PubkeyAuthentication to yes')
  const files = words('authorizedkeysfile')
  if (files.length > 0 && !files.some((f) => /^(%h\/)?\.ssh\/authorized_keys$/.test(f))) {
    found.push('AuthorizedKeysFile is without .ssh/authorized_keys')
  }
  if ((words('forcecommand')[0] ?? 'none') !== 'none') {
    found.push('ForceCommand would run instead of our gate')
  }
  return found
}

/** Whether a pattern of AllowUsers and the like means the account: `fail2ban`, `f*@198.51.100.*`. */
function isNamed(pattern: string, address: string | undefined): boolean {
  const [user = '', host] = pattern.split('@')
  if (!globOf(user).test(ACCOUNT)) return false
  if (host === undefined || address === undefined) return true
  if (!host.includes('/')) return globOf(host).test(address)
  const range = readRange(host)
  return range === undefined || overlaps(range, parseAddress(address))
}

function readRange(text: string): Address | undefined {
  try {
    return parseAddress(text)
  } catch {
    return undefined
  }
}

function globOf(pattern: string): RegExp {
  const text = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&')
  return new RegExp(`^${text.replace(/\*/g, '.*').replace(/\?/g, '.')}$`)
}

function ownHostKeys(target: InstallTarget): string[] {
  try {
    const names = readdirSync(target.at('/etc/ssh')).filter((n) =>
      /^ssh_host_\w+_key\.pub$/.test(n),
    )
    return names.flatMap((name) => textOf(target.at(`/etc/ssh/${name}`))?.trim() || [])
  } catch {
    return []
  }
}
