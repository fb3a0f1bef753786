import assert from 'node:assert/strict'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { checkBlocktype } from '../../scripts/lib/blocktype.ts'
import { parseOperation } from '../../scripts/lib/delivery/operation.ts'
import { run } from '../../scripts/lib/run.ts'
import { temporaryFolder } from '../lib/folder.ts'
import { waitUntil } from '../lib/wait.ts'

// What a real Fail2Ban with its own jail.conf hands over for what people write into jail.local: the
// lines of the queue, and the leases that they become.

const PREFIXES = { ipv4: 16, ipv6: 48 }
const KEYS = 'enabled = true\nfilter = x\nbackend = polling\nusedns = no\n'

/** A jail: what is in its section, what is banned, and what then is asked of the target. */
type Row = [jail: string, section: string, ip: string, expected: string]

const IPTABLES = 'banaction = iptables-remote\nbanaction_allports = iptables-remote-allports\n'
const remote = (options: string) => `action = iptables-remote[${options}]`

const ROWS: Row[] = [
  ['plain', 'port = ssh', '192.0.2.1', 'plain 192.0.2.1 22 tcp'],
  [
    'ranges',
    'port = 5060-5061,10000-20000',
    '192.0.2.1',
    'ranges 192.0.2.1 5060:5061,10000:20000 tcp',
  ],
  ['any', 'port = any', '192.0.2.1', 'any 192.0.2.1 all tcp'],
  ['dash', 'port = 0-65535', '192.0.2.1', 'dash 192.0.2.1 all tcp'],
  ['colon', 'port = 0:65535', '192.0.2.1', 'colon 192.0.2.1 all tcp'],
  ['empty', 'port =', '192.0.2.1', 'empty 192.0.2.1 all tcp'],
  ['names', 'port = smtp, smtps', '192.0.2.1', 'names 192.0.2.1 25,465 tcp'],
  ['quoted', "port = 'smtp,smtps'", '192.0.2.1', 'quoted 192.0.2.1 25,465 tcp'],
  ['comma', 'port = smtp,', '192.0.2.1', 'comma 192.0.2.1 25 tcp'],
  [
    'braces',
    'port = { 22, 80 }\nprotocol = {tcp,udp}',
    '192.0.2.1',
    'braces 192.0.2.1 22,80 tcp,udp',
  ],
  ['ftp', 'port = ftp,ftp-data', '192.0.2.1', 'ftp 192.0.2.1 20:21 tcp'],
  ['ip', 'port = 22\nprotocol = ip', '192.0.2.1', 'ip 192.0.2.1 22 all'],
  ['both', 'port = 22\nprotocol = tcp udp', '192.0.2.1', 'both 192.0.2.1 22 tcp,udp'],
  ['upper', 'port = 22\nprotocol = TCP', '192.0.2.1', 'upper 192.0.2.1 22 tcp'],
  ['number', 'port = 22\nprotocol = 17', '192.0.2.1', 'number 192.0.2.1 22 udp'],
  ['icmp', 'port = 22\nprotocol = ipv6-icmp', '2001:db8::1', 'icmp 2001:db8::1 22 icmp'],
  ['unread', 'port = no-such-service', '192.0.2.1', 'Cannot read port "no-such-service"'],
  ['unread-too', 'port = 22\nprotocol = bogus', '192.0.2.1', 'Cannot read protocol "bogus"'],
  ['not', 'port = !22', '192.0.2.1', 'no line'],
  // jail.conf hands 0:65535 and tcp to a jail like recidive, whatever banaction_allports says.
  ['many', 'banaction = %(banaction_allports)s', '192.0.2.1', 'many 192.0.2.1 all all'],
  ['mask', remote('mask=/24'), '10.20.40.62', 'mask 10.20.40.0/24 22 tcp'],
  ['mask-6', remote('mask=/24'), '2001:db8::1', 'mask-6 2001:db8::1 22 tcp'],
  ['mask6', remote('mask6=64'), '2001:db8::1', 'mask6 2001:db8::/64 22 tcp'],
  ['mask6-4', remote('mask6=64'), '10.20.40.62', 'mask6-4 10.20.40.62 22 tcp'],
  ['bare', remote('mask=24, mask6=/64'), '10.20.40.62', 'bare 10.20.40.0/24 22 tcp'],
  ['none', remote('mask=, mask6=""'), '10.20.40.62', 'none 10.20.40.62 22 tcp'],
  ['by-hand', remote('mask=/24'), '10.20.40.64/26', 'by-hand 10.20.40.64/26 22 tcp'],
  ['by-hand-6', remote('mask6=/64'), '2001:db8::/56', 'by-hand-6 2001:db8::/56 22 tcp'],
  ['ssh-iptables', remote('name=SSH, port=ssh, protocol=tcp'), '192.0.2.1', 'SSH 192.0.2.1 22 tcp'],
  ['pass', `${remote('blocktype=RETURN, returntype=DROP')}`, '192.0.2.1', 'turned'],
  ['stock-pass', 'action = %(action_)s[blocktype=RETURN, returntype=DROP]', '192.0.2.1', 'turned'],
  [
    'reject',
    remote('blocktype="REJECT --reject-with icmp-port-unreachable"'),
    '192.0.2.1',
    'reject 192.0.2.1 22 tcp',
  ],
]

const folder = temporaryFolder('notation')

describe('Fail2Ban hands over', { concurrency: 1 }, () => {
  const etc = `${folder}/etc`
  const queue = `${folder}/queue`
  const client = async (...args: string[]) => {
    const answer = await run('fail2ban-client', ['-c', etc, '-s', `${folder}/sock`, ...args])
    return `${answer.stdout}${answer.stderr}`
  }
  const log = () => readFileSync(`${folder}/log`, 'utf8')
  const jails = (rows: Row[]): string =>
    rows
      .map(([jail, section]) => `[${jail}]\n${KEYS}logpath = ${folder}/watched\n${section}\n`)
      .join('\n')

  before(async () => {
    cpSync('/etc/fail2ban', etc, { recursive: true })
    cpSync('action.d', `${etc}/action.d`, { recursive: true })
    rmSync(`${etc}/jail.d`, { recursive: true })
    mkdirSync(queue)
    writeFileSync(`${folder}/watched`, '')
    writeFileSync(`${etc}/filter.d/x.conf`, '[Definition]\nfailregex = ^ failure <ADDR>$\n')
    for (const name of ['iptables-remote', 'sophosxg', 'fortigate', 'net2ban']) {
      writeFileSync(
        `${etc}/action.d/${name}.local`,
        `[Init]\ndelivery = queued\nqueue = ${queue}\n`,
      )
    }
    const at = (name: string) => `${folder}/${name}`
    writeFileSync(
      `${etc}/fail2ban.local`,
      `[Definition]\nlogtarget = ${at('log')}\nsocket = ${at('sock')}\npidfile = ${at('pid')}\ndbfile = None\n`,
    )
    writeFileSync(`${etc}/jail.local`, `[DEFAULT]\n${IPTABLES}\n${jails(ROWS)}`)
    const said = await client('start')
    assert.match(said, /Server ready/)
  })
  after(async () => {
    const pid = readFileSync(`${folder}/pid`, 'utf8').trim()
    await client('stop')
    const gone = async () => !existsSync(`/proc/${pid}`)
    await waitUntil('the end of Fail2Ban', gone, { timeout: 60_000 })
  })

  /** Bans, and tells what f2b-deliver reads in the queue. */
  const ban = async (jail: string, ip: string, sibling = 'firewall') => {
    rmSync(`${queue}/${sibling}`, { force: true })
    await client('set', jail, 'banip', ip)
    const verbs = { ban: '', unban: '' }
    await client('set', jail, 'unbanip', ip)
    for (const line of readLines(`${queue}/${sibling}`)) {
      try {
        const read = parseOperation(line, [], PREFIXES)
        if (read?.verb !== 'ban' && read?.verb !== 'unban') continue
        const { ports, protocol } = (read.verb === 'ban' && read.naming) || {}
        const words = [read.jail, read.address.text, ports ?? '', protocol ?? '']
        verbs[read.verb] = words.join(' ').trimEnd()
      } catch (error) {
        verbs.ban = (error as Error).message
      }
    }
    return verbs
  }

  for (const [jail, section, ip, expected] of ROWS) {
    test(`of ${ip} with ${section.replaceAll('\n', ', ')}: ${expected}`, async () => {
      const said = await ban(jail, ip)
      if (expected === 'turned') {
        assert.deepEqual(said, { ban: '', unban: '' })
        const sentence = `Cannot serve jail ${jail}: with blocktype=RETURN and returntype=DROP it would block whom it lets in`
        assert.ok(log().includes(sentence))
      } else if (expected === 'no line') {
        assert.equal(said.ban, '')
        assert.match(log(), /Cannot take a ban with such characters in it/)
      } else if (expected.startsWith('Cannot')) {
        assert.ok(said.ban.startsWith(expected), said.ban)
      } else {
        assert.equal(said.ban, expected)
        // What frees an address says the same of it.
        assert.equal(said.unban, expected.split(' ').slice(0, 2).join(' '))
      }
    })
  }
})

test('f2b-sync refuses the words that an action line refuses', async () => {
  const conf = readFileSync('action.d/perimeter-blocks.conf', 'utf8')
  const [, text = ''] = /^_blocks = ((?:.*\n)(?:[ \t]+.*\n)*)/m.exec(conf) ?? []
  const types = ['', 'DROP', 'drop', 'REJECT --reject-with tcp-reset', 'reject with tcp reset']
  const turned = ['RETURN', 'ACCEPT', 'accept', 'return', 'allow', 'LOG', 'MY-CHAIN']
  for (const blocktype of [...types, ...turned]) {
    for (const returntype of ['', 'RETURN', 'return', 'ACCEPT', 'DROP']) {
      const script = text
        .replaceAll('<blocktype>', blocktype)
        .replaceAll('<returntype>', returntype)
      const { code } = await run('sh', ['-c', script])
      const good = types.includes(blocktype) && /^(|return)$/i.test(returntype)
      assert.equal(code, good ? 0 : 65, `${blocktype}/${returntype}`)
      const check = () => checkBlocktype({ blocktype, returntype })
      if (good) check()
      else assert.throws(check, { code: 65 }, `${blocktype}/${returntype}`)
    }
  }
})

function readLines(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean)
  } catch {
    return []
  }
}
