import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { baseOf, type Suite } from './bases.ts'
import { missingPackages } from './packages.ts'
import { type ExecOptions, execIn, type Output, spawnHolder, spawnIn } from './process.ts'
import type { Traveller } from './traffic.ts'
import { waitUntil } from './wait.ts'

export const BOOTED_PACKAGES = {
  mmdebstrap: 'mmdebstrap',
  'systemd-nspawn': 'systemd-container',
  script: 'bsdutils',
}

/** A Debian of its own release with systemd as process 1. */
export interface Booted {
  readonly name: string
  /** Runs a command to its end; a failing one is an answer, not an error. */
  exec(argv: readonly string[], options?: ExecOptions): Promise<Output>
  /** Runs a piece of shell, in /root. @returns all that it said @throws Error where it fails */
  sh(script: string, options?: ExecOptions): Promise<string>
  reboot(): Promise<void>
}

/**
 * The perimeter of the README: an attacker outside, the firewall edge1, and behind it web1.
 *
 * ```
 *  203.0.113.101 --- .1 edge1 198.51.100.1 --- .11 web1
 * ```
 */
export interface BootedPerimeter {
  attacker: Traveller
  firewall: Booted
  server: Booted
  close(): Promise<void>
}

const HOSTS = '198.51.100.1 edge1\n198.51.100.11 web1'
const PREFIX = 'f2b-booted-'

/** Boots both machines. @throws Error that says what is missing: rights or Debian packages */
export async function bootPerimeter(suite: Suite): Promise<BootedPerimeter> {
  const missing = missingPackages(BOOTED_PACKAGES)
  if (missing.length > 0) throw new Error(`Cannot boot: apt-get install ${missing.join(' ')}`)
  const base = baseOf(suite)
  // Not our process's number: enclosed tests all have the same.
  const group = `${PREFIX}${randomUUID()}-`
  const unshare = ['unshare', '-m', '-n', '--propagation', 'private']
  const cables = ['outside', 'inside']
  const room = await spawnHolder([...unshare, 'sh', pathOf('booted-room.sh'), ...cables])
  const holders: { end(): Promise<void> }[] = [room]
  const close = async () => {
    for (const holder of holders.slice(1).toReversed()) await holder.end()
    const empty = ['find', '/sys/fs/cgroup', '-mindepth', '1', '-depth', '-path', `*/${group}*`]
    await execIn(room.pid, [...empty, '-type', 'd', '-exec', 'rmdir', '{}', ';'])
    await room.end()
  }
  const machine = async (name: string, interfaces: string, own: string[]) => {
    const disks = ['nsenter', '-t', `${room.pid}`, '-m', '-n']
    const inside = ['unshare', '-m', '-p', '--fork', '--kill-child', '--mount-proc']
    const args = [name, base, `${group}${name}`, interfaces, HOSTS, ...own]
    const holder = await spawnHolder([...disks, ...inside, 'sh', pathOf('booted.sh'), ...args])
    holders.push(holder)
    return await booted(name, holder.pid)
  }
  try {
    const [attacker, firewall, server] = await Promise.all([
      stranger(room.pid, holders),
      machine('edge1', EDGE, cables),
      machine('web1', WEB, ['inside']),
    ])
    return { attacker, firewall, server, close }
  } catch (error) {
    await close()
    throw error
  }
}

const WEB = `auto lo mv-inside
iface lo inet loopback
iface mv-inside inet static
  address 198.51.100.11/24
  gateway 198.51.100.1`

const EDGE = `auto lo mv-inside mv-outside
iface lo inet loopback
iface mv-inside inet static
  address 198.51.100.1/24
iface mv-outside inet static
  address 203.0.113.1/24
  post-up echo 1 >/proc/sys/net/ipv4/ip_forward`

/** No more than a network: 203.0.113.101. */
async function stranger(room: number, holders: { end(): Promise<void> }[]): Promise<Traveller> {
  const script = `ip link add link outside name mv-outside type macvlan mode bridge
exec unshare -n -p --fork --kill-child sh -c 'echo ready; exec cat'`
  const holder = await spawnHolder(['nsenter', '-t', `${room}`, '-m', '-n', 'sh', '-c', script])
  holders.push(holder)
  const steps = `nsenter -t ${room} -n ip link set mv-outside netns ${holder.pid}
nsenter -t ${holder.pid} -n ip -batch - <<END
link set lo up
addr add 203.0.113.101/24 dev mv-outside
link set mv-outside up
route add default via 203.0.113.1
END`
  const { code, stderr } = await execIn(process.pid, ['sh', '-euc', steps])
  if (code !== 0) throw new Error(`attacker1: ${stderr}`)
  const { pid } = holder
  return {
    name: 'attacker1',
    pid,
    exec: (argv, options) => execIn(pid, argv, options),
    spawn: (argv, options) => spawnIn(pid, argv, options),
  }
}

async function booted(name: string, holder: number): Promise<Booted> {
  let leader = 0
  const up = (before: number) => async () => {
    const found = leaderBelow(holder)
    if (!found || found === before) return false
    leader = found
    const { stdout } = await execIn(leader, ['systemctl', 'is-system-running'])
    return /^(running|degraded)$/m.test(stdout)
  }
  await waitUntil(`${name} to be booted`, up(0), { timeout: 120_000, every: 200 })
  return {
    name,
    exec: (argv, options) => execIn(leader, argv, options),
    async sh(script, options) {
      // As a login of root does it, and with both channels in their order.
      const argv = ['bash', '-ec', `cd; exec 2>&1\n${script}`]
      const { code, stdout } = await execIn(leader, argv, { timeout: 300_000, ...options })
      if (code !== 0) throw new Error(`${name}: ${script}: exit code ${code}\n${stdout}`)
      return stdout
    },
    async reboot() {
      const before = leader
      await execIn(leader, ['systemctl', 'reboot'])
      await waitUntil(`${name} to be back`, up(before), { timeout: 120_000, every: 200 })
    },
  }
}

/** The process 1 of the machine that stands below a process, if it has one just now. */
function leaderBelow(pid: number): number | undefined {
  const parents = new Map<number, number[]>()
  const nspawns: number[] = []
  for (const id of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    const [, name, parent] = /^\d+ \((.*)\) \S (\d+)/.exec(statOf(id)) ?? []
    parents.set(Number(parent), [...(parents.get(Number(parent)) ?? []), Number(id)])
    if (name === 'systemd-nspawn') nspawns.push(Number(id))
  }
  const below = (root: number): number[] =>
    (parents.get(root) ?? []).flatMap((child) => [child, ...below(child)])
  const nspawn = below(pid).find((id) => nspawns.includes(id))
  return nspawn && parents.get(nspawn)?.find((id) => statOf(`${id}`).includes('(systemd)'))
}

function statOf(id: string): string {
  try {
    return readFileSync(`/proc/${id}/stat`, 'utf8')
  } catch {
    return '' // It ended meanwhile.
  }
}

function pathOf(script: string): string {
  return fileURLToPath(new URL(script, import.meta.url))
}
