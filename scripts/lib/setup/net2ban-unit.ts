import { HARDENING } from './hardening.ts'
import { CONFIG_DIR } from './place.ts'

/** The account of the server: it owns its state and nothing else. */
export const ACCOUNT = 'net2ban'

const STATE = '/var/lib/fail2ban-perimeter'

/**
 * The systemd unit of `net2ban server` or `net2ban client`. The server needs no rights at all and is
 * handed copies of its files. A node runs Fail2Ban's actions, which change the packet filter: it is
 * root with the capabilities for that and no others.
 *
 * @param secrets files that the configuration names
 */
export function net2banUnit(word: 'server' | 'client', program: string, secrets: string[]): string {
  const server = word === 'server'
  const config = server ? `\${CREDENTIALS_DIRECTORY}/config.yaml` : `${CONFIG_DIR}/config.yaml`
  return `# Installed by fail2ban-perimeter (f2b-setup net2ban)
[Unit]
Description=net2ban ${word} (fail2ban-perimeter)
After=network-online.target${server ? ' rabbitmq-server.service' : ' nftables.service'}
Wants=network-online.target

[Service]
ExecStart=${process.execPath} ${program} ${word} --config ${config}
${server ? rightsOfServer(secrets) : RIGHTS_OF_CLIENT}
SyslogIdentifier=net2ban
Restart=always
RestartSec=2
RestartPreventExitStatus=78
TimeoutStopSec=90
UMask=0077
ProtectHome=yes

[Install]
WantedBy=multi-user.target
`
}

function rightsOfServer(secrets: string[]): string {
  const credentials = [`${CONFIG_DIR}/config.yaml`, ...secrets].map(
    (path) => `LoadCredential=${path.split('/').at(-1)}:${path}`,
  )
  return `User=${ACCOUNT}
Group=${ACCOUNT}
${credentials.join('\n')}
StateDirectory=fail2ban-perimeter/net2ban-server
StateDirectoryMode=0700
CapabilityBoundingSet=
${HARDENING}`
}

// An action may load a kernel module (ip_set) and set a route; it writes nothing but locks in /run.
const RIGHTS_OF_CLIENT = `StateDirectory=fail2ban-perimeter
RuntimeDirectory=fail2ban-perimeter
RuntimeDirectoryPreserve=yes
ProtectSystem=full
ReadWritePaths=-/etc/fail2ban/action.d ${STATE}
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_MODULE CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK`
