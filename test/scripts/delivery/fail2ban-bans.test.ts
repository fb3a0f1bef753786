import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { after, before, describe, test } from 'node:test'
import {
  askFail2BanBans,
  type Fail2BanBans,
  isKept,
  sentenceOf,
} from '../../../scripts/lib/delivery/fail2ban-bans.ts'
import { loadAll } from '../../../scripts/lib/delivery/open.ts'
import { parseOperation } from '../../../scripts/lib/delivery/operation.ts'
import { wordsOf } from '../../../scripts/lib/delivery/queue.ts'
import { run } from '../../../scripts/lib/run.ts'
import { fail2banReleases } from '../../lib/fail2ban-releases.ts'
import { temporaryFolder } from '../../lib/folder.ts'
import { openFail2ban, type PrivateFail2ban } from '../../lib/private-fail2ban.ts'
import { waitUntil } from '../../lib/wait.ts'

// What people have in jail.local and what Fail2Ban says of it, in the versions that they run. What an
// action line hands over (it writes it into a queue here) must be what f2b-sync and f2b-status find.

const JAILS = `
[DEFAULT]
banaction = iptables-remote
banaction_allports = iptables-remote-allports
[several]
action = %(action_mw)s
         threatjammer
         fortigate
[readme]
action = %(action_)s
         threatjammer
[commas]
action = iptables-remote[name=commas, actname="ours, not theirs"]
         dummy[actname="theirs, of two words"]
[asterisk]
bantime = 700
[nsd]
[ssh-iptables]
action = iptables-remote[name=SSH, port=ssh]
[instances]
action = iptables-remote[name=instances-tcp, port=80, protocol=tcp, actname=tcp]
         iptables-remote[name=instances-udp, port="53,123", protocol=udp, actname=udp]
[twins]
action = iptables-remote[port=80, actname=first]
         iptables-remote[port=443, actname=second]
[mask]
action = iptables-remote[mask=/24]
[mask6]
action = iptables-remote[mask6=64]
[ports]
port = 5060-5061,10000-20000
[any]
port = any
protocol = ip
[listed]
port = smtp, smtps
protocol = tcp udp
[recidive]
banaction = %(banaction_allports)s
bantime = 800
[allports]
banaction = iptables-remote-allports
[pass2allow-ftp]
banaction = iptables-remote
[nginx+php]
[unreadable]
port = no-such-service
[users]
filter = users
action = iptables-remote
         fortigate
[bare]
action = dummy
`

/** Every jail that has an action of ours, and what it must not disturb. */
const BANNED: Record<string, string[]> = {
  several: ['203.0.113.1', '2001:db8::1'],
  readme: ['203.0.113.2'],
  commas: ['203.0.113.3'],
  asterisk: ['203.0.113.4'],
  nsd: ['2001:db8::4'],
  'ssh-iptables': ['203.0.113.5', '203.0.113.6'],
  instances: ['203.0.113.7', '2001:db8::7'],
  twins: ['203.0.113.8'],
  mask: ['10.20.40.62', '2001:db8::62', '10.20.41.64/26'],
  mask6: ['10.20.40.63', '2001:db8:1:2::63'],
  ports: ['203.0.113.9'],
  any: ['203.0.113.10'],
  listed: ['203.0.113.11'],
  recidive: ['203.0.113.12'],
  allports: ['203.0.113.13'],
  'pass2allow-ftp': ['203.0.113.14'],
  'nginx+php': ['203.0.113.15'],
  unreadable: ['203.0.113.16'],
  bare: ['203.0.113.17'],
}

const folder = temporaryFolder('truth')
const NAMES = ['firewall', 'threatjammer', 'fortigate']

/** Asks one, by a configuration that names the siblings that its jails use. */
async function truthOf(
  place: Record<string, string>,
  owner = 'web1',
): Promise<Map<string, Fail2BanBans>> {
  const config = `${folder}/config.yaml`
  writeFileSync(`${folder}/key`, 'tja_0123456789abcdefghijklmnopqrstuvwxyz\n', { mode: 0o600 })
  const keys = Object.entries(place).map(([key, value]) => `  ${key}: ${value}\n`)
  writeFileSync(
    config,
    `owner: ${owner}
state_dir: ${folder}/state
min_prefix: {ipv4: 16, ipv6: 48}
fail2ban:
${keys.join('')}firewalls:
  - host: edge1
threatjammer:
  key_file: ${folder}/key
fortigate:
  list_file: ${folder}/list
`,
  )
  return await askFail2BanBans(await loadAll(config))
}

/** `<address> <name> <expires> <ports>/<protocol>` */
function linesOf(truth: Map<string, Fail2BanBans>, sibling: string): string[] {
  const one = truth.get(sibling)
  const lines = one?.leases.map(({ address, jail, expires }) => {
    const naming = one.namings.get(jail)
    return `${address.text} ${jail} ${expires} ${naming ? `${naming.ports}/${naming.protocol}` : '-'}`
  })
  return (lines ?? []).sort()
}

const under = (truth: Map<string, Fail2BanBans>, name: string, sibling = 'firewall'): string[] =>
  linesOf(truth, sibling)
    .filter((line) => line.split(' ')[1] === name)
    .map((line) => line.replace(/ \d+ /, ' '))

const problemsOf = (truth: Map<string, Fail2BanBans>): string[] =>
  (truth.get('firewall')?.problems ?? []).map(sentenceOf)

/** What the deliverer reads in a queue: the same, and what it refuses. */
function queued(
  fail2ban: PrivateFail2ban,
  sibling: string,
): { leases: string[]; refused: string[] } {
  const held = new Map<string, string>()
  const namings = new Map<string, string>()
  const refused: string[] = []
  for (const line of read(`${fail2ban.queue}/${sibling}`).split('\n').filter(Boolean)) {
    try {
      const operation = parseOperation(line, [], { ipv4: 16, ipv6: 48 })
      if (operation?.verb !== 'ban' && operation?.verb !== 'unban') continue
      const key = `${operation.address.text} ${operation.jail}`
      if (operation.verb === 'unban') held.delete(key)
      else {
        held.set(key, String(operation.expires))
        const { ports, protocol } = operation.naming ?? {}
        namings.set(operation.jail, ports === undefined ? '-' : `${ports}/${protocol}`)
      }
    } catch {
      refused.push(wordsOf(line)?.[2] ?? '')
    }
  }
  const leases = [...held].map(
    ([key, end]) => `${key} ${end} ${namings.get(key.split(' ')[1] ?? '')}`,
  )
  return { leases: leases.sort(), refused }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

for (const release of await fail2banReleases()) {
  describe(`Fail2Ban ${release.version}`, () => {
    let fail2ban: PrivateFail2ban
    let truth: Map<string, Fail2BanBans>
    const ask = (place: Record<string, string> = {}): Promise<Map<string, Fail2BanBans>> =>
      truthOf({ socket: fail2ban.socket, ...place })

    before(async () => {
      rmSync(`${folder}/state`, { recursive: true, force: true })
      // Another time zone than ours, in the hour that comes twice: summer ended ten minutes ago.
      const end = new Date(Date.now() - 600_000 + 3_600_000)
      const day = Math.floor((end.getTime() - Date.UTC(end.getUTCFullYear(), 0)) / 86_400_000)
      const moment = end.toISOString().slice(11, 19)
      const TZ = `AAA0BBB-1,0/0,${day}/${moment}`
      fail2ban = await openFail2ban({ release, jails: JAILS, delivery: 'queued', env: { TZ } })
      for (const [jail, ids] of Object.entries(BANNED)) {
        await fail2ban.client('set', jail, 'banip', ...ids)
      }
      const now = Math.floor(Date.now() / 1000)
      fail2ban.write(`${now} user root 198.51.100.1`)
      fail2ban.write(`${now} user root@198.51.100.9 198.51.100.2`)
      await fail2ban.ban('users', 'mallory', '198.51.100.3')
      const all = async () => (await fail2ban.client('get', 'users', 'banip')).includes('root@')
      await waitUntil('the users', all, { every: 50 })
      truth = await ask()
    })
    after(() => fail2ban?.remove())

    test('all action lines: f2b-sync finds exactly what they have queued', () => {
      for (const sibling of NAMES) {
        const { leases } = queued(fail2ban, sibling)
        assert.ok(leases.length > 0, sibling)
        assert.deepEqual(linesOf(truth, sibling), leases)
      }
      assert.deepEqual(
        NAMES.map((name) => truth.get(name)?.inexact),
        [[], [], []],
      )
    })

    test('1.1 get JAIL actions: several in a jail, with commas and blanks in their names', () => {
      for (const sibling of NAMES) {
        const lines = under(truth, 'several', sibling).map((line) => line.split(' ')[0])
        assert.deepEqual(lines, ['2001:db8::1', '203.0.113.1'])
      }
      assert.deepEqual(under(truth, 'readme').length, 1)
      assert.deepEqual(under(truth, 'readme', 'threatjammer').length, 1)
      assert.deepEqual(under(truth, 'commas'), ['203.0.113.3 commas 22/tcp'])
      assert.deepEqual(under(truth, 'asterisk-tcp'), ['203.0.113.4 asterisk-tcp 5060:5061/tcp'])
      assert.deepEqual(under(truth, 'asterisk-udp'), ['203.0.113.4 asterisk-udp 5060:5061/udp'])
      assert.deepEqual(under(truth, 'nsd-udp'), ['2001:db8::4 nsd-udp 53/udp'])
      assert.deepEqual(under(truth, 'bare'), [])
    })

    test('1.2 get JAIL banip: IDs that are no addresses, and the addresses that the action got', () => {
      const lines = under(truth, 'users').map((line) => line.split(' ')[0])
      // `mallory` was banned by hand: no address at all, and refused by the action line.
      assert.deepEqual(lines, ['198.51.100.1', '198.51.100.2', '198.51.100.3'])
      assert.deepEqual(queued(fail2ban, 'firewall').refused.includes('users'), true)
    })

    test('1.3 moments: exact in another time zone, in the hour that comes twice', async () => {
      const shown = await fail2ban.client('get', 'asterisk', 'banip', '--with-time')
      const text = /\t(\S+) (\S+) \+/.exec(shown)
      const wrong = Date.parse(`${text?.[1]}T${text?.[2]}Z`) / 1000 + 700
      const own = queued(fail2ban, 'firewall').leases.find((line) => line.includes('asterisk-tcp'))
      const line = linesOf(truth, 'firewall').find((one) => one.includes('asterisk-tcp'))
      assert.equal(line, own)
      assert.ok(Math.abs(wrong - Date.now() / 1000) < 7300, 'a local time')
    })

    test('1.5 no ERROR line in the log by our questions', async () => {
      const before = fail2ban.errors()
      await ask()
      assert.deepEqual(fail2ban.errors().slice(before.length), [])
    })

    test('1.6 an error answer in the middle: that jail stays as it is, others are served', async () => {
      const proxy = await askedFor('readme', 'readmX', fail2ban.socket, 'actions')
      const odd = await ask({ socket: proxy.path })
      await proxy.close()
      assert.match(
        problemsOf(odd).join('\n'),
        /^jail "readme": it answers "readmX" to "get readme actions"$/m,
      )
      const one = odd.get('firewall')
      assert.ok(one && isKept(one, 'readme') && isKept(one, 'whatever-it-is-called'))
      assert.ok(!isKept(one, 'commas') && !isKept(one, 'SSH'))
      assert.deepEqual(under(odd, 'commas'), under(truth, 'commas'))
    })

    test('1.6 an answer about the bans that is an error: the same', async () => {
      const proxy = await askedFor('readme', 'readmX', fail2ban.socket, '--with-time')
      const odd = await ask({ socket: proxy.path })
      await proxy.close()
      const one = odd.get('firewall')
      assert.ok(one && isKept(one, 'readme') && !isKept(one, 'whatever-it-is-called'))
      assert.match(
        problemsOf(odd).join('\n'),
        /^jail "readme", action "iptables-remote": it answers/m,
      )
      assert.deepEqual(under(odd, 'commas'), under(truth, 'commas'))
    })

    test('1.7 the database where the configuration says it is', async () => {
      const copy = `${folder}/copy.sqlite3`
      writeFileSync(copy, readFileSync(fail2ban.database))
      const other = await ask({ database: copy })
      assert.deepEqual(linesOf(other, 'firewall'), linesOf(truth, 'firewall'))
      writeFileSync(copy, 'this is no database, whatever its name says')
      await assert.rejects(ask({ database: copy }), {
        code: 75,
        message: /^Cannot ask Fail2Ban: its database ".*" cannot be read: /,
      })
    })

    test('1.8 a stopped Fail2Ban whose socket systemd holds is not started', async () => {
      const path = `${folder}/activated.sock`
      // Process 1 of a machine of its own, as systemd is of this one.
      const alone = ['--pid', '--fork', '--kill-child', '--mount-proc']
      const listener = spawn('unshare', [
        ...alone,
        ...['systemd-socket-activate', '-l', path, 'touch', `${folder}/started`],
      ])
      try {
        await waitUntil('the socket', async () => existsSync(path), { every: 50 })
        const { stdout } = await run('pgrep', ['-P', String(listener.pid)])
        const program = readFileSync('scripts/lib/fail2ban.py', 'utf8')
        const inside = ['-t', stdout.trim(), '-p', '-m', '/usr/bin/python3', '-IS', '-']
        const question = JSON.stringify({ uses: 'x', socket: path })
        const said = await run('nsenter', [...inside, question], { input: program })
        assert.deepEqual(
          [said.code, said.stdout],
          [75, '{"failure": "it does not run (systemd would start it)"}\n'],
        )
        assert.equal(existsSync(`${folder}/started`), false)
      } finally {
        listener.kill('SIGKILL')
        rmSync(path, { force: true })
      }
    })

    test('2.1 a name that differs from the jail', () => {
      const lines = ['203.0.113.5 SSH 22/tcp', '203.0.113.6 SSH 22/tcp']
      assert.deepEqual(under(truth, 'SSH'), lines)
      assert.deepEqual(under(truth, 'ssh-iptables'), [])
    })

    test('2.2 two instances in one jail, each with its own ports; and two that share a name', () => {
      const tcp = ['2001:db8::7 instances-tcp 80/tcp', '203.0.113.7 instances-tcp 80/tcp']
      assert.deepEqual(under(truth, 'instances-tcp').sort(), tcp)
      assert.deepEqual(under(truth, 'instances-udp').length, 2)
      assert.deepEqual(under(truth, 'twins'), ['203.0.113.8 twins 443/tcp'])
      assert.match(problemsOf(truth).join('\n'), /^jail "twins", action "second": blocks 443\/tcp/m)
    })

    test('2.3 and 2.4 mask: the same range everywhere, for either family, also by hand', () => {
      const lines = ['10.20.40.0/24 mask 22/tcp', '10.20.41.64/26 mask 22/tcp']
      assert.deepEqual(under(truth, 'mask').sort(), [...lines, '2001:db8::62 mask 22/tcp'])
      const six = ['10.20.40.63 mask6 22/tcp', '2001:db8:1:2::/64 mask6 22/tcp']
      assert.deepEqual(under(truth, 'mask6').sort(), six)
    })

    test('2.5 ports and protocols in every notation; what cannot be read is left as it is', () => {
      assert.deepEqual(under(truth, 'ports'), ['203.0.113.9 ports 5060:5061,10000:20000/tcp'])
      assert.deepEqual(under(truth, 'any'), ['203.0.113.10 any all/all'])
      assert.deepEqual(under(truth, 'listed'), ['203.0.113.11 listed 25,465/tcp,udp'])
      assert.deepEqual(under(truth, 'unreadable'), [])
      assert.match(problemsOf(truth).join('\n'), /^jail "unreadable", .*Cannot read port/m)
      const one = truth.get('firewall')
      assert.ok(one && isKept(one, 'unreadable'))
      assert.ok(queued(fail2ban, 'firewall').refused.includes('unreadable'))
    })

    test('2.6 banaction_allports: all ports of all protocols', () => {
      assert.deepEqual(under(truth, 'recidive'), ['203.0.113.12 recidive all/all'])
      assert.deepEqual(under(truth, 'allports'), ['203.0.113.13 allports all/all'])
    })

    test('2.7 pass2allow: nobody who is let in is blocked, and that is said', () => {
      assert.deepEqual(under(truth, 'pass2allow-ftp'), [])
      assert.match(problemsOf(truth).join('\n'), /^jail "pass2allow-ftp", .*blocktype="RETURN"/m)
    })

    test('2.8 a jail named nginx+php: that jail alone is named', () => {
      const odd = problemsOf(truth).filter((one) => one.includes('nginx+php'))
      assert.equal(odd.length, 1)
      assert.match(odd[0] ?? '', /Cannot read jail name "nginx\+php"/)
    })

    // From here on, bans change.

    test('a ban that ends is proof, and so is a jail that is gone', async () => {
      await fail2ban.client('set', 'ssh-iptables', 'unbanip', '203.0.113.5')
      await fail2ban.client('stop', 'instances')
      const later = await ask()
      assert.deepEqual(under(later, 'SSH'), ['203.0.113.6 SSH 22/tcp'])
      const one = later.get('firewall')
      assert.ok(one && !isKept(one, 'SSH') && !isKept(one, 'instances-tcp'))
      assert.deepEqual(under(later, 'instances-tcp'), [])
    })

    test('1.4 after a restart: what was not restored counts until it is clear that it will not be', async () => {
      const seconds = 5000
      const began = Math.floor(Date.now() / 1000) - 1000
      const rows = ['203.0.113.1', '203.0.113.2', '203.0.113.3', '203.0.113.4', '203.0.113.5']
      await fail2ban.stop()
      fail2ban.configure(`
[sshd]
action = iptables-remote
bantime = ${seconds}
ignoreip = 203.0.113.2 203.0.113.5
[short]
action = iptables-remote
bantime = 900
`)
      const live = rows.filter((id) => !['203.0.113.2', '203.0.113.5'].includes(id))
      await fail2ban.forget()
      await fail2ban.store(rows.map((id) => ({ jail: 'sshd', id, began, seconds })))
      await fail2ban.store([{ jail: 'short', id: '203.0.113.6', began, seconds }])
      await fail2ban.start()
      const restored = async () => live.every((id) => fail2ban.restored('sshd').includes(id))
      await waitUntil('the restored bans', restored, { every: 50 })
      const ends = (ids: string[]): string[] =>
        ids.map((id) => `${id} sshd ${began + seconds} 22/tcp`)
      // The last one may still come, for all that is known; 2 was passed over; 6 has no time left.
      assert.deepEqual(linesOf(await ask(), 'firewall'), ends([...live, '203.0.113.5']))
      const file = `${folder}/state/restoring.json`
      const [name, progress] = JSON.parse(readFileSync(file, 'utf8').trimEnd())
      progress.since -= 121
      // As an earlier version wrote it, and as it is now.
      writeFileSync(file, JSON.stringify({ [name]: progress }))
      assert.deepEqual(linesOf(await ask(), 'firewall'), ends(live))
      writeFileSync(file, `${JSON.stringify([name, progress])}\n`)
      assert.deepEqual(linesOf(await ask(), 'firewall'), ends(live))
    })

    test('1.4 while it restores one by one, nobody is freed', async () => {
      await fail2ban.stop()
      fail2ban.configure(`
[sshd]
action = slow
         iptables-remote
`)
      writeFileSync(
        `${fail2ban.directory}/action.d/slow.conf`,
        '[Definition]\nactionban = sleep 0.4\n',
      )
      const began = Math.floor(Date.now() / 1000) - 100
      const ids = [1, 2, 3, 4, 5, 6].map((i) => `203.0.113.${i}`)
      await fail2ban.forget()
      await fail2ban.store(ids.map((id) => ({ jail: 'sshd', id, began, seconds: 600 })))
      await fail2ban.start()
      const all = ids.map((id) => `${id} sshd ${began + 600} 22/tcp`)
      for (let looks = 0; fail2ban.restored('sshd').length < ids.length; looks++) {
        assert.deepEqual(linesOf(await ask(), 'firewall'), all)
        assert.ok(looks < 500)
      }
      assert.deepEqual(linesOf(await ask(), 'firewall'), all)
    })

    test('bantime.increment: the end that the ban has now', async () => {
      await fail2ban.stop()
      fail2ban.configure(`
[sshd]
action = iptables-remote
bantime.increment = true
bantime.factor = 1
`)
      const began = Math.floor(Date.now() / 1000) - 5000
      await fail2ban.forget()
      // Banned twice before: the next ban is longer.
      await fail2ban.store([{ jail: 'sshd', id: '203.0.113.1', began, seconds: 1200 }])
      await fail2ban.start()
      fail2ban.write(`${Math.floor(Date.now() / 1000)} failure 203.0.113.1`)
      const longer = async () =>
        /\+ 2400 =/.test(await fail2ban.client('get', 'sshd', 'banip', '--with-time'))
      await waitUntil('a longer ban', longer, { every: 50 })
      const [line = ''] = linesOf(await ask(), 'firewall')
      const end = Number(line.split(' ')[2])
      assert.ok(Math.abs(end - Date.now() / 1000 - 2400) < 60, line)
    })

    test('1.7 without any database: the latest end that a ban can have, and never a local time', async () => {
      await fail2ban.stop()
      fail2ban.configure(
        '[sshd]\naction = iptables-remote\n[users]\nfilter = users\naction = iptables-remote\n',
      )
      writeFileSync(
        `${fail2ban.directory}/fail2ban.local`,
        read(`${fail2ban.directory}/fail2ban.local`).replace(/^dbfile = .*$/m, 'dbfile = None'),
      )
      await fail2ban.start()
      // Not one that its log names: without a database it reads the log again, from the beginning.
      await fail2ban.client('set', 'sshd', 'banip', '203.0.113.9')
      const now = Math.floor(Date.now() / 1000)
      fail2ban.write(`${now} user root 198.51.100.1`)
      const both = async () => (await fail2ban.client('get', 'users', 'banip')).includes('root')
      await waitUntil('the user', both, { every: 50 })
      const asked = Date.now() / 1000
      const later = await ask()
      const one = later.get('firewall')
      assert.deepEqual(one?.leases, [])
      const lease = one?.inexact.find(({ address }) => address.text === '203.0.113.9')
      assert.ok(lease)
      const began = lease.expires - 600
      assert.ok(began >= asked - 1 && began <= Date.now() / 1000 + 1, String(began - asked))
      // Whose address `root` stands for is not known: the leases of that jail stay.
      assert.ok(one && isKept(one, 'users') && !isKept(one, 'sshd'))
      assert.match(problemsOf(later).join('\n'), /^jail "users", .*without its database$/m)
    })

    test('a Fail2Ban that does not run frees nobody: 75', async () => {
      await fail2ban.stop()
      const message = /^Cannot ask Fail2Ban: it does not run \(no answer at ".*"\)$/
      await assert.rejects(ask(), { code: 75, message })
    })
  })
}

/** A socket that hands on to Fail2Ban, but asks for another jail in questions with that word. */
async function askedFor(jail: string, instead: string, socket: string, word: string) {
  const path = `${folder}/proxy.sock`
  rmSync(path, { force: true })
  const server = createServer((client) => {
    const real = createConnection(socket)
    real.on('error', () => client.destroy()).pipe(client)
    client.on('error', () => real.destroy()).on('close', () => real.destroy())
    client.on('data', (data) => {
      const text = data.toString('latin1')
      const odd = text.includes(word) ? text.replace(jail, instead) : text
      real.write(odd, 'latin1')
    })
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  return { path, close: () => new Promise((resolve) => server.close(resolve)) }
}
