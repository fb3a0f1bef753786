import { readdirSync } from 'node:fs'
import { hostname } from 'node:os'
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

/** Says what in sshd's own configuration would keep the servers out. */
export async function adviseSshd(): Promise<void> {
  const who = `user=${ACCOUNT},host=localhost,addr=127.0.0.1`
  const { code, stdout } = await run('/usr/sbin/sshd', ['-T', '-C', who])
  if (code !== 0) return
  for (const trouble of troubles(stdout)) say(`note: sshd would refuse the servers: ${trouble}`)
  for (const leak of leaks(stdout)) {
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

/** What `sshd -T` shows that keeps a key of the account from reaching its forced command. */
export function troubles(dump: string): string[] {
  const words = (name: string): string[] =>
    dump
      .split('\n')
      .flatMap((line) => (line.startsWith(`${name} `) ? line.split(' ').slice(1) : []))
  const lets = (name: string): boolean => words(name).length === 0 || words(name).includes(ACCOUNT)
  const found: string[] = []
  if (!lets('allowusers')) found.push(`add ${ACCOUNT} to AllowUsers`)
  if (!lets('allowgroups')) found.push(`add ${ACCOUNT} to AllowGroups`)
  if (words('denyusers').includes(ACCOUNT)) found.push(`take ${ACCOUNT} out of DenyUsers`)
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

function hostKeys(place: Place): string[] {
  try {
    const names = readdirSync(place.at('/etc/ssh')).filter((n) => /^ssh_host_\w+_key\.pub$/.test(n))
    return names.flatMap((name) => textOf(place.at(`/etc/ssh/${name}`))?.trim() || [])
  } catch {
    return []
  }
}
