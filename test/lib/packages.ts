import { existsSync } from 'node:fs'
import { $ } from 'zx'

/** A program that shows that a Debian package is there, and the package. */
const PACKAGES: Record<string, string> = {
  'fail2ban-server': 'fail2ban',
  sshd: 'openssh-server',
  ssh: 'openssh-client',
  sudo: 'sudo',
  nft: 'nftables',
  ipset: 'ipset',
  iptables: 'iptables',
  ip: 'iproute2',
  nsenter: 'util-linux',
  pgrep: 'procps',
  logger: 'bsdutils',
  useradd: 'passwd',
  hostname: 'hostname',
  python3: 'python3',
  strace: 'strace',
  faketime: 'faketime',
  'rabbitmq-server': 'rabbitmq-server',
}

const FOLDERS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']

/**
 * The Debian packages that a lab needs and that are not installed here.
 *
 * @param more further programs that the caller needs, as `{ hyperfine: 'hyperfine' }`
 */
export function missingPackages(more: Record<string, string> = {}): string[] {
  const needed = Object.entries({ ...PACKAGES, ...more })
  const missing = needed.filter(([program]) => {
    return !FOLDERS.some((folder) => existsSync(`${folder}/${program}`))
  })
  return missing.map(([, name]) => name)
}

/** The trap cleans up even when the test process is gone. Arguments: the packages. */
const INSTALL = `
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\\nexit 101\\n' >$policy
  chmod 755 $policy
fi
apt-get -qq update >/dev/null
apt-get -qq install -y --no-install-recommends "$@" >/dev/null`

/**
 * Installs packages on this host, without starting their services: nobody asked for a Fail2Ban or
 * an SSH server on the machine that runs the tests.
 */
export async function installPackages(names: readonly string[] = missingPackages()): Promise<void> {
  if (names.length === 0) return
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  await $({ env, quiet: true })`sh -euc ${INSTALL} sh ${names}`
}
