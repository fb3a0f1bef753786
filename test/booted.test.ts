import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { $ } from 'zx'
import { SUITES, type Suite } from './lib/bases.ts'
import { type Booted, type BootedPerimeter, bootPerimeter } from './lib/booted.ts'
import { temporaryFolder } from './lib/folder.ts'
import { blocksOf, linesOf } from './lib/readme.ts'
import { canConnect } from './lib/traffic.ts'
import { waitUntil } from './lib/wait.ts'

// The README's ten minutes, on machines that boot with systemd: every block as it stands there.
// F2B_NO_BOOTED=1 leaves them out.

const SERVER = '198.51.100.11'
const ATTACKER = '203.0.113.101'
const [INSTALL = '', NODE = '', ON_SERVER = '', ON_FIREWALL = '', BY_HAND = '', JAIL = ''] =
  blocksOf('Protect your servers in ten minutes', 6)
const [PACK = '', APT = '', INSTALL_PACKAGE = ''] = linesOf(INSTALL)
const [, INSTALL_NODE = ''] = linesOf(NODE)

const TARBALL = 'fail2ban-perimeter-0.1.0.tgz'

/** There is no way out of the lab, and npm would look for one for minutes. */
const NOBODY_ASKED = { npm_config_offline: 'true' }

/** What Debian leaves to the administrator: Debian 12 has no log file that the jail could read. */
const SSHD_JAIL = `
[sshd]
enabled = true
backend = systemd
maxretry = 3
`

for (const suite of SUITES) {
  describe(`README on ${suite}`, { skip: process.env.F2B_NO_BOOTED === '1' }, () => {
    let lab: BootedPerimeter
    let machines: Booted[]

    before(async () => {
      lab = await bootPerimeter(suite)
      machines = [lab.firewall, lab.server]
      // The base has one for the server; Debian 12's does not even start as it comes.
      await lab.firewall.sh('systemctl disable -q --now fail2ban; systemctl reset-failed')
    })
    after(() => lab?.close())

    test('1: the package installs on both sides', () => install(machines, suite))

    test('2 and 3: server and firewall are set up', async () => {
      const { server, firewall } = lab
      const print = 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub'
      const [, fingerprint = ''] = (await firewall.sh(print)).split(' ')
      // It asks a person, who has a terminal.
      const typed = `script -qec '${ON_SERVER.trim()}' /dev/null`
      const said = await server.sh(typed, { input: 'yes\n' })
      assert.ok(said.includes(fingerprint), said)
      const key = await server.sh('cat /etc/fail2ban-perimeter/id_ed25519.pub')
      assert.ok(said.includes(key.trim()), said)
      await firewall.sh('cat >web1.pub', { input: key })
      await firewall.sh(ON_FIREWALL)
    })

    test('4: a ban by hand', async () => {
      const said = await lab.server.sh(BY_HAND)
      assert.match(said, /^fine\n192\.0\.2\.77 sshd \d{10} web1\n$/)
    })

    test('5: an attacker is dropped at the firewall', async () => {
      await lab.server.sh('cat >/etc/fail2ban/jail.local', { input: JAIL + SSHD_JAIL })
      await lab.server.sh('systemctl restart fail2ban')
      await isBlocked(await attack(lab), true)
    })

    for (const side of ['firewall', 'server'] as const) {
      test(`the ban outlives a reboot of the ${side}, and a new attack is met`, async () => {
        await lab[side].reboot()
        await isBlocked(lab, true)
        await free(lab)
        await isBlocked(await attack(lab), true)
      })
    }

    test('no unit has failed, on either side', async () => {
      for (const machine of machines) {
        assert.equal(await machine.sh('systemctl --failed --no-legend --plain'), '', machine.name)
      }
    })
  })
}

async function install(machines: Booted[], suite: Suite): Promise<void> {
  assert.match(PACK, /^npm ci && npm pack /)
  const folder = temporaryFolder('package')
  // `npm ci` has been here; what it builds is what other tests use at this moment.
  await $({ quiet: true })`npm pack --ignore-scripts --pack-destination ${folder}`
  const input = readFileSync(`${folder}/${TARBALL}`, 'base64')
  const one = async (machine: Booted) => {
    await machine.sh(`base64 -d >${TARBALL}`, { input })
    await machine.sh(APT)
    await machine.sh(INSTALL_PACKAGE, { env: NOBODY_ASKED })
    if (suite === 'bookworm') {
      await isTooOld(machine)
      await machine.sh(INSTALL_NODE, { env: NOBODY_ASKED })
    }
    assert.equal(await machine.sh('f2b-setup --version'), '0.1.0\n')
  }
  await Promise.all(machines.map(one))
}

/** Debian 12's own Node.js: one sentence from every program of the package. */
async function isTooOld(machine: Booted): Promise<void> {
  const programs = '/usr/local/lib/node_modules/fail2ban-perimeter/dist/*.cjs'
  const firewallSide = '/usr/local/lib/node_modules/fail2ban-perimeter/dist/firewall-side/*.cjs'
  const said = await machine.sh(
    `for program in ${programs} ${firewallSide}; do code=0; $program || code=$?; echo $code; done`,
  )
  const pairs = said.trimEnd().split(/(?<=^\d+\n)/m)
  assert.ok(pairs.length > 20, said)
  const sentence = /^\S+: needs Node\.js 20\.19 or newer, this is 18\.\d+\.\d+: [^\n]+\n78\n?$/
  for (const pair of pairs) assert.match(pair, sentence)
}

/** Guesses names until the server has had enough. */
async function attack(lab: BootedPerimeter): Promise<BootedPerimeter> {
  await isBlocked(lab, false)
  const options = ['BatchMode=yes', 'StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null']
  const login = ['ssh', ...options.flatMap((option) => ['-o', option]), '-o', 'ConnectTimeout=2']
  await waitUntil(
    'Fail2Ban to ban the attacker',
    async () => {
      // Who is banned in the middle of it hears nothing any more.
      await lab.attacker.exec([...login, `guess@${SERVER}`, 'true'], { timeout: 5000 })
      return !(await reaches(lab))
    },
    { timeout: 60_000 },
  )
  const list = await lab.server.sh('f2b-firewall list')
  assert.match(list, new RegExp(`^${ATTACKER} sshd \\d{10} web1$`, 'm'))
  return lab
}

async function free(lab: BootedPerimeter): Promise<void> {
  await waitUntil(
    'Fail2Ban to answer',
    async () => (await lab.server.exec(['fail2ban-client', 'ping'])).code === 0,
    { timeout: 60_000 },
  )
  await lab.server.sh(`fail2ban-client set sshd unbanip ${ATTACKER}`)
}

async function isBlocked(lab: BootedPerimeter, wanted: boolean): Promise<void> {
  const what = `packets to be ${wanted ? 'dropped' : 'let through'}`
  await waitUntil(what, async () => (await reaches(lab)) !== wanted, { timeout: 60_000 })
}

function reaches(lab: BootedPerimeter): Promise<boolean> {
  return canConnect(lab.attacker, { to: SERVER, port: 22, timeoutMs: 900 })
}
