import { EXIT, Failure } from '../failure.ts'
import { HARDENING } from './hardening.ts'
import { CONFIG_DIR } from './place.ts'
import { shebang } from './trust.ts'

const ACCOUNT = 'fail2ban-perimeter'
export const LIB = '/usr/local/lib/fail2ban-perimeter'
export const DELIVER = 'fail2ban-perimeter-deliver.service'
export const SOCKET = 'fail2ban-perimeter-deliver.socket'
export const SYNC = 'fail2ban-perimeter-sync.service'
export const TIMER = 'fail2ban-perimeter-sync.timer'

/** What the units must let their programs do. */
export interface Needs {
  stateDir: string
  /** An account delivers. */
  owned: boolean
  /** This machine is a firewall itself: the program that fills its packet filter is run, too. */
  isFirewall: boolean
}

/**
 * The service that delivers: the only one that has the books, the key and the connections. Root's
 * tools ask it through its socket.
 */
export function deliverUnit(needs: Needs): string {
  const account = needs.owned
    ? `User=${ACCOUNT}
Group=${ACCOUNT}
# For ssh's own sockets. The one that root's tools speak to stands in a folder of root's.
RuntimeDirectory=${ACCOUNT}-deliver
RuntimeDirectoryMode=0700
${sandbox(needs, `${needs.stateDir}/delivery`)}`
    : rootsSandbox(needs)
  return `${head('deliver what Fail2Ban has banned to the perimeter', needs)}${
    needs.owned ? `\nRequires=${SOCKET}\nAfter=${SOCKET}` : ''
  }
# However long something is wrong: a ban must not wait for a person.
StartLimitIntervalSec=0

[Service]
ExecStart=${program('deliver')} --follow
Restart=always
RestartSec=2
# A bad configuration needs a person.
RestartPreventExitStatus=78
TimeoutStopSec=30

${account}

[Install]
WantedBy=multi-user.target
`
}

/** Where root, the account and its group ask the service; asking starts it. */
export function deliverSocket(): string {
  return `# Installed by fail2ban-perimeter (f2b-setup server)
[Unit]
Description=fail2ban-perimeter: where f2b-deliver is asked

[Socket]
ListenStream=/run/fail2ban-perimeter/deliver.sock
DirectoryMode=0755
SocketUser=root
SocketGroup=${ACCOUNT}
SocketMode=0660
RemoveOnStop=yes
# Who asks a service that cannot start is told so, and does not start it again and again.
FlushPending=yes

[Install]
WantedBy=sockets.target
`
}

/** The service that repairs. It stays root: nobody else may ask Fail2Ban. */
export function syncUnit(needs: Needs): string {
  return `${head('make the perimeter equal to what Fail2Ban has banned', needs)}

[Service]
Type=oneshot
ExecStart=${program('sync')}
# What it did: f2b-status and the journal of ${DELIVER}.
StandardOutput=null
# Fail2Ban is down, or busy: bans run on, and the next run is a minute away.
SuccessExitStatus=75
TimeoutStartSec=15min

${rootsSandbox(needs)}
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

/** For what runs as root. Its own files need no capability. */
function rootsSandbox(needs: Needs): string {
  // /run: the lock of iptables.
  if (needs.isFirewall) return sandbox(needs, `${needs.stateDir} /run`)
  return `RuntimeDirectory=fail2ban-perimeter
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
${sandbox(needs, needs.stateDir)}`
}

function sandbox({ isFirewall }: Needs, places: string): string {
  // NET_RAW: iptables-legacy speaks through a raw socket.
  return `CapabilityBoundingSet=${isFirewall ? 'CAP_NET_ADMIN CAP_NET_RAW' : ''}
UMask=0077
# Home read-only, not hidden: Node may live there (nvm).
ProtectHome=read-only
ReadWritePaths=${places}
PrivateIPC=yes
KeyringMode=private
# No MemoryDenyWriteExecute: V8 writes the code that it runs.
${HARDENING}`
}
