import { EXIT, Failure } from '../failure.ts'
import { HARDENING } from './hardening.ts'
import { CONFIG_DIR } from './place.ts'
import { shebang } from './trust.ts'

export const LIB = '/usr/local/lib/fail2ban-perimeter'
export const DELIVER = 'fail2ban-perimeter-deliver.service'
export const SYNC = 'fail2ban-perimeter-sync.service'
export const TIMER = 'fail2ban-perimeter-sync.timer'

/** What the units must let their programs do. */
export interface Needs {
  stateDir: string
  /** Root's rights are given up as soon as the configuration has been read. */
  drops: boolean
  /** This machine is a firewall itself: the program that fills its packet filter is run, too. */
  isFirewall: boolean
}

/**
 * The service that delivers. It starts as root, which alone can read config.yaml and the secrets it
 * names, and becomes the account that owns the state directory before it opens a file there or speaks
 * to anybody (scripts/lib/identity.ts); so a key that is added to config.yaml needs no other unit.
 */
export function deliverUnit(needs: Needs): string {
  // The shells of Fail2Ban's actions, which are root's, open files in the account's queue: links and
  // pipes must not be among them. io_uring would make links past the filter.
  const links = 'symlink symlinkat mknod mknodat io_uring_setup'
  return `${head('deliver what Fail2Ban has banned to the perimeter', needs)}
# However long something is wrong: a ban must not wait for a person.
StartLimitIntervalSec=0

[Service]
ExecStart=${program('deliver')} --follow
Restart=always
RestartSec=2
# A bad configuration needs a person.
RestartPreventExitStatus=78
TimeoutStopSec=30

${sandbox(needs, needs.drops ? ['CAP_SETUID', 'CAP_SETGID'] : [])}
SystemCallFilter=~${links}

[Install]
WantedBy=multi-user.target
`
}

/** The service that repairs. It stays root: nobody else may ask Fail2Ban. */
export function syncUnit(needs: Needs): string {
  // It enters the account's directory, and starts a deliverer there if none runs.
  const caps = needs.drops ? ['CAP_DAC_OVERRIDE', 'CAP_SETUID', 'CAP_SETGID'] : []
  return `${head('make the perimeter equal to what Fail2Ban has banned', needs)}

[Service]
Type=oneshot
ExecStart=${program('sync')}
# What it did: f2b-status and the journal of ${DELIVER}.
StandardOutput=null
# Fail2Ban is down, or busy: bans run on, and the next run is a minute away.
SuccessExitStatus=75
TimeoutStartSec=15min

${sandbox(needs, caps)}
`
}

export function syncTimer(): string {
  return `# Installed by fail2ban-perimeter (f2b-setup server)
[Unit]
Description=Make the perimeter equal to what Fail2Ban has banned, every minute

[Timer]
OnActiveSec=1min
OnUnitInactiveSec=1min
# So that many servers do not ask one firewall at once.
RandomizedDelaySec=5s
AccuracySec=1s

[Install]
WantedBy=timers.target
`
}

/** The same where there is no systemd: cron starts what does not run. */
export function cronTable(queued: boolean): string {
  // -o: what the deliverer starts must not keep the lock when it is gone.
  const deliver = `root flock -n -o /run/f2b-deliver.lock ${program('deliver')} --follow 2>&1 | logger -t f2b-deliver`
  const lines = queued ? [`@reboot ${deliver}`, `* * * * * ${deliver}`] : []
  return `# Installed by fail2ban-perimeter (f2b-setup server) where there is no systemd.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

${lines.map((line) => `${line}\n`).join('')}* * * * * root ${program('sync')} 2>&1 >/dev/null | logger -t f2b-sync
`
}

/** @throws Failure 78 if systemd or cron would read something else in the path of this Node */
export function program(name: string): string {
  const node = shebang(process.execPath).slice(2)
  if (!/[%"'$\\]/.test(node)) return `${node} ${LIB}/${name}.cjs`
  throw new Failure(EXIT.config, `Cannot use Node at "${node}": the path has special characters`)
}

function head(what: string, { stateDir }: Needs): string {
  return `# Installed by fail2ban-perimeter (f2b-setup server)
[Unit]
Description=fail2ban-perimeter: ${what}
Wants=network-online.target
After=network-online.target
RequiresMountsFor=${CONFIG_DIR} ${LIB} ${stateDir}`
}

function sandbox({ stateDir, isFirewall }: Needs, caps: string[]): string {
  // NET_RAW: iptables-legacy speaks through a raw socket. /run: the lock of iptables.
  const all = [...caps, ...(isFirewall ? ['CAP_NET_ADMIN', 'CAP_NET_RAW'] : [])]
  const places = isFirewall
    ? `ReadWritePaths=${stateDir} /run`
    : `RuntimeDirectory=fail2ban-perimeter
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
ReadWritePaths=${stateDir}`
  return `CapabilityBoundingSet=${all.join(' ')}
UMask=0077
# Home read-only, not hidden: Node may live there (nvm).
ProtectHome=read-only
${places}
PrivateIPC=yes
KeyringMode=private
# No MemoryDenyWriteExecute: V8 writes the code that it runs.
${HARDENING}
${caps.length > 0 ? 'SystemCallFilter=@setuid\n' : ''}`.trimEnd()
}
