import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { beforeEach, test } from 'node:test'
import type { Ended } from '../../scripts/lib/run.ts'
import type { Seed } from '../lib/private-fail2ban.ts'
import { useServer } from '../lib/server.ts'
import { standInSsh } from '../lib/standin-ssh.ts'
import { waitUntil } from '../lib/wait.ts'

// What is known of one address and how it is freed: a firewall that an ssh of our own plays, and the
// list of a FortiGate, which is real.

const ssh = standInSsh()
const list = `${ssh.folder}/blocked.txt`
const targets = `firewalls:\n  - host: addr1\nfortigate:\n  list_file: ${list}\n`
const server = useServer(ssh, targets)
const { state } = server
const IP = '203.0.113.7'
const BEGAN = Date.parse('2033-05-18T03:33:20Z') / 1000
const END = BEGAN + 600
const banned = (id: string, matches: string[] = []): Seed => {
  return { jail: 'sshd', id, began: BEGAN, seconds: 600, matches }
}
const HOSTILE = 'user \u001b[31mroot\u202e from\u0007 203.0.113.7'

beforeEach(async () => {
  rmSync(state, { recursive: true, force: true })
  ssh.told('addr1')
  // A firewall that remembers: what it has, and what it is told to give back.
  ssh.answer('addr1', 'list', 'cat "$at.has"')
  ssh.answer('addr1', 'unban', `set -- $command; sed -i "\\|^$3 \${2#fail2ban-} |d" "$at.has"`)
  ssh.has('addr1', [`${IP} sshd ${END} web1`, `${IP} - 0 web1`, '203.0.113.8 sshd 0 web1'])
  writeFileSync(list, `# mine\n${IP} # sshd ${END} web1\n${IP} # web 0 mail1\n203.0.113.0/24\n`)
  await server.fail2ban.seed([banned(IP), banned('203.0.113.8')])
})

const left = (): string[] =>
  readFileSync(`${ssh.folder}/addr1.has`, 'utf8').split('\n').slice(0, -1)

async function status(...args: string[]): Promise<Ended & { lines: string[] }> {
  const ended = await server.run('status', ...args)
  return { ...ended, lines: ended.stdout.split('\n').map((line) => line.replace(/ +/g, ' ')) }
}

test('f2b-status <ip> says who banned it, until when, where it is in force, and why', async () => {
  await server.fail2ban.store([
    banned(IP, ['line one', HOSTILE]),
    { jail: 'recidive', id: '203.0.113.0/28', began: BEGAN, seconds: -1 },
    { jail: 'sshd', id: 'no.address', began: BEGAN, seconds: -1 },
  ])
  const { code, stdout, lines } = await status(IP)
  assert.equal(code, 0)
  assert.doesNotMatch(stdout.replaceAll('\n', ''), /\p{C}/u)
  const ago = /\((in|\d).*?\)/g
  assert.deepEqual(
    lines.map((line) => line.replace(ago, '(..)')),
    [
      `${IP} is banned in 1 jail, and in force on 2 of 2 targets.`,
      '',
      'Fail2Ban',
      ' JAIL ADDRESS SINCE UNTIL TIMES',
      ` sshd ${IP} 2033-05-18 03:33:20 (..) 2033-05-18 03:43:20 (..) 2`,
      ' recidive 203.0.113.0/28 only stored never 2',
      '',
      'In force',
      ' TARGET JAIL ADDRESS UNTIL OWNER',
      ` firewall/addr1 sshd ${IP} 2033-05-18 03:43:20 (..) web1`,
      ` firewall/addr1 - ${IP} never web1`,
      ` fortigate sshd ${IP} 2033-05-18 03:43:20 (..) web1`,
      ` fortigate web ${IP} never mail1`,
      ` fortigate - 203.0.113.0/24 never (by hand)`,
      '',
      'What Fail2Ban saw',
      ' sshd line one',
      ' sshd user [31mroot from 203.0.113.7',
      '',
    ],
  )
})

test('f2b-status <ip> of which nothing is known says so, and ends with 0', async () => {
  writeFileSync(list, '')
  const { code, lines } = await status('2001:DB8::9')
  assert.equal(code, 0)
  assert.deepEqual(lines, ['2001:db8::9 is not banned by Fail2Ban, and no target has it.', ''])
})

test('f2b-status <ip> never calls an address free that another server bans', async () => {
  writeFileSync(list, '')
  ssh.answer('addr1', 'blocked', `printf '%s\\n' '203.0.113.0/28 0' '203.0.113.9 ${END}'`)
  const { code, lines } = await status('203.0.113.9')
  assert.equal(code, 0)
  assert.deepEqual(lines.slice(0, 5), [
    '203.0.113.9 is not banned by Fail2Ban, but in force on 1 of 2 targets.',
    '',
    'In force',
    ' TARGET JAIL ADDRESS UNTIL OWNER',
    ' firewall/addr1 203.0.113.0/28 never (another server)',
  ])
  assert.match(lines[5] ?? '', /^ firewall\/addr1 203.0.113.9 2033-.* \(another server\)$/)
  const freed = await status('--unban', '203.0.113.9')
  assert.ok(freed.lines.includes('What another server has banned, only that server can free.'))
  const { places } = JSON.parse((await status('203.0.113.9', '--json')).stdout)
  assert.deepEqual(places[0].others, [
    { address: '203.0.113.0/28', expires: 0, partly: false },
    { address: '203.0.113.9', expires: END, partly: false },
  ])
  // What we ban as well, until the same moment, is not said twice.
  ssh.answer('addr1', 'blocked', `echo '${IP} 0'`)
  assert.deepEqual(
    (await status(IP)).lines.filter((line) => line.includes('another server')),
    [],
  )
  ssh.answer('addr1', 'blocked', "echo 'firewall: Unknown command: banip' >&2; exit 64")
  assert.equal((await status('203.0.113.9')).code, 0, 'a firewall of an older version')
})

test('f2b-status <ip> shows what is on its way, read or not, and reads nothing away', async () => {
  mkdirSync(`${state}/queue`, { recursive: true })
  const queue = `${state}/queue/firewall`
  writeFileSync(
    queue,
    `\nban|${IP}|web|1700000000|600|.\n\nunban|203.0.113.8|sshd|.\n\nban|${IP}|x`,
  )
  mkdirSync(`${state}/delivery`)
  writeFileSync(`${state}/delivery/firewall.wanted`, `${IP} mail 0 web1\n${IP} ftp 0 web1\n`)
  writeFileSync(
    `${state}/delivery/firewall@addr1.confirmed`,
    `${IP} mail 0 web1\n${IP} sshd 0 web1`,
  )
  const { stdout, lines } = await status(IP)
  const at = lines.indexOf('On its way')
  assert.deepEqual(lines.slice(at + 1, at + 4), [
    ` firewall/addr1 ban ${IP} in web`,
    ` firewall/addr1 ban ${IP} in ftp`,
    ` firewall/addr1 unban ${IP} in sshd`,
  ])
  assert.doesNotMatch(stdout, /ban .* in (x|mail)$/m)
  const kept = readFileSync(`${state}/delivery/firewall@addr1.confirmed`, 'utf8')
  assert.match(kept, /sshd 0 web1$/, 'a line that somebody is just writing stays')
})

test('f2b-status --unban frees in Fail2Ban and everywhere, and shows each place', async () => {
  const { code, lines } = await status('--unban', IP)
  assert.equal(code, 0)
  assert.deepEqual(lines.slice(0, 10), [
    `Free ${IP}`,
    ' Fail2Ban freed in sshd',
    ' firewall/addr1 freed in sshd, - (by hand)',
    ` fortigate freed in sshd`,
    '',
    `${IP} is not banned by Fail2Ban, but in force on 1 of 2 targets.`,
    '',
    'In force',
    ' TARGET JAIL ADDRESS UNTIL OWNER',
    ` fortigate web ${IP} never mail1`,
  ])
  assert.ok(lines.includes('To free all of 203.0.113.0/24: f2b-status --unban 203.0.113.0/24'))
  assert.doesNotMatch(await server.fail2ban.client('banned'), /203\.0\.113\.7'/)
  assert.deepEqual(left(), ['203.0.113.8 sshd 0 web1'])
  assert.equal(readFileSync(list, 'utf8'), `# mine\n${IP} # web 0 mail1\n203.0.113.0/24\n`)
  assert.equal(existsSync(`${state}/queue`), false, 'nothing is queued where nothing is delivered')
  const again = await status('--unban', IP)
  assert.deepEqual(
    [again.code, ...again.lines.slice(1, 4)],
    [0, ' Fail2Ban had not banned it', ' firewall/addr1 was not there', ` fortigate was not there`],
  )
})

test('f2b-status --unban works while Fail2Ban is down, and says that it will be back', async () => {
  await server.fail2ban.stop()
  const { code, lines } = await status('--unban', IP)
  assert.equal(code, 75)
  assert.match(
    lines[1] ?? '',
    /^ Fail2Ban not told: Cannot ask Fail2Ban: it does not run .* \(75\)$/,
  )
  assert.equal(lines[2], ' firewall/addr1 freed in sshd, - (by hand)')
  assert.deepEqual(left(), ['203.0.113.8 sshd 0 web1'])
})

test('f2b-status --unban leaves a ban alone that came after it', async () => {
  // Whoever asks Fail2Ban does so with the Python of its client: this one bans again after an unban.
  const { socket } = server.fail2ban
  const again = `fail2ban-client -s ${socket} set sshd banip ${IP} >&2`
  const python = `#!/bin/sh\n/usr/bin/python3 "$@"\ncase $3 in *'"unban"'*) ${again};; esac\n`
  writeFileSync(`${ssh.folder}/python3`, python, { mode: 0o755 })
  writeFileSync(`${ssh.folder}/client`, `#!${ssh.folder}/python3\n`)
  const other = `${ssh.folder}/other.yaml`
  const text = readFileSync(server.config, 'utf8')
  writeFileSync(other, text.replace('socket:', `client: ${ssh.folder}/client\n  socket:`))
  const { lines } = await status('--config', other, '--unban', IP)
  assert.deepEqual(left(), [`${IP} sshd ${END} web1`, '203.0.113.8 sshd 0 web1'])
  assert.equal(lines[2], ' firewall/addr1 freed in - (by hand)')
  assert.ok(lines.includes(`${IP} is banned in 1 jail, and in force on 2 of 2 targets.`))
})

test('f2b-status --unban says what a target that is away keeps, with its code', async () => {
  ssh.answer('addr1', 'list', "echo 'firewall: Cannot lock: busy' >&2; exit 75")
  const { code, lines } = await status('--unban', IP)
  assert.equal(code, 75)
  assert.equal(lines[2], ' firewall/addr1 not freed: Cannot lock: busy (75)')
  assert.equal(lines[3], ` fortigate freed in sshd`)
})

test('f2b-status --unban puts it into the queue first, where there is one', async () => {
  mkdirSync(`${state}/queue`, { recursive: true })
  const queue = `${state}/queue/firewall`
  writeFileSync(queue, `\nban|${IP}|web|1700000000|-1|.\n`)
  const { code } = await status('--unban', IP)
  assert.equal(code, 0)
  const lines = readFileSync(queue, 'utf8').split('\n').filter(Boolean)
  assert.deepEqual(
    lines.slice(1).sort(),
    ['-', 'sshd', 'web'].map((jail) => `release|${IP}|${jail}|.`),
  )
  assert.deepEqual(left(), ['203.0.113.8 sshd 0 web1'])
  assert.equal(existsSync(`${state}/queue/fortigate`), false)
})

test('f2b-status --unban goes through a running f2b-deliver, whose books are right then', async () => {
  mkdirSync(`${state}/queue`, { recursive: true })
  writeFileSync(list, '')
  const later = Math.floor(Date.now() / 1000)
  const queue = `${state}/queue/fortigate`
  writeFileSync(queue, `\nban|${IP}|sshd|${later}|600|.\n\nban|${IP}|-|${later}|-1|.\n`)
  const deliver = server.deliver()
  const ended = once(deliver, 'close')
  try {
    const delivered = async () => readFileSync(list, 'utf8').split('\n').length > 2
    await waitUntil('the bans', delivered, { every: 50 })
    const { code, lines } = await status('--unban', IP, '--json')
    const said = JSON.parse(lines.join('\n'))
    assert.equal(code, 0)
    const jails = said.places[1].freed.map(({ jail }: { jail: string }) => jail)
    assert.deepEqual([jails.sort(), said.places[1].queued], [['-', 'sshd'], true])
    assert.equal(readFileSync(list, 'utf8'), '')
    const wanted = readFileSync(`${state}/delivery/fortigate.wanted`, 'utf8')
    for (const jail of ['sshd', '-']) assert.ok(wanted.includes(`${IP} ${jail} 1 web1\n`), wanted)
  } finally {
    deliver.kill('SIGTERM')
    await ended
  }
})

test('f2b-status names a line of the list that nobody can read', async () => {
  const broken = /fortigate cannot read line 1: "203\.0\.113\.9 x" of the list and 1 more/
  writeFileSync(list, '203.0.113.9 x\nnonsense\n203.0.113.8\n')
  const { code, lines } = await status()
  assert.ok(code !== 0)
  assert.match(lines.join('\n'), broken)
  writeFileSync(list, '203.0.113.9 # x\n; nonsense\n')
  assert.doesNotMatch((await status()).lines.join('\n'), /cannot read/)
})
