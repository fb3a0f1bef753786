import { installDocument } from '../lib/document.ts'
import { installPerimeter } from '../lib/installed.ts'
import type { Machine } from '../lib/machine.ts'
import { createPerimeter } from '../lib/perimeter.ts'
import type { Sshd } from '../lib/ssh.ts'
import { medians, ms, type Row } from './table.ts'

const ROUNDS = 25

/**
 * One ban of a new address end to end, `banip` against the document's scripts, on the same sshd: as
 * published, with the missing sudo put in (its best case), and with a shared connection.
 */
export async function benchBan(node: string): Promise<Row[]> {
  const lab = await createPerimeter()
  try {
    const [sshd] = await installPerimeter(lab, { node })
    const { server, firewall } = lab
    if (!sshd) throw new Error('No sshd')
    const version = (await server.run([node, '--version'])).trim()
    const scripts = [
      await document(server, firewall, sshd, 'published', {}),
      await document(server, firewall, sshd, 'repaired', { repaired: true }),
      await document(server, firewall, sshd, 'shared', { repaired: true, shared: true }),
    ]
    const [ours = 0, published = 0, repaired = 0, shared = 0] = await medians(server, ROUNDS, [
      ['banip', 'fail2ban-ours', '198.18.0.{round}', '22', 'tcp'],
      ...scripts.map((script, i) => [script, `fail2ban-doc${i}`, '198.18.0.{round}', '22', 'tcp']),
    ])
    const limit = Number(version.slice(1).split('.')[0]) >= 24 ? 0.5 : 0.75
    const what = `one ban, Node ${version}, against the document`
    return [
      row(`${what} as published`, ours, published, limit),
      row(`${what} with its sudo`, ours, repaired),
      row(`${what} with sudo and shared ssh`, ours, shared),
    ]
  } finally {
    await lab.close()
  }
}

/** Installs the document's scripts under an account of their own. @returns the client script */
async function document(
  server: Machine,
  firewall: Machine,
  sshd: Sshd,
  user: string,
  options: { repaired?: boolean; shared?: boolean },
): Promise<string> {
  await installDocument(server, firewall, sshd, { ...options, user })
  // Each account is a Host of its own: the same name for all would be the first one's.
  const rename = `s/^Host edge1$/Host ${user}/; s#^ControlPath .*#&-${user}#`
  await server.sh(`sed -i '${rename}' /root/.ssh/config
sed 's/^firewall=.*/firewall=${user}/' /usr/local/sbin/banip.sh >/usr/local/sbin/banip-${user}.sh
chmod 755 /usr/local/sbin/banip-${user}.sh`)
  return `/usr/local/sbin/banip-${user}.sh`
}

function row(what: string, ours: number, other: number, limit?: number): Row {
  const base = { what, ours: ms(ours), other: ms(other), ratio: ours / other }
  return limit === undefined ? base : { ...base, limit }
}
