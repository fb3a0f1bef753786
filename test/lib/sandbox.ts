import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmdirSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { type Ended, type RunOptions, run } from '../../scripts/lib/run.ts'

// What the set-up writes to is laid over the machine's own, in memory; the rest is the machine.
const BUILD = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$0"
for folder in /etc /var /usr/local /root; do
  mkdir -p "$0$folder/up" "$0$folder/work"
  mount -t overlay overlay -o "lowerdir=$folder,upperdir=$0$folder/up,workdir=$0$folder/work" $folder
done
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/sshd
ip link set lo up
# Of an installation on this very machine nothing shall be seen.
rm -rf /etc/fail2ban-perimeter /usr/local/lib/fail2ban-perimeter /var/lib/fail2ban-perimeter
rm -f /etc/sudoers.d/* /etc/cron.d/fail2ban-perimeter
! getent passwd fail2ban >/dev/null || userdel fail2ban
chmod g-w /usr/local /usr/local/lib
echo ready
# A shell, not the program itself: it buries the dead, as an init does.
sleep 3600 & wait
`

/** A copy of this machine, with its own network, processes and accounts, where root is root. */
export interface Sandbox {
  /** Runs a program in there. */
  run(file: string, args: string[], options?: RunOptions): Promise<Ended>
  /** Starts a program in there and talks to it; its standard error is ours. */
  start(file: string, args: string[]): ChildProcessByStdio<Writable, Readable, null>
  /** Runs a line of shell in there and returns what it printed, both channels. */
  sh(line: string): Promise<string>
  /** Ends everything that runs in there; nothing of it is left. */
  close(): Promise<void>
}

/** Needs root, and a kernel that lets it lay one file system over another. */
export async function openSandbox(): Promise<Sandbox> {
  const folder = mkdtempSync('/tmp/f2b-sandbox-')
  const options = ['--mount', '--net', '--pid', '--fork', '--mount-proc', '--kill-child']
  const holder = spawn('unshare', [...options, 'sh', '-c', BUILD, folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await ready(holder)
  const { stdout } = await run('pgrep', ['-P', String(holder.pid)])
  const enter = ['-t', stdout.trim(), '-m', '-n', '-p', '--']
  const inside = (file: string, args: string[], options?: RunOptions): Promise<Ended> =>
    run('nsenter', [...enter, file, ...args], options)
  return {
    run: inside,
    start: (file, args) =>
      spawn('nsenter', [...enter, file, ...args], { stdio: ['pipe', 'pipe', 'inherit'] }),
    sh: async (line) => (await inside('sh', ['-c', `{ ${line}\n} 2>&1`])).stdout,
    async close() {
      const gone = once(holder, 'exit')
      holder.kill('SIGKILL')
      await gone
      rmdirSync(folder)
    },
  }
}

async function ready(holder: ChildProcess): Promise<void> {
  const failed = once(holder, 'exit').then(() => {
    throw new Error('cannot build a sandbox: this needs root, unshare and overlayfs')
  })
  await Promise.race([once(holder.stdout ?? holder, 'data'), failed])
}
