import { basename } from 'node:path'
import { HARDENING } from './hardening.ts'
import { CONFIG_DIR } from './place.ts'

/**
 * The systemd unit of the web server: an account without rights that sees the list and may write the
 * log of failed logins and its own history. Configuration and secrets stay root's; systemd hands
 * copies over (LoadCredential, systemd 247), where the program looks first.
 *
 * @param secrets files that the configuration names
 */
export function feedUnit(program: string, secrets: string[]): string {
  const credentials = [`${CONFIG_DIR}/config.yaml`, ...secrets].map(
    (path) => `LoadCredential=${basename(path)}:${path}`,
  )
  return `# Installed by fail2ban-perimeter (f2b-setup fortigate)
[Unit]
Description=Threat feed and log receiver for FortiGates (fail2ban-perimeter)
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=${process.execPath} ${program} --config \${CREDENTIALS_DIRECTORY}/config.yaml
User=fail2ban-feed
Group=fail2ban-feed
${credentials.join('\n')}
StateDirectory=fail2ban-perimeter-feed
StateDirectoryMode=0700
ReadWritePaths=/var/lib/fail2ban-perimeter
Restart=always
RestartSec=2
RestartPreventExitStatus=78
UMask=0027
LimitNOFILE=4096
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
ProtectHome=yes
${HARDENING}

[Install]
WantedBy=multi-user.target
`
}

/**
 * What hands a renewed certificate over: systemd does so when the service starts.
 *
 * @param unit the service
 * @param files certificate and key
 * @returns the unit that watches, and the one that it starts
 */
export function renewalUnits(unit: string, files: string[]): { path: string; service: string } {
  const head = `# Installed by fail2ban-perimeter (f2b-setup fortigate)
[Unit]
Description=Give ${unit} a renewed certificate
`
  const watched = files.map((file) => `PathChanged=${file}`).join('\n')
  return {
    path: `${head}
[Path]
${watched}

[Install]
WantedBy=multi-user.target
`,
    service: `${head}
[Service]
Type=oneshot
# Until the key is there, too.
ExecStartPre=sleep 5
ExecStart=systemctl restart ${unit}
`,
  }
}

/** The log is opened for each line, so that nobody need be told of a rotation. */
export function logrotate(log: string, account: string): string {
  return `# Installed by fail2ban-perimeter (f2b-setup fortigate)
${log} {
    weekly
    rotate 4
    compress
    delaycompress
    missingok
    notifempty
    create 0640 ${account} adm
}
`
}
