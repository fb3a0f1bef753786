import { stringify } from 'yaml'
import type { Firewall } from '../settings/firewalls.ts'
import { say } from './changes.ts'
import { restartCommand } from './fail2ban.ts'
import { textOf } from './items.ts'
import { hostsOf, type Settings } from './need-root.ts'
import { KEY, KNOWN_HOSTS, type Place } from './place.ts'
import type { Wish } from './server.ts'

/** Says what an operator must change in a configuration that is there. */
export function adviseConfig(path: string, wish: Wish, found: Settings): void {
  const known = hostsOf(found)
  const missing = wish.firewalls.filter((firewall) => !known.includes(firewall.host))
  if (found.owner !== wish.owner) {
    say(`note: ${path} was left as it is, but its owner is not "${wish.owner}": set it`)
  }
  if (missing.length === 0) return
  say(`note: ${path} was left as it is; add to it:`)
  say(stringify({ firewalls: missing }).trimEnd().replace(/^/gm, '  '))
}

/** Says what is to be done next. */
export function advise(place: Place, { owner }: Wish, remote: Firewall[]): void {
  const key = textOf(place.at(`${KEY}.pub`))?.trim() ?? `(the public key in ${KEY}.pub)`
  if (remote.length > 0) {
    say(`\nNow let this server in, as root on ${remote.map((f) => f.host).join(' and on ')}:`)
    say(`  echo '${key}' > ${owner}.pub`)
    say(`  f2b-setup firewall --owner ${owner} --key-file ${owner}.pub`)
    say(
      "There, --from ADDRESS ties the key to this server's address; without it that stays as it is.",
    )
  } else {
    say('\nNow let this machine be the firewall:')
    say('  f2b-setup firewall')
  }
  say('\nThen test it from here; all of these print nothing when all is well:')
  for (const firewall of remote) say(`  ${sshLine(firewall)} true`)
  say('  f2b-firewall check')
  // At the margin: below another line of jail.local, an indented one goes on with that.
  say(`\nThen let Fail2Ban use it, in /etc/fail2ban/jail.local, and run ${restartCommand()}:`)
  say('[DEFAULT]')
  say('banaction = iptables-remote')
  say('banaction_allports = iptables-remote-allports')
}

function sshLine({ host, user, port }: Firewall): string {
  const where = `-i ${KEY} -o UserKnownHostsFile=${KNOWN_HOSTS} -o HostKeyAlias=${host}`
  return `ssh ${where}${port ? ` -p ${port}` : ''} ${user}@${host}`
}
