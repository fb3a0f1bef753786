import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { BACKENDS, type BackendName, openFirewall, type TestFirewall } from './lib/firewall.ts'

// What other programs may do to the kernel's part of the firewall side, on a real kernel: the sweep
// of each minute makes it good, says so, and leaves what is not ours alone.

const BANS = [
  'ban fail2ban-sshd 203.0.113.5 22 tcp',
  'ban fail2ban-web 203.0.113.6 80,443 tcp 4000000000',
  'ban fail2ban-web 203.0.113.128/26 80,443 tcp',
  'ban fail2ban-web 2001:db8:7::/64 80,443 tcp',
]

const NFT = 'inet fail2ban-perimeter'

/** Those that do nothing to a backend have nothing to do with it. */
const HARM: Record<string, string> = {
  'a flush of all rules': 'iptables -F; ip6tables -F',
  'a flush of all chains': 'iptables -F; iptables -X; ip6tables -F; ip6tables -X',
  'a flush of everything': `iptables -F; iptables -X; ip6tables -F; ip6tables -X; ipset destroy
    nft flush ruleset`,
  'a foreign rule set': `printf '*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n' |
    tee /run/rules | iptables-restore; ip6tables-restore </run/rules
    printf 'flush ruleset\ntable inet theirs { }\n' | nft -f -`,
  'a flush of one hook': `iptables -F FORWARD; nft flush chain ${NFT} forward`,
  "a flush of one jail's chain": `iptables -F fail2ban-web; nft flush chain ${NFT} fail2ban-web`,
  'a flush of one set': `ipset flush fail2ban-web-4; nft flush set ${NFT} fail2ban-web/inet4
    iptables -D fail2ban-web -s 203.0.113.6 -j DROP`,
  'a flush of the index': `ipset flush perimeter-banned-4; nft flush set ${NFT} banned/inet4
    iptables -F perimeter-look`,
  'another address in the place of one': `ipset del fail2ban-sshd-4 203.0.113.5
    ipset add fail2ban-sshd-4 203.0.113.7
    nft delete element ${NFT} fail2ban-sshd/inet4 { 203.0.113.5 }
    nft add element ${NFT} fail2ban-sshd/inet4 { 203.0.113.7 }
    iptables -D fail2ban-sshd -s 203.0.113.5 -j DROP
    iptables -A fail2ban-sshd -s 203.0.113.7 -j DROP`,
  'somebody else on the list of those who are free': `ipset add perimeter-never-4 203.0.113.5
    nft add element ${NFT} never-ban/4 { 203.0.113.5 }
    iptables -I fail2ban-sshd -s 203.0.113.5 -j RETURN`,
}

describe('drift', { concurrency: BACKENDS.length }, () => {
  for (const backend of BACKENDS) testBackend(backend)
})

function testBackend(backend: BackendName): void {
  describe(backend, { concurrency: 1 }, () => {
    let fw: TestFirewall
    let wanted: string[][]
    const looks = async (): Promise<string[][]> => [await fw.blocks(), await fw.jumps()]
    const rules = (): Promise<string> =>
      fw.box.sh(`nft -s list ruleset | sed 's/ expires [^ ,]*//'
        ipset save | sort | sed 's/timeout [1-9][0-9]*//'; iptables -S; ip6tables -S`)

    before(async () => {
      fw = await openFirewall()
      await fw.reset(backend)
      await fw.session(BANS)
      wanted = await looks()
      assert.equal(wanted.flat().length, 8)
    })
    after(() => fw.box.close())

    for (const [what, harm] of Object.entries(HARM)) {
      test(`${what} is made good by the sweep`, async () => {
        const never = () =>
          fw.box.sh(`ipset save perimeter-never-4; iptables -S fail2ban-sshd
          nft list set ${NFT} never-ban/4`)
        const free = await never()
        await fw.box.sh(harm)
        const swept = await fw.root('sweepips')
        assert.deepEqual([swept.code, swept.stderr], [0, ''])
        assert.deepEqual(await looks(), wanted)
        const sorted = (text: string) =>
          text
            .split('\n')
            .sort()
            .filter((line) => !line.startsWith('create'))
        assert.deepEqual(sorted(await never()), sorted(free))
      })
    }

    test('what is repaired is said, and checkfw and a session that syncs repair it too', async () => {
      await fw.box.sh(HARM['a flush of everything'] ?? '')
      const { code, stdout } = await fw.ask('checkfw')
      assert.equal(code, 0)
      assert.match(stdout, /\nrestored 4 blocks that the kernel did not have as they should be\n$/)
      assert.deepEqual(await looks(), wanted)
      await fw.box.sh(HARM['a flush of one hook'] ?? '')
      const same = ['sync fail2ban-sshd 22 tcp 1', '203.0.113.5 0']
      assert.deepEqual(await fw.session(same), ['ok added 0, extended 0, removed 0, unchanged 1'])
      assert.deepEqual(await looks(), wanted)
    })

    test('a sweep that finds nothing changes nothing', async () => {
      const before = await rules()
      await fw.root('sweepips')
      assert.equal(await rules(), before)
    })
  })
}
