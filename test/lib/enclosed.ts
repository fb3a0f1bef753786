import { PATH } from './process.ts'

const BEGIN = `ip link set lo up
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 1777 /run/lock
"$@"
exit $?`

/**
 * A command with processes, a network and a /run of its own, which all end with it: program,
 * arguments and environment. The shell stays, as the process that buries orphans.
 */
export function enclosed(argv: readonly string[]): [string, string[], NodeJS.ProcessEnv] {
  const own = ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc']
  const args = [...own, '--propagation', 'private', 'sh', '-euc', BEGIN, 'sh', ...argv]
  // Not what the host's owner has first on his PATH: a python3 that is a script of pyenv takes 1 s.
  // And no certificates of a company's proxy: reading them takes Node as long as all else of a start.
  const { FAIL2BAN_PERIMETER_CONFIG: _, NODE_EXTRA_CA_CERTS: _certificates, ...env } = process.env
  // A bash whose input is a socket, as Node's pipes are, reads .bashrc unless it stands in another shell.
  return ['unshare', args, { ...env, PATH, LANG: 'C.UTF-8', SHLVL: '1' }]
}
