import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Daemon, journalAction, type Net2banLab, openNet2ban } from '../lib/net2ban-lab.ts'
import { type PrivateFail2ban, startPrivateFail2ban } from '../lib/private-fail2ban.ts'
import { waitUntil } from '../lib/wait.ts'

// The original's own way: `net2banctl exec` in an action file of a real Fail2Ban, and three nodes. The
// action file is the README's, as it stands there.

const NODES = ['client1', 'client2', 'client3']

let lab: Net2banLab
let server: Daemon
let fail2ban: PrivateFail2ban | undefined

before(async () => {
  lab = await openNet2ban({ clients: NODES })
  const bin = join(lab.folder, 'bin')
  mkdirSync(bin)
  const command = `exec ${process.execPath} ${join(process.cwd(), 'dist/net2banctl.cjs')}`
  writeFileSync(
    join(bin, 'net2banctl'),
    `#!/bin/sh\n${command} "$@" --config ${lab.config('ctl')}\n`,
  )
  chmodSync(join(bin, 'net2banctl'), 0o755)
  process.env.PATH = `${bin}:${process.env.PATH}`
  server = lab.daemon('server', lab.config('server'))
  for (const node of NODES) {
    const config = await lab.clientConfig(node)
    // What a node runs is its own file; this one notes what Fail2Ban's would do.
    const file = join(lab.folder, 'actions', node, 'iptables-multiport.conf')
    writeFileSync(file, journalAction(join(lab.folder, `${node}.journal`)))
    await lab.daemon('client', config).logged('connected')
  }
  await server.logged('connected')
})
after(async () => {
  await fail2ban?.remove()
  await lab.close()
})

test("the README's action blocks on every node, and frees on every node", async () => {
  const own = { 'over-net2ban': actionOfReadme() }
  fail2ban = await startPrivateFail2ban('sshd', ['over-net2ban[name=sshd, port="ssh,2222"]'], own)
  await fail2ban.client('set', 'sshd', 'banip', '192.0.2.77', '2001:db8::77')
  await blocked(['192.0.2.77', '2001:db8::77'])
  await fail2ban.client('set', 'sshd', 'unbanip', '192.0.2.77')
  await blocked(['2001:db8::77'])
  for (const node of NODES) assert.equal(lab.journal(node)[0], 'start sshd')
  await server.logged('Forwarding: exec/iptables-multiport actionban 192.0.2.77 from web1')
  assert.doesNotMatch(readFileSync(fail2ban.log, 'utf8'), /ERROR|net2banctl: /)
})

async function blocked(addresses: string[]): Promise<void> {
  for (const node of NODES) {
    const is = () => lab.blocked(node).join(' ') === addresses.join(' ')
    await waitUntil(`${node} to block ${addresses}`, is)
  }
}

/** The action file that the README shows for `net2banctl exec`. */
function actionOfReadme(): string {
  const blocks = readFileSync('README.md', 'utf8').matchAll(/```ini\n([^`]*)```/g)
  const found = [...blocks].flatMap(([, text = '']) =>
    text.includes('net2banctl exec') ? [text] : [],
  )
  assert.equal(found.length, 1)
  return found[0] ?? ''
}
