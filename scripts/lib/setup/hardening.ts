/**
 * What the programs of our units never need, whether they deliver, repair or serve a list. A unit
 * says for itself what it may write, which homes it sees and which capabilities it keeps; what it
 * allows or refuses with `SystemCallFilter` comes after these lines, for systemd reads them in order.
 */
export const HARDENING = `NoNewPrivileges=yes
MemoryMax=1G
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources`
