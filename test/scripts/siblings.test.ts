import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { run } from '../../scripts/lib/run.ts'
import { KINDS } from '../../scripts/lib/siblings.ts'
import { temporaryFolder } from '../lib/folder.ts'

const folder = temporaryFolder('siblings')

/** Action files and whom f2b-deliver and f2b-sync serve with them. */
const SERVED: Record<string, string[]> = {
  'iptables-remote': ['firewall'],
  'iptables-remote-allports': ['firewall'],
  sophosxg: ['sophosxg'],
  'mikrotik-perimeter': ['mikrotik'],
  'opnsense-perimeter': ['opnsense'],
  fortigate: ['fortigate'],
  'add-to-list': ['fortigate'],
  threatjammer: ['threatjammer'],
  'abuseipdb-perimeter': ['abuseipdb'],
  net2ban: ['net2ban'],
  'net2ban-allports': ['net2ban'],
  // On this very machine, and somebody else's.
  perimeter: [],
  'perimeter-allports': [],
  'iptables-multiport': [],
}

for (const delivery of ['direct', 'queued']) {
  test(`every action file is known by its commands, with delivery = ${delivery}`, async () => {
    const etc = `${folder}/${delivery}`
    await run('cp', ['-r', '/etc/fail2ban', etc])
    await run('sh', [
      '-c',
      `cp action.d/* ${etc}/action.d/; rm -rf ${etc}/jail.d/* ${etc}/jail.local`,
    ])
    writeFileSync(`${folder}/log`, '')
    const actions = Object.keys(SERVED).map((name) => `${name}[name=x, delivery=${delivery}]`)
    writeFileSync(
      `${etc}/jail.local`,
      `[DEFAULT]\n[sshd]\nenabled = true\nbackend = polling\nlogpath = ${folder}/log\naction = ${actions.join('\n    ')}\n`,
    )
    const { code, stdout, stderr } = await run('fail2ban-client', ['-c', etc, '-d'])
    assert.equal(code, 0, stderr)
    for (const [name, kinds] of Object.entries(SERVED)) {
      const settings = stdout.split('\n').find((line) => line.includes(`'action', '${name}-x', [`))
      const [, dumped = ''] = /\['actionban', ['"](.*?)\], \['/.exec(settings ?? '') ?? []
      const command = dumped.replaceAll('\\n', '\n')
      assert.match(command, /<ip>/, name)
      const found = KINDS.filter(({ uses }) => uses.test(command)).map((kind) => kind.name)
      assert.deepEqual(found, kinds, `${name}: ${command}`)
    }
  })
}
