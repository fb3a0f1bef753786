import assert from 'node:assert/strict'
import { uptime } from 'node:os'
import { after, before, describe, test } from 'node:test'
import {
  BACKENDS,
  type BackendName,
  LEDGER,
  leasesOf,
  openFirewall,
  PERIMETER,
  type TestFirewall,
} from './lib/firewall.ts'
import { waitUntil } from './lib/wait.ts'

/** On a busy machine. */
const SLOW = { timeout: 90_000 }

// The firewall side as it is installed, over the kernel of this machine. Each backend has a machine
// and a network of its own, so the three run side by side.
describe('over a real kernel', { concurrency: BACKENDS.length }, () => {
  for (const backend of BACKENDS) testBackend(backend)
})

function testBackend(backend: BackendName): void {
  describe(backend, { concurrency: 1 }, () => {
    let fw: TestFirewall

    before(async () => {
      fw = await openFirewall()
    })
    after(() => fw.box.close())

    /** Something must end well: in a session where there can be one, else silently in a process. */
    const ok = async (request: string, owner?: string): Promise<string> => {
      if (request !== 'checkfw') {
        const answer = await fw.say(request, owner)
        assert.doesNotMatch(answer, /^error /, request)
        return answer
      }
      const { code, stdout, stderr } = await fw.ask(request, owner)
      assert.deepEqual({ request, code, stderr }, { request, code: 0, stderr: '' })
      return stdout
    }

    test('ten identical bans in parallel leave one block and one jump per hook', async () => {
      await fw.reset(backend)
      const ban = 'banip fail2ban-sshd 203.0.113.5 22 tcp'
      const all = await Promise.all(Array.from({ length: 10 }, () => fw.ask(ban)))
      assert.deepEqual(new Set(all.map(({ code, stderr }) => `${code}${stderr}`)), new Set(['0']))
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.5'])
      assert.deepEqual(await fw.jumps(), ['FORWARD fail2ban-sshd 22', 'INPUT fail2ban-sshd 22'])
      assert.equal((await fw.ledger()).match(/^203/gm)?.length, 1)
    })

    test('look-alike addresses, chains and ranges never meet', async () => {
      await fw.reset(backend)
      const seen = async (): Promise<string> => (await fw.blocks()).join(' | ')
      await fw.session([
        'ban fail2ban-ssh 1.2.3.4 22 tcp',
        'ban fail2ban-ssh 182.3.4.9 22 tcp',
        'ban fail2ban-ssh-ddos 1.2.3.4 22 tcp',
        'ban fail2ban-ssh 11.2.3.4 22 tcp',
      ])
      await ok('unbanip fail2ban-ssh 1.2.3.4')
      assert.equal(
        await seen(),
        'fail2ban-ssh 11.2.3.4 | fail2ban-ssh 182.3.4.9 | fail2ban-ssh-ddos 1.2.3.4',
      )
      await ok('fluships fail2ban-ssh')
      assert.equal(await seen(), 'fail2ban-ssh-ddos 1.2.3.4')
      const range = 'fail2ban-ssh-ddos 1.2.3.0/24'
      await fw.session([`ban ${range} 22 tcp`, 'ban fail2ban-ssh-ddos 1.2.3.0 22 tcp'])
      await ok('unbanip fail2ban-ssh-ddos 1.2.3.0')
      assert.equal(await seen(), `${range} | fail2ban-ssh-ddos 1.2.3.4`)
      await ok(`unbanip ${range}`)
      assert.equal(await seen(), 'fail2ban-ssh-ddos 1.2.3.4')
    })

    test('the last owner releases', async () => {
      await fw.reset(backend)
      for (const owner of ['web1', 'web2'])
        await ok('banip fail2ban-sshd 2001:db8::5 22 tcp', owner)
      await ok('unbanip fail2ban-sshd 2001:db8::5', 'web1')
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 2001:db8::5'])
      assert.equal(await ok('listips', 'web1'), '')
      await ok('fluships', 'web1')
      await ok('unbanip fail2ban-sshd 2001:db8::5', 'web3')
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 2001:db8::5'])
      await ok('unbanip fail2ban-sshd 2001:db8::5', 'web2')
      assert.deepEqual(await fw.blocks(), [])
    })

    test('the longest lease wins, and a ban that is over enters nothing', async () => {
      await fw.reset(backend)
      const far = 4_000_000_000
      const ban = (end: number): Promise<string> =>
        ok(`banip fail2ban-sshd 203.0.113.5 22 tcp ${end}`)
      await ban(1_600_000_000)
      assert.deepEqual(await fw.blocks(), [])
      assert.equal(await ok('listips'), '')
      await ban(far)
      await ban(far - 1000)
      await ban(1_600_000_000)
      assert.equal(await ok('listips'), `203.0.113.5 sshd ${far} web1\n`)
      await ban(0)
      await ban(far)
      assert.equal(await ok('listips'), '203.0.113.5 sshd 0 web1\n')
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.5'])
    })

    test('a changed port list moves the jump, and several owners get the union', async () => {
      await fw.reset(backend)
      const jumpsAfter = async (ports: string, owner: string): Promise<string> => {
        await ok(`banip fail2ban-sshd 203.0.113.5 ${ports} tcp`, owner)
        return (await fw.jumps()).join(' | ')
      }
      const jumps = (ports: string): string =>
        `FORWARD fail2ban-sshd ${ports} | INPUT fail2ban-sshd ${ports}`
      assert.equal(await jumpsAfter('22', 'web1'), jumps('22'))
      assert.equal(await jumpsAfter('2222', 'web1'), jumps('2222'))
      assert.equal(await jumpsAfter('ssh,1000:2000', 'web2'), jumps('22,1000:2000,2222'))
      await ok('fluships fail2ban-sshd', 'web1')
      assert.equal((await fw.jumps()).join(' | '), jumps('22,1000:2000'))
      await ok('fluships', 'web2')
      assert.deepEqual(await fw.jumps(), [])
    })

    test('jail names of 64 characters with : and @ work, keep apart and are listed', async () => {
      await fw.reset(backend)
      const names = ['a', 'b'].map((end) => `${'long:jail@name.'.repeat(5).slice(0, 63)}${end}`)
      for (const name of names) await ok(`banip fail2ban-${name} 203.0.113.5 22 tcp`)
      assert.equal((await fw.blocks()).length, 2)
      assert.equal((await fw.jumps()).length, 4)
      const list = names.map((name) => `203.0.113.5 ${name} 0 web1\n`).join('')
      assert.equal(await ok('listips'), list)
      await ok(`unbanip fail2ban-${names[0]} 203.0.113.5`)
      assert.equal((await fw.blocks()).length, 1)
      assert.match(await ok('checkfw'), /^generation abcd0123\nleases 1\n$/)
    })

    test('what others have in the kernel stays byte for byte', async () => {
      await fw.reset(backend)
      await fw.box.sh(`nft add table inet theirs
        nft add set inet theirs fail2ban-sshd '{ type ipv4_addr; }'
        nft add chain inet theirs input '{ type filter hook input priority 0; }'
        nft add rule inet theirs input ip saddr @fail2ban-sshd drop
        ipset create f2b-sshd hash:ip; ipset add f2b-sshd 198.51.100.9
        iptables -N f2b-sshd; iptables -A f2b-sshd -s 203.0.113.5 -j REJECT
        iptables -A f2b-sshd -m comment --comment 'not fail2ban-perimeter' -j RETURN
        iptables -A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
        ip6tables -A FORWARD -s 2001:db8::7 -j DROP`)
      const theirs = (): Promise<string> =>
        fw.box.sh('nft list table inet theirs; ipset save; iptables -S; ip6tables -S')
      const before = await theirs()
      assert.match(before, /198\.51\.100\.9.*203\.0\.113\.5.*2001:db8::7/s)
      await ok('banip fail2ban-sshd 203.0.113.5 22 tcp')
      await ok('banip fail2ban-sshd 2001:db8::/48 22 tcp')
      await ok('checkfw')
      await ok('banip fail2ban-sshd 203.0.113.6 23 tcp')
      await ok('fluships')
      await fw.root('restorefw')
      await fw.root('restorefw', '--remove')
      assert.equal(await theirs(), before)
    })

    test('never_ban frees with the next command, whatever it is', async () => {
      await fw.reset(backend)
      const free = (): Promise<string> =>
        fw.box.sh('nft list table inet fail2ban-perimeter; ipset save; iptables -S')
      await ok('banip fail2ban-sshd 203.0.113.0/24 22 tcp')
      assert.doesNotMatch(await free(), /203\.0\.113\.77/)
      await fw.configure(`backend: ${backend}\nnever_ban: [203.0.113.77]\n`)
      await ok('listips')
      assert.match(await free(), /203\.0\.113\.77/)
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.0/24'])
      const overlaps = 'error 65 overlaps "203.0.113.77", which is in never_ban'
      assert.equal(await fw.say('banip fail2ban-sshd 203.0.113.77 22 tcp'), overlaps)
      assert.match(await fw.say('banip fail2ban-sshd 192.0.2.10 22 tcp'), /^error 65 /)
      await fw.configure(`backend: ${backend}\n`)
      await ok('checkfw')
      assert.doesNotMatch(await free(), /203\.0\.113\.77/)
    })

    test('max_leases refuses with 77 and counts what has ended as free', async () => {
      await fw.reset(backend, '# generation abcd0123 1\n203.0.113.9 sshd 1600000000 web1\n')
      await fw.configure(`backend: ${backend}\nmax_leases: 2\n`)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      await ok('banip fail2ban-sshd 203.0.113.2 22 tcp')
      await ok('banip fail2ban-sshd 203.0.113.2 22 tcp 4000000000')
      const full = 'error 77 max_leases 2 reached: no room for more of "web1"'
      assert.equal(await fw.say('banip fail2ban-sshd 203.0.113.3 22 tcp'), full)
      await ok('banip fail2ban-sshd 203.0.113.3 22 tcp', 'web2')
      const before = await fw.ledger()
      const three = ['203.0.113.4 0', '203.0.113.5 0', '203.0.113.6 0']
      const sync = (lines: string[]): Promise<string> =>
        fw.say([`sync fail2ban-sshd - - ${lines.length}`, ...lines].join('\n'))
      assert.match(await sync(three), /^error 77 /)
      assert.equal(await fw.ledger(), before)
      const two = 'ok added 2, extended 0, removed 2, unchanged 0'
      assert.equal(await sync(three.slice(1)), two)
      assert.equal((await fw.blocks()).length, 3)
    })

    test('sync counts what changes and changes nothing else', async () => {
      await fw.reset(backend)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      await ok('banip fail2ban-sshd 203.0.113.2 22 tcp')
      await ok('banip fail2ban-sshd 203.0.113.2 22 tcp', 'web2')
      await ok('banip fail2ban-web 203.0.113.9 80 tcp')
      const leases = [
        '203.0.113.1 0',
        '203.0.113.3 4000000000',
        '127.0.0.1 0',
        '203.0.113.4 1600000000',
      ]
      const sync = ['sync fail2ban-sshd - - 4', ...leases]
      assert.deepEqual(await fw.session([...sync, ...sync]), [
        'ok added 1, extended 0, removed 1, unchanged 1, refused 1',
        'ok added 0, extended 0, removed 0, unchanged 2, refused 1',
      ])
      assert.deepEqual(await fw.blocks(), [
        'fail2ban-sshd 203.0.113.1',
        'fail2ban-sshd 203.0.113.2',
        'fail2ban-sshd 203.0.113.3',
        'fail2ban-web 203.0.113.9',
      ])
      const shorter = ['sync fail2ban-sshd 22 tcp 2', '203.0.113.1 3000000000', '203.0.113.3 0']
      const extended = 'ok added 0, extended 2, removed 0, unchanged 0'
      assert.equal(await fw.say(shorter.join('\n')), extended)
      assert.deepEqual(await fw.jumps(), [
        'FORWARD fail2ban-sshd 22',
        'FORWARD fail2ban-web 80',
        'INPUT fail2ban-sshd 22',
        'INPUT fail2ban-web 80',
      ])
    })

    test('a malformed stream gets an answer for each line, and what is right takes effect', async () => {
      await fw.reset(backend)
      const answers = await fw.session([
        'ban fail2ban-sshd 203.0.113.1 22 tcp',
        'ban fail2ban-sshd 203.0.113.1 22',
        'ban INPUT 203.0.113.1 22 tcp',
        'ban fail2ban-sshd 203.0.113.1;id 22 tcp',
        'drop everything',
        'x'.repeat(600),
        'ban\tfail2ban-sshd 203.0.113.1 22 tcp',
        'sync fail2ban-sshd - - 2',
        '203.0.113.8 0',
        'garbage',
        'sync fail2ban-sshd - - -1',
        'unban fail2ban-sshd 203.0.113.200',
        'list',
      ])
      const codes = [64, 65, 65, 64, 65, 65, 65, 65].map((code) => `error ${code}`)
      assert.deepEqual(
        answers.map((line) => line.replace(/^(error \d+) .*/, '$1')),
        ['ok', ...codes, 'ok', '203.0.113.1 sshd 0 web1', 'ok'],
      )
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.1'])
    })

    test('a half-sent sync changes nothing and holds nobody up', async () => {
      await fw.reset(backend)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      const half = ['owner web1 192.0.2.10', 'firewall', 'list', 'sync fail2ban-sshd - - 3', '']
      await fw.write('/run/half', `${half.join('\n')}203.0.113.8 0\n`)
      await fw.box.sh(
        `(cat /run/half; exec sleep 600) 2>/dev/null | ${process.execPath} ${PERIMETER} >/run/answer 2>&1 &`,
      )
      await waitUntil(
        'the answer',
        async () => (await fw.box.sh('cat /run/answer')).endsWith('ok\n'),
        SLOW,
      )
      await ok('banip fail2ban-sshd 203.0.113.2 22 tcp')
      assert.deepEqual(await fw.blocks(), [
        'fail2ban-sshd 203.0.113.1',
        'fail2ban-sshd 203.0.113.2',
      ])
    })

    test('a lost ledger answers 75 until the owner has synced', async () => {
      await fw.reset(backend)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      await fw.box.sh(`rm ${LEDGER}`)
      const { code, stderr } = await fw.ask('checkfw')
      assert.equal(code, 75)
      assert.match(stderr, /^firewall: lost generation: .* needs a sync\n$/)
      await ok('banip fail2ban-sshd 203.0.113.2 22 tcp')
      assert.equal((await fw.ask('checkfw')).code, 75)
      const sync = await fw.say('sync fail2ban-sshd 22 tcp 1\n203.0.113.3 0')
      assert.equal(sync, 'ok added 1, extended 0, removed 1, unchanged 0')
      const check = await ok('checkfw')
      assert.match(check, /^generation [0-9a-f]{8}\nleases 1\n/)
      assert.doesNotMatch(check, /abcd0123/)
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.3'])
      assert.equal((await fw.ask('checkfw', 'web2')).code, 75)
      await ok('fluships', 'web2')
      await ok('checkfw', 'web2')
    })

    test('checkfw restores what a foreign flush took, and says so once', async () => {
      await fw.reset(backend)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      await ok('banip fail2ban-sshd 2001:db8::/48 22 tcp')
      const [blocks, jumps] = [await fw.blocks(), await fw.jumps()]
      assert.equal(blocks.length, 2)
      for (const flush of ['nft flush ruleset; ipset destroy', 'iptables -F INPUT; ipset flush']) {
        if (backend === 'nftables' && !flush.startsWith('nft')) continue
        await fw.box.sh(flush)
        assert.match(await ok('checkfw'), /\nrestored 2 blocks that the kernel did not have/)
        assert.deepEqual([await fw.blocks(), await fw.jumps()], [blocks, jumps])
        assert.doesNotMatch(await ok('checkfw'), /restored/)
      }
      await fw.box.sh('nft flush ruleset; ipset destroy')
      await ok('banip fail2ban-sshd 203.0.113.2 22 tcp')
      assert.deepEqual(await fw.blocks(), [...blocks, 'fail2ban-sshd 203.0.113.2'].sort())
    })

    test('checkfw is content when nothing should be blocked', async () => {
      await fw.reset(backend)
      const content = 'generation abcd0123\nleases 0\n'
      assert.equal(await ok('checkfw'), content)
      await fw.box.sh('nft flush ruleset; ipset destroy')
      assert.equal(await ok('checkfw'), content)
    })

    test('another backend in firewall.yaml leaves nothing of the old', async () => {
      const other = BACKENDS[(BACKENDS.indexOf(backend) + 1) % BACKENDS.length]
      await fw.reset(backend)
      const all = (): Promise<string> => fw.box.sh('nft list ruleset; ipset save; iptables -S')
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      await ok('banip fail2ban-gone 203.0.113.2 22 tcp')
      await fw.configure(`backend: ${other}\n`)
      await ok('unbanip fail2ban-gone 203.0.113.2')
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.1'])
      const now = await all()
      assert.equal(/table inet fail2ban-perimeter/.test(now), other === 'nftables')
      assert.equal(/^create /m.test(now), other === 'ipset')
      assert.equal(/^-A fail2ban-sshd -s .* -j DROP/m.test(now), other === 'iptables')
      assert.equal(/^-N fail2ban-/m.test(now), other !== 'nftables')
    })

    test('killed at any moment, checkfw makes the kernel equal to the ledger', async () => {
      await fw.reset(backend)
      const killed = async (n: number): Promise<void> => {
        const verb = n % 3 === 2 ? `unbanip fail2ban-j${n % 2} 203.0.113.${n - 1}` : ''
        const request = verb || `banip fail2ban-j${n % 2} 203.0.113.${n} ${20 + (n % 4)} tcp`
        const seconds = String(0.02 + ((n * 7) % 10) / 20)
        const input = `owner web1 192.0.2.10\n${request}\n`
        await fw.box.run('timeout', ['-s', 'KILL', seconds, process.execPath, PERIMETER], { input })
      }
      for (const n of [1, 6]) {
        await Promise.all([0, 1, 2, 3, 4].map((more) => killed(n + more)))
      }
      // What a killed one had started may go on for a moment.
      await waitUntil(
        'no tool runs',
        async () => (await fw.box.sh('pgrep -r D,R,S "^(nft|ip)" 2>/dev/null')) === '',
        SLOW,
      )
      await ok('checkfw')
      assert.deepEqual(await fw.blocks(), leasesOf(await fw.ledger()))
      await ok('banip fail2ban-j0 203.0.113.200 22 tcp')
      await ok('fluships')
      assert.deepEqual([await fw.blocks(), await fw.jumps()], [[], []])
    })

    test('killed between ledger and kernel, also the last flush is made good', async () => {
      await fw.reset(backend)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      const env = await killers(fw, ['nft', 'ipset', 'iptables-restore', 'ip6tables-restore'])
      assert.equal((await fw.ask('fluships', 'web1', env)).code, 137)
      assert.deepEqual(leasesOf(await fw.ledger()), [])
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.1'])
      await ok('checkfw')
      assert.deepEqual([await fw.blocks(), await fw.jumps()], [[], []])
      assert.doesNotMatch(await fw.box.sh('ipset list -n'), /sshd/)
    })

    test('what the kernel refuses is taken back, and its chain with it', async () => {
      await fw.reset(backend)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      const env = await standIns(fw, 'exit 3', [
        'nft',
        'ipset',
        'iptables-restore',
        'ip6tables-restore',
      ])
      const batch = ['ban fail2ban-sshd 203.0.113.2 22 tcp', 'ban fail2ban-new 203.0.113.3 80 tcp']
      const answers = await fw.session(batch, 'web1', env)
      assert.match(answers.join('|'), /^error 75 [^|]*\|error 75 [^|]*$/)
      assert.deepEqual(leasesOf(await fw.ledger()), ['fail2ban-sshd 203.0.113.1'])
      await ok('checkfw')
      await ok('banip fail2ban-third 203.0.113.4 25 tcp')
      assert.deepEqual(await fw.jumps(), [
        'FORWARD fail2ban-sshd 22',
        'FORWARD fail2ban-third 25',
        'INPUT fail2ban-sshd 22',
        'INPUT fail2ban-third 25',
      ])
    })

    test('a full disk answers 75 and changes neither ledger nor kernel', async () => {
      await fw.reset(backend)
      const folder = LEDGER.replace(/\/[^/]*$/, '')
      await fw.box.sh(`mount -t tmpfs -o size=16k tmpfs ${folder}`)
      const ledger = `# generation abcd0123 1\n# ${'x'.repeat(4090)}`.slice(0, 4089)
      await fw.write(LEDGER, `${ledger}\n`)
      await fw.box.sh(`cat /dev/zero >${folder}/full`)
      const full = `error 75 Cannot write "${LEDGER}": the disk is full`
      assert.equal(await fw.say('banip fail2ban-sshd 203.0.113.1 22 tcp'), full)
      assert.equal(await fw.ledger(), `${ledger}\n`)
      assert.deepEqual(await fw.blocks(), [])
      await fw.box.sh(`rm ${folder}/full`)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.1'])
    })

    test('a ledger that was edited by hand works as far as it can be read', async () => {
      const lines = [
        '# generation abcd0123 1',
        '# chain letters are no good',
        '# widths sshd nonsense inet4/99',
        'what is this',
        'nonsense sshd 0 web1',
        '203.0.113.1/32 sshd 0 web1',
        '203.0.113.2 sshd never web1',
        '203.0.113.3 sshd 0 web1',
        '203.0.113.0/24 web 0 web2',
      ]
      await fw.reset(backend, `${lines.join('\n')}\n`)
      const damaged = await fw.ask('checkfw')
      assert.match(
        `${damaged.code} ${damaged.stderr}`,
        /^75 firewall: lost generation: .* needs a sync\n$/,
      )
      const aside =
        'what is this\nnonsense sshd 0 web1\n203.0.113.1/32 sshd 0 web1\n203.0.113.2 sshd never web1\n'
      assert.equal(await fw.box.sh(`cat ${LEDGER}.damaged`), aside)
      const blocks = ['fail2ban-sshd 203.0.113.3', 'fail2ban-web 203.0.113.0/24']
      assert.deepEqual(await fw.blocks(), blocks)
      await ok('banip fail2ban-third 203.0.113.4 25 tcp')
      await fw.root('restorefw')
      assert.deepEqual(await fw.blocks(), [
        'fail2ban-sshd 203.0.113.3',
        'fail2ban-third 203.0.113.4',
        blocks[1],
      ])
      assert.equal((await fw.jumps()).length, 6)
      assert.match(await ok('listips'), /^203.0.113.3 sshd 0 web1\n203.0.113.4 third 0 web1\n$/)
      assert.match(await fw.ledger(), /^# generation \S+ \d+ lost\n# chain letters are no good\n/)
      await ok('fluships')
      await ok('fluships', 'web2')
      assert.deepEqual([await fw.blocks(), await fw.jumps()], [[], []])
    })

    test('the sweeper ends what is over and compacts the ledger', async () => {
      const ended = Array.from(
        { length: 1001 },
        (_, i) => `10.1.${i >> 8}.${i & 255} sshd 1600000000 web1`,
      )
      const head = ['# generation abcd0123 1', '# a note']
      await fw.reset(backend, `${[...head, ...ended].join('\n')}\n`)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp 4000000000')
      await ok('banip fail2ban-sshd 203.0.113.2 22 tcp 4000000000')
      // Time passes: the second is over now, and a kernel with a clock has ended it.
      await fw.box.sh(`sed -i 's/^\\(203.0.113.2 sshd\\) 4000000000/\\1 1600000001/' ${LEDGER}`)
      await fw.root('sweepips')
      assert.match(
        await fw.ledger(),
        /^10\.1\.3\.232 sshd 1600000000 web1$/m,
        'the clock may be wrong',
      )
      const began = Date.now() / 1000 - uptime()
      await fw.write(
        '/run/fail2ban-perimeter/firewall.clock',
        JSON.stringify({ began, since: -4000 }),
      )
      const { code, stderr } = await fw.root('sweepips')
      assert.deepEqual([code, stderr], [0, ''])
      if (backend === 'iptables') assert.deepEqual(await fw.blocks(), ['fail2ban-sshd 203.0.113.1'])
      const own = ['# chain sshd web1 22 tcp', '# owner web1 session=0 ahead=0 peer=192.0.2.10']
      const rest = [...own, '203.0.113.1 sshd 4000000000 web1', '']
      assert.equal(await fw.ledger(), [...head, ...rest].join('\n'))
      assert.match(await ok('checkfw'), /^generation abcd0123\nleases 1\n/)
    })

    test('a torn last line was never acknowledged and is cut off', async () => {
      await fw.reset(backend)
      await ok('banip fail2ban-sshd 203.0.113.1 22 tcp')
      const before = await fw.ledger()
      await fw.write(LEDGER, `${before}203.0.113.8 sshd 0 we`)
      await ok('banip fail2ban-sshd 203.0.113.2 22 tcp')
      assert.equal(await fw.ledger(), `${before}203.0.113.2 sshd 0 web1\n`)
      assert.deepEqual(await fw.blocks(), [
        'fail2ban-sshd 203.0.113.1',
        'fail2ban-sshd 203.0.113.2',
      ])
    })
  })
}

/** An environment where tools are stand-ins for a line of shell that is run instead of them. */
async function standIns(
  fw: TestFirewall,
  line: string,
  tools: string[],
): Promise<NodeJS.ProcessEnv> {
  const folder = `/run/tools-${line.length}`
  for (const tool of tools) await fw.write(`${folder}/${tool}`, `#!/bin/sh\n${line}\n`)
  await fw.box.sh(`chmod +x ${folder}/*`)
  return { ...process.env, PATH: `${folder}:${process.env.PATH}` }
}

/** Tools that kill whoever tells them to change something; they may be started before. */
function killers(fw: TestFirewall, tools: string[]): Promise<NodeJS.ProcessEnv> {
  return standIns(
    fw,
    'case "$*" in -[cj]* | list*) exec "/usr/sbin/$(basename "$0")" "$@" ;; esac\nread -r _ && kill -9 $PPID',
    tools,
  )
}
