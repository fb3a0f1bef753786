import assert from 'node:assert/strict'
import { test } from 'node:test'
import { useFirewall } from '../lib/firewall.ts'

const LEDGER = `# generation abcd0123 1
203.0.113.5 sshd 4000000000 web1
203.0.113.5 web 0 web1
203.0.113.6 sshd 1600000000 web1
2001:db8::/48 sshd 0 web1
203.0.113.7 sshd 0 firewall
`

const fw = useFirewall(LEDGER)

async function list(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await fw.root('listips', ...words)
  assert.deepEqual([code, stderr], [0, ''])
  return stdout
}

test('listips prints an owner’s leases in force, a line each, and nobody else’s', async () => {
  const sshd = '203.0.113.5 sshd 4000000000 web1\n2001:db8::/48 sshd 0 web1\n'
  assert.equal(await list('--owner', 'web1', 'fail2ban-sshd'), sshd)
  const all = await list('--owner', 'web1')
  assert.deepEqual(all.split('\n').sort(), `${sshd}203.0.113.5 web 0 web1\n`.split('\n').sort())
  assert.equal(await list(), '203.0.113.7 sshd 0 firewall\n')
  assert.equal(await list('fail2ban-web'), '')
})

test('listips refuses wrong usage with 64, bad values with 65, who is not root with 77', async () => {
  const codes = [
    await fw.root('listips', 'fail2ban-sshd', 'fail2ban-web'),
    await fw.root('listips', 'sshd'),
    await fw.root('listips', '--owner', '../web1'),
    await fw.nobody('listips'),
  ].map(({ code }) => code)
  assert.deepEqual(codes, [64, 65, 65, 77])
})
