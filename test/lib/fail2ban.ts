import { appendFileSync } from 'node:fs'
import { PROJECT } from './lab.ts'
import type { Machine } from './machine.ts'
import { waitUntil } from './wait.ts'

export interface Jail {
  name: string
  /** As in jail.local; several actions stand on lines of their own. `%(action_)s` works, too. */
  action: string
  /** Defaults: port `ssh`, protocol `tcp`, bantime 600 s, findtime 600 s, one failure is enough. */
  port?: string
  protocol?: string
  bantime?: number
  findtime?: number
  maxretry?: number
  /** Any further keys of jail.local: `{ 'bantime.increment': 'true' }`. */
  options?: Record<string, string>
}

/** A real fail2ban-server in its usual places, /etc/fail2ban and so on, of one machine. */
export interface Fail2ban {
  /** Calls fail2ban-client. @returns what it printed @throws Error if it failed */
  client(...args: string[]): Promise<string>
  /** Writes failed logins into the log that the jail watches. The jail needs no telling. */
  failLogin(address: string, options?: { jail?: string; times?: number }): Promise<void>
  /** Fail2Ban's own log, across restarts. */
  log(): Promise<string>
  /** Waits until its log contains a text, such as `[sshd] Ban 203.0.113.101`. */
  logged(text: string): Promise<void>
  stop(): Promise<void>
  /** Starts it with the bans that its database holds. */
  start(): Promise<void>
  /** Kills it without a word. */
  kill(): void
}

const FILTER = `[Definition]
failregex = ^ login failure from <ADDR>$
datepattern = ^Epoch
`

/** systemd gives a service little more than this, and no HOME. */
const SERVICE_ENV = { HOME: undefined }

/**
 * Configures and starts Fail2Ban with these jails and no others. The project's actions and filters
 * are in place, beside those of the distribution.
 */
export async function startFail2ban(machine: Machine, jails: readonly Jail[]): Promise<Fail2ban> {
  await configure(machine, jails)
  const client = async (...args: string[]) => machine.run(clientCommand(args), { env: SERVICE_ENV })
  const fail2ban: Fail2ban = {
    client,
    log: () => machine.readFile('/var/log/fail2ban.log'),
    async failLogin(address, { jail = jails[0]?.name ?? '', times = 1 } = {}) {
      const line = `${Math.floor(Date.now() / 1000)} login failure from ${address}\n`
      appendFileSync(machine.place(logOf(jail)), line.repeat(times))
    },
    async logged(text) {
      const written = async () => (await fail2ban.log()).includes(text)
      await waitUntil(`"${text}" in the log of Fail2Ban`, written, { every: 50 })
    },
    stop: async () => void (await client('stop')),
    start: async () => void (await client('start')),
    kill: () => void machine.signal('fail2ban-server', 'SIGKILL'),
  }
  await fail2ban.start()
  return fail2ban
}

function clientCommand(args: readonly string[]): string[] {
  // -x: a socket that a killed server left behind is no reason not to start.
  return ['fail2ban-client', ...(args[0] === 'start' ? ['-x'] : []), ...args]
}

function logOf(jail: string): string {
  return `/var/log/lab-${jail}.log`
}

async function configure(machine: Machine, jails: readonly Jail[]): Promise<void> {
  await machine.sh(`rm -f /etc/fail2ban/jail.d/* /etc/fail2ban/*.local
mkdir -p /run/fail2ban /var/lib/fail2ban
for kind in action.d filter.d; do
  for file in ${PROJECT}/$kind/*.conf; do
    [ ! -f "$file" ] || cp "$file" /etc/fail2ban/$kind/
  done
done
touch ${jails.map(({ name }) => logOf(name)).join(' ')}`)
  await machine.writeFile('/etc/fail2ban/filter.d/lab.conf', FILTER)
  await machine.writeFile('/etc/fail2ban/jail.local', jails.map(sectionOf).join('\n'))
}

function sectionOf(jail: Jail): string {
  const { port = 'ssh', protocol = 'tcp', bantime = 600, findtime = 600, maxretry = 1 } = jail
  const keys = {
    enabled: 'true',
    filter: 'lab',
    backend: 'polling',
    logpath: logOf(jail.name),
    usedns: 'no',
    port,
    protocol,
    bantime,
    findtime,
    maxretry,
    action: jail.action.trim().replaceAll(/\n\s*/g, '\n    '),
    ...jail.options,
  }
  const lines = Object.entries(keys).map(([key, value]) => `${key} = ${value}`)
  return `[${jail.name}]\n${lines.join('\n')}\n`
}
