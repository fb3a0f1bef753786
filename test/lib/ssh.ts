import type { Machine } from './machine.ts'

/** What Debian ships, with one host key and no passwords. */
const CONFIG = `Include /etc/ssh/sshd_config.d/*.conf
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
UsePAM yes
KbdInteractiveAuthentication no
PasswordAuthentication no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
`

export interface SshdOptions {
  /** Lines that go before Debian's, and win over them: `AcceptEnv *`, `MaxSessions 2`. */
  config?: readonly string[]
}

/** A real sshd on port 22 of a machine. It does not survive the machine's reboot: start it anew. */
export interface Sshd {
  /** The host's public key: `ssh-ed25519 AAAA...` */
  hostKey: string
  /** Ends the server and every session. */
  stop(): Promise<void>
  /** Leaves connections open but answers nothing any more, as a hanging machine does. */
  freeze(): void
  thaw(): void
}

/** Starts sshd; it listens when this returns. The host key is made once and kept on the disk. */
export async function startSshd(machine: Machine, options: SshdOptions = {}): Promise<Sshd> {
  const key = '/etc/ssh/ssh_host_ed25519_key'
  await machine.writeFile('/etc/ssh/sshd_config', `${(options.config ?? []).join('\n')}\n${CONFIG}`)
  const hostKey = await createKey(machine, key)
  // sshd writes its number when it listens.
  const listening = 'until [ -s /run/sshd.pid ]; do sleep 0.02; done'
  await machine.sh(`rm -f /run/sshd.pid; /usr/sbin/sshd; ${listening}`)
  return {
    hostKey,
    async stop() {
      machine.signal('sshd', 'SIGKILL')
      await machine.sh('rm -f /run/sshd.pid')
    },
    freeze: () => void machine.signal('sshd', 'SIGSTOP'),
    thaw: () => void machine.signal('sshd', 'SIGCONT'),
  }
}

/** Makes an Ed25519 key pair without passphrase, unless it exists. @returns the public key */
export async function createKey(machine: Machine, path: string): Promise<string> {
  const script = 'mkdir -p "$(dirname "$1")"; [ -f "$1" ] || ssh-keygen -q -t ed25519 -N "" -f "$1"'
  return (await machine.run(['sh', '-euc', `${script}; cat "$1.pub"`, 'sh', path])).trim()
}

/** Adds a user with a home, /bin/sh, and no password (yet not locked: sshd lets keys in). */
export async function addUser(machine: Machine, name: string): Promise<void> {
  await machine.run(['useradd', '-m', '-s', '/bin/sh', '-p', '*', name])
}

/** Lets the holder of a key in. @param line a line of authorized_keys, with or without options */
export async function authorizeKey(machine: Machine, user: string, line: string): Promise<void> {
  const script = 'home=$(getent passwd "$1" | cut -d: -f6); cd "$home"; mkdir -p -m 700 .ssh'
  const add = 'cat >>.ssh/authorized_keys; chmod 600 .ssh/authorized_keys; chown -R "$1": .ssh'
  await machine.run(['sh', '-euc', `${script}; ${add}`, 'sh', user], { input: `${line}\n` })
}

export interface HostEntry {
  /** The name that people use: `Host` in ssh_config, and the name in known_hosts. */
  host: string
  address: string
  user: string
  identityFile: string
  hostKey: string
  /** Further lines of ssh_config. */
  config?: readonly string[]
}

/** Teaches root on a machine to reach another one: ~/.ssh/config and ~/.ssh/known_hosts. */
export async function addHost(machine: Machine, entry: HostEntry): Promise<void> {
  const { host, address, user, identityFile, hostKey, config = [] } = entry
  const lines = [
    `Host ${host}`,
    `Hostname ${address}`,
    `HostKeyAlias ${host}`,
    `User ${user}`,
    `IdentityFile ${identityFile}`,
    'IdentitiesOnly yes',
    ...config,
  ]
  await machine.sh('mkdir -p -m 700 /root/.ssh; cat >>/root/.ssh/config', {
    input: `${lines.join('\n')}\n`,
  })
  await machine.sh('cat >>/root/.ssh/known_hosts', { input: `${host} ${hostKey}\n` })
}
