import { PROJECT } from './lab.ts'
import type { Machine } from './machine.ts'
import { addressOf, type Perimeter } from './perimeter.ts'
import { type Sshd, type SshdOptions, startSshd } from './ssh.ts'

/** Where `npm install -g` puts the commands; here they are links to the build. */
const COMMANDS = {
  banip: 'banip',
  unbanip: 'unbanip',
  'f2b-firewall': 'firewall',
  'f2b-sync': 'sync',
  'f2b-deliver': 'deliver',
  'f2b-status': 'status',
  'f2b-setup': 'setup',
  'f2b-dummy': 'dummy',
}

/** Puts the commands of the package onto a machine's PATH. */
export async function installCommands(
  machine: Machine,
  node: string = process.execPath,
): Promise<void> {
  const links = Object.entries(COMMANDS).map(([command, script]) => {
    return `printf '#!/bin/sh\\nexec ${node} ${PROJECT}/dist/${script}.cjs "$@"\\n' >/usr/local/bin/${command}`
  })
  await machine.sh(`mkdir -p /usr/local/bin; ${links.join('; ')}; chmod 755 /usr/local/bin/*`)
}

export interface InstallOptions {
  backend?: 'nftables' | 'ipset' | 'iptables'
  sshd?: SshdOptions
  /** The Node.js that both sides run on. */
  node?: string
}

/**
 * Sets up all firewalls and servers of a perimeter with f2b-setup, as an operator does: the server
 * makes its key, the firewall lets it in.
 *
 * @returns the firewalls' SSH servers, in order
 */
export async function installPerimeter(
  lab: Perimeter,
  { backend, node, sshd: options = {} }: InstallOptions = {},
): Promise<Sshd[]> {
  const everyone = [...lab.firewalls, ...lab.servers]
  await Promise.all(everyone.map((machine) => installCommands(machine, node)))
  const sshds = await Promise.all(lab.firewalls.map((firewall) => startSshd(firewall, options)))
  const known = lab.firewalls
    .map((firewall, i) => `${firewall.name} ${sshds[i]?.hostKey}\n`)
    .join('')
  for (const server of lab.servers) {
    await server.writeFile('/root/hostkeys', known)
    const firewalls = lab.firewalls.flatMap((firewall) => ['--firewall', firewall.name])
    const keys = ['--host-key-file', '/root/hostkeys']
    await server.run(['f2b-setup', 'server', '--owner', server.name, ...firewalls, ...keys])
    const key = await server.readFile('/etc/fail2ban-perimeter/id_ed25519.pub')
    await Promise.all(lab.firewalls.map((firewall) => letIn(firewall, server, key, backend)))
  }
  return sshds
}

async function letIn(firewall: Machine, server: Machine, key: string, backend?: string) {
  const file = `/root/${server.name}.pub`
  await firewall.writeFile(file, key)
  const owner = [
    '--owner',
    server.name,
    '--key-file',
    file,
    '--from',
    addressOf(server.name, 'mgmt'),
  ]
  const options = backend ? ['--backend', backend] : []
  await firewall.run(['f2b-setup', 'firewall', ...owner, ...options])
}
