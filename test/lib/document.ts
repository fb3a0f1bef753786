import { readFileSync } from 'node:fs'
import type { Machine } from './machine.ts'
import { addressOf } from './perimeter.ts'
import { addHost, addUser, authorizeKey, createKey, type Sshd } from './ssh.ts'

const USER = 'fail2ban'
const KEY = '/root/.ssh/document'

export interface DocumentOptions {
  /** Share one SSH connection between calls, which the document does not, but could. */
  shared?: boolean
  /**
   * Write the `sudo` that is missing in the published banip.sh. Without it the script never finds
   * its chain, and puts two more jumps into the firewall with each ban; with it, it is the best
   * that the document can be.
   */
  repaired?: boolean
  /** The account on the firewall, where `fail2ban` is taken. */
  user?: string
}

/** The document's scripts, installed: /usr/local/sbin/banip.sh, and the action `document`. */
export interface DocumentInstall {
  /** As Fail2Ban calls it, with the document's arguments. */
  ban(chain: string, ip: string, ports?: string, protocol?: string): Promise<void>
  unban(chain: string, ip: string): Promise<void>
}

/**
 * Installs what the document "Centralized fail2ban" publishes, as a person would who follows it:
 * user, key, ssh_config, sudo, four shell scripts. It is what the benchmark has to beat.
 *
 * @param sshd the running sshd of the firewall
 */
export async function installDocument(
  server: Machine,
  firewall: Machine,
  sshd: Sshd,
  { shared = false, repaired = false, user = USER }: DocumentOptions = {},
): Promise<DocumentInstall> {
  await Promise.all([
    installClient(server, firewall.name, sshd, { shared, user }),
    installFirewall(firewall, { repaired, user }),
  ])
  await authorizeKey(firewall, user, await createKey(server, KEY))
  return {
    async ban(chain, ip, ports = 'ssh', protocol = 'tcp') {
      await server.run(['/usr/local/sbin/banip.sh', chain, ip, ports, protocol])
    },
    async unban(chain, ip) {
      await server.run(['/usr/local/sbin/unbanip.sh', chain, ip])
    },
  }
}

async function installClient(
  server: Machine,
  host: string,
  sshd: Sshd,
  { shared, user }: { shared: boolean; user: string },
): Promise<void> {
  const master = ['ControlMaster auto', 'ControlPath /run/document-%C', 'ControlPersist 10m']
  await addHost(server, {
    host,
    address: addressOf(host, 'mgmt'),
    user,
    identityFile: KEY,
    hostKey: sshd.hostKey,
    config: shared ? master : [],
  })
  for (const name of ['banip.sh', 'unbanip.sh']) {
    const script = read(`server/${name}`).replace('firewall=edge1', `firewall=${host}`)
    await server.writeFile(`/usr/local/sbin/${name}`, script, { mode: '755' })
  }
  await server.writeFile('/etc/fail2ban/action.d/document.conf', read('document.conf'))
}

async function installFirewall(
  firewall: Machine,
  { repaired, user }: { repaired: boolean; user: string },
): Promise<void> {
  await addUser(firewall, user)
  const rule = `${user} ALL=(root) NOPASSWD: /usr/sbin/iptables\n`
  await firewall.writeFile(`/etc/sudoers.d/document-${user}`, rule, { mode: '440' })
  for (const name of ['banip.sh', 'unbanip.sh']) {
    const published = read(`firewall/${name}`)
    const script = repaired ? published.replace('! iptables', '! sudo iptables') : published
    await firewall.writeFile(`/home/${user}/${name}`, script, { mode: '755' })
  }
}

function read(name: string): string {
  return readFileSync(new URL(`../fixtures/document/${name}`, import.meta.url), 'utf8')
}
