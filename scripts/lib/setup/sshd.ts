import { readdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { type Address, overlaps, parseAddress } from '../address.ts'
import { run } from '../run.ts'
import { ACCOUNT } from './account.ts'
import { say } from './changes.ts'
import { textOf } from './items.ts'
import { fingerprint } from './keys.ts'
import type { Place } from './place.ts'

/**
 * Prints what is to be done next, and this firewall's host keys.
 *
 * @param owner the server that was let in; without it none is yet
 */
export async function adviseServer(place: Place, owner?: string): Promise<void> {
  const host = hostname().split('.')[0] ?? 'this-host'
  const keys = hostKeys(place)
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
    const { code, stdout } = await run('/usr/sbin/sshd', ['-T', '-C', who])
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

function hostKeys(place: Place): string[] {
  try {
    const names = readdirSync(place.at('/etc/ssh')).filter((n) => /^ssh_host_\w+_key\.pub$/.test(n))
    return names.flatMap((name) => textOf(place.at(`/etc/ssh/${name}`))?.trim() || [])
  } catch {
    return []
  }
}
