import { installDocument } from '../lib/document.ts'
import { installPerimeter } from '../lib/installed.ts'
import { createPerimeter } from '../lib/perimeter.ts'
import { medians, ms, type Row } from './table.ts'

const ROUNDS = 25

/**
 * One ban of a new address end to end, `banip` against the document's scripts, on the same sshd: as
 * published, with the missing sudo put in (its best case), and with a shared connection.
 */
export async function benchBan(node: string): Promise<Row[]> {
  const lab = await createPerimeter({ servers: 3 })
  try {
    const [sshd] = await installPerimeter(lab, { node })
    const { firewall } = lab
    const [web1 = lab.server, web2 = lab.server, web3 = lab.server] = lab.servers
    if (!sshd) throw new Error('No sshd')
    const version = (await web1.run([node, '--version'])).trim()
    await installDocument(web1, firewall, sshd, { user: 'published' })
    await installDocument(web2, firewall, sshd, { user: 'repaired', repaired: true })
    await installDocument(web3, firewall, sshd, { user: 'shared', repaired: true, shared: true })
    const script = '/usr/local/sbin/banip.sh'
    const chains = ['fail2ban-ours', 'fail2ban-doc1', 'fail2ban-doc2', 'fail2ban-doc3']
    const ban =
      (at: typeof web1, command: string, chain = '') =>
      (round: number) =>
        at.run([command, chain, `198.18.${chains.indexOf(chain)}.${round + 1}`, '22', 'tcp'])
    const [ours = 0, published = 0, repaired = 0, shared = 0] = await medians(ROUNDS, [
      ban(web1, 'banip', chains[0]),
      ban(web1, script, chains[1]),
      ban(web2, script, chains[2]),
      ban(web3, script, chains[3]),
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

function row(what: string, ours: number, other: number, limit?: number): Row {
  const base = { what, ours: ms(ours), other: ms(other), ratio: ours / other }
  return limit === undefined ? base : { ...base, limit }
}
