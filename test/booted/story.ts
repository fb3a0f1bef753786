import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { $ } from 'zx'
import type { Suite } from '../lib/bases.ts'
import { type Booted, type BootedPerimeter, bootPerimeter } from '../lib/booted.ts'
import {
  bringAppliance,
  bringFortigate,
  bringSophos,
  bringThreatJammer,
} from '../lib/counterparts.ts'
import { temporaryFolder } from '../lib/folder.ts'
import { blocksOf, linesOf } from '../lib/readme.ts'
import { canConnect } from '../lib/traffic.ts'
import { waitUntil } from '../lib/wait.ts'

// The README's ten minutes, on machines that boot with systemd: every block as it stands there.
// F2B_NO_BOOTED=1 leaves them out.

const SERVER = '198.51.100.11'
export const ATTACKER = '203.0.113.101'
const [INSTALL = '', NODE = '', ON_SERVER = '', ON_FIREWALL = '', BY_HAND = '', JAIL = ''] =
  blocksOf('Protect your servers in ten minutes', 6)
const [PACK = '', APT = '', INSTALL_PACKAGE = ''] = linesOf(INSTALL)
const [, INSTALL_NODE = ''] = linesOf(NODE)

const [QUEUED = ''] = blocksOf('Never wait for the firewall: queued delivery', 1)
const [SOPHOS = '', SOPHOS_TEST = ''] = blocksOf('Block on a Sophos firewall', 2)
const [MIKROTIK = ''] = blocksOf('Block on a MikroTik router', 1)
const [OPNSENSE = ''] = blocksOf('Block on an OPNsense firewall', 1)
const [FORTIGATE = ''] = blocksOf('Block on a FortiGate', 1)
const [KEY_FILE = '', REPORTING_JAIL = ''] = blocksOf(
  'Report bans to Threat Jammer or AbuseIPDB',
  2,
)
const [PLAIN_SSH = ''] = blocksOf('Testing with plain SSH', 1)
const [STATUS = '', SHOWN = '', METRICS = ''] = blocksOf('What is blocked, where and why', 3)

const TARBALL = 'fail2ban-perimeter-0.1.0.tgz'

/** There is no way out of the lab, and npm would look for one for minutes. */
const NOBODY_ASKED = { npm_config_offline: 'true' }

/** What Debian leaves to the administrator: Debian 12 has no log file that the jail could read. */
const SSHD_JAIL = `enabled = true
backend = systemd
maxretry = 3
`

/** Tells it on machines of one release. */
export function tellReadme(suite: Suite): void {
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
      await jails(lab.server, `${JAIL}[sshd]\n`)
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

    test('queued delivery is switched on where it was off', async () => {
      const { server } = lab
      await server.sh('f2b-setup server --delivery direct')
      const [SWITCH = '', RESTART = '', LOOK = ''] = linesOf(QUEUED)
      assert.match(await server.sh(SWITCH), /^note: bans are queued from when Fail2Ban reads/m)
      await server.sh(RESTART)
      await says(server, LOOK, /f2b-deliver runs$/m)
      await isBlocked(await attack(await freed(lab)), true)
    })

    test('a Sophos firewall blocks', async () => {
      const { server, firewall } = lab
      await bringSophos(firewall, 'secret')
      const said = await typing(server, SOPHOS.trim(), { 'yes/no': 'yes', 'password:': 'secret' })
      assert.match(said, /^logged in to 198\.51\.100\.1 as apiuser\r$/m)
      await jails(server, '[DEFAULT]\nbanaction = sophosxg\n[sshd]\n')
      const [BAN = '', UNBAN = ''] = linesOf(SOPHOS_TEST)
      const [, LIST = ''] = BAN.split(' && ')
      await server.sh(BAN)
      await says(server, LIST, /^192\.168\.13\.37 sshd \d{10} web1$/m)
      await server.sh(UNBAN)
      await says(server, LIST, /^(?![\s\S]*192\.168\.13\.37)/)
    })

    test('a MikroTik router blocks', async () => {
      const { server, firewall } = lab
      const end = await bringAppliance(firewall, 'mikrotik')
      const answers = { 'Press Enter': '', 'yes/no': 'yes', 'password:': 'secret' }
      const said = await typing(server, MIKROTIK.trim(), answers)
      assert.match(said, /^ {2}\/user add name=f2b group=f2b address=198\.51\.100\.11 password=/m)
      assert.match(
        said,
        /^logged in to 198\.51\.100\.1 as f2b, who may write the address list f2b\r$/m,
      )
      await blocksAlone(server, 'mikrotik')
      await end()
    })

    test('an OPNsense firewall blocks', async () => {
      const { server, firewall } = lab
      const end = await bringAppliance(firewall, 'opnsense')
      const file = OPNSENSE.trim().split(' ').at(-1) ?? ''
      await server.sh(`umask 077; cat >${file}`, { input: 'key=w86XNZob\nsecret=secret\n' })
      const said = await typing(server, OPNSENSE.trim(), { 'yes/no': 'yes' })
      assert.match(said, /^the key for 198\.51\.100\.1 may read and change tables\r$/m)
      await blocksAlone(server, 'opnsense')
      await end()
    })

    test('a FortiGate has its own failed logins banned', async () => {
      const { server, firewall } = lab
      await server.sh(`openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=web1 \
        -addext subjectAltName=IP:192.0.2.10 -keyout feed.key -out feed.pem
        ip address add 192.0.2.10/32 dev lo`)
      await firewall.sh('ip route add 192.0.2.10 via 198.51.100.11')
      const printed = await server.sh(FORTIGATE)
      // Below other lines, as they were printed.
      const own = printed.slice(printed.lastIndexOf('\n[fortigate]\n'))
      await jails(server, `${JAIL}${own}\n[sshd]\n`)
      const cert = await server.sh('cat feed.pem')
      const device = await bringFortigate(firewall, printed, cert)
      assert.equal(await device.feed(), '')
      await device.fail('203.0.113.55')
      await waitUntil('the feed', async () => (await device.feed()) === '203.0.113.55\n')
      await server.sh('fail2ban-client set fortigate unbanip 203.0.113.55')
      await waitUntil('the feed to be empty', async () => (await device.feed()) === '')
      const started = () => server.sh('systemctl show -P InvocationID f2b-fortigate-feed')
      const before = await started()
      await server.sh('cp feed.pem renewed && cat renewed >feed.pem')
      await waitUntil('the renewed certificate', async () => (await started()) !== before)
      await waitUntil('the feed again', async () => (await device.feed().catch(() => '?')) === '')
    })

    test('bans are reported to Threat Jammer', async () => {
      const { server } = lab
      const key = 'tja_0123456789abcdefghijklmnopqrstuvwxyz'
      // Our simulator in place of the service that the block leads to.
      const section = `\n${KEY_FILE}${await bringThreatJammer(server, key)}`
      await server.sh('umask 077; cat >/etc/fail2ban-perimeter/threatjammer.key', { input: key })
      await server.sh('cat >>/etc/fail2ban-perimeter/config.yaml', { input: section })
      await server.sh('f2b-setup server')
      await server.sh('f2b-threatjammer check')
      await jails(server, `${JAIL}${REPORTING_JAIL}`)
      await server.sh('fail2ban-client set sshd banip 1.2.3.4')
      await says(server, 'f2b-firewall list', /^1\.2\.3\.4 sshd /m)
      // It answers ten questions a minute.
      await says(server, 'f2b-threatjammer list', /^1\.2\.3\.4 /m, 10_000)
    })

    test('plain ssh says what the document says', async () => {
      const { server } = lab
      // No sync shall come in between, and none that has begun already.
      await server.sh('systemctl stop fail2ban-perimeter-sync.timer; f2b-sync || true')
      const asTyped = `shopt -s expand_aliases\n${PLAIN_SSH}`
      assert.match(await server.sh(asTyped), /^192\.0\.2\.77 sshd 0 web1$/m)
      assert.doesNotMatch(await server.sh('f2b-firewall list'), /192\.0\.2\.77/)
      await server.sh(asTyped.replace(/^fw unbanip.*$/m, 'f2b-sync; fw listips'))
      assert.doesNotMatch(await server.sh('f2b-firewall list'), /192\.0\.2\.77/)
      const said = await server.sh(`${asTyped}fw ls || echo $?`)
      assert.match(said, /Unknown command.*\n64\n$/)
      await server.sh('systemctl start fail2ban-perimeter-sync.timer')
    })

    test('f2b-status says what is blocked, where and why', async () => {
      const { server } = lab
      const [ALL = '', ONE = '', FREE = '', ACKNOWLEDGE = ''] = linesOf(STATUS)
      await server.sh('fail2ban-client set sshd banip 203.0.113.7')
      await says(server, 'f2b-firewall list', /^203\.0\.113\.7 sshd /m)
      // The firewall itself is in never_ban.
      await server.sh('fail2ban-client set sshd banip 198.51.100.1')
      let said = ''
      await waitUntil('the refusal', async () => {
        said = (await server.exec(['sh', '-c', ALL])).stdout
        return /^Rejected$/m.test(said)
      })
      const columns = (text: string) => /^TARGET .*$/m.exec(text)?.[0].split(/ +/)
      assert.deepEqual(columns(said), columns(SHOWN))
      assert.match(said, /^web1: \d+ bans? in Fail2Ban, \d targets, f2b-deliver runs$/m)
      await says(server, ONE, /^203\.0\.113\.7 is banned in 1 jail, and in force on [12] of/)
      const freedNow = /^203\.0\.113\.7 is not banned by Fail2Ban, and no target has it\.$/m
      await says(server, FREE, freedNow)
      const known = await server.sh(ACKNOWLEDGE)
      assert.match(known, /^firewall: acknowledged .* 198\.51\.100\.1 in sshd/m)
      await says(server, ALL, /f2b-deliver runs$/m)
      // As Debian's prometheus-node-exporter makes it.
      await server.sh('mkdir -p /var/lib/prometheus/node-exporter')
      await server.sh(METRICS)
      const metrics = await server.sh('cat /var/lib/prometheus/node-exporter/f2b.prom')
      assert.match(metrics, /^fail2ban_perimeter_up\{.*target="edge1".*\} 1$/m)
    })

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
  const folder = '/usr/local/lib/node_modules/fail2ban-perimeter/dist'
  const programs = ['', 'bin/', 'firewall-side/'].map((part) => `${folder}/${part}*.cjs`).join(' ')
  const said = await machine.sh(
    `for program in ${programs}; do code=0; $program || code=$?; echo $code; done`,
  )
  const pairs = said.trimEnd().split(/(?<=^\d+\n)/m)
  assert.ok(pairs.length > 40, said)
  const sentence = /^\S+: needs Node\.js 20\.19 or newer, this is 18\.\d+\.\d+: [^\n]+\n78\n?$/
  for (const pair of pairs) assert.match(pair, sentence)
}

/** Guesses names until the server has had enough. */
export async function attack(lab: BootedPerimeter): Promise<BootedPerimeter> {
  await isBlocked(lab, false)
  const options = ['BatchMode=yes', 'StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null']
  const login = ['ssh', ...options.flatMap((option) => ['-o', option]), '-o', 'ConnectTimeout=2']
  const lease = new RegExp(`^${ATTACKER} sshd \\d{10} web1$`, 'm')
  await waitUntil(
    'Fail2Ban to ban the attacker',
    async () => {
      // An attacker that is banned in the middle of it hears nothing any more.
      await lab.attacker.exec([...login, `guess@${SERVER}`, 'true'], { timeout: 5000 })
      return lease.test(await lab.server.sh('f2b-firewall list'))
    },
    { timeout: 90_000 },
  )
  return lab
}

/** Runs a command until all is well and it says something. */
export async function says(
  machine: Booted,
  command: string,
  wanted: RegExp,
  every = 500,
): Promise<void> {
  let said = ''
  const look = async () => {
    const { code, stdout, stderr } = await machine.exec(['sh', '-c', command])
    said = `${stdout}${stderr}${code}`
    return code === 0 && wanted.test(stdout)
  }
  await waitUntil(command, look, { timeout: 90_000, every }).catch((error: Error) => {
    throw new Error(`${error.message}, which said:\n${said}`)
  })
}

/** What has been set up just now blocks and frees, and can be taken away again. */
async function blocksAlone(server: Booted, name: string): Promise<void> {
  await jails(server, `[DEFAULT]\nbanaction = ${name}-perimeter\n[sshd]\n`)
  await server.sh('fail2ban-client set sshd banip 192.168.13.37')
  await says(server, `f2b-${name} list`, /^192\.168\.13\.37 sshd \d{10} web1$/m)
  await server.sh('fail2ban-client set sshd unbanip 192.168.13.37')
  await says(server, `f2b-${name} list`, /^(?![\s\S]*192\.168\.13\.37)/)
  await jails(server, `${JAIL}[sshd]\n`)
  await server.sh(`f2b-setup ${name} --uninstall --purge`)
  assert.doesNotMatch(await server.sh('cat /etc/fail2ban-perimeter/config.yaml'), new RegExp(name))
}

/** Fail2Ban with these lines in jail.local, the last of which are of section sshd. */
export async function jails(server: Booted, lines: string): Promise<void> {
  await server.sh('cat >/etc/fail2ban/jail.local', { input: lines + SSHD_JAIL })
  await server.sh('systemctl restart fail2ban')
  await jailRuns(server)
}

/** Fail2Ban answers a ping before it has read its jails. */
function jailRuns(server: Booted): Promise<void> {
  return says(server, 'fail2ban-client status sshd', /sshd/)
}

/** A command at a terminal, and who answers each of its questions. @returns what stood there */
async function typing(machine: Booted, command: string, answers: Record<string, string>) {
  const seen = (question: string) =>
    `timeout 60 sh -c 'until grep -q "${question}" said; do sleep 0.1; done'`
  const lines = Object.entries(answers).map(([question, text]) => `${seen(question)}; echo ${text}`)
  await machine.sh(`: >said; { ${lines.join('\n')}\n} | script -qefc '${command}' said`)
  return await machine.sh('cat said')
}

async function freed(lab: BootedPerimeter): Promise<BootedPerimeter> {
  await free(lab)
  return lab
}

export async function free(lab: BootedPerimeter): Promise<void> {
  // A Fail2Ban that has just begun may not have its bans again, and would have this one afterwards.
  await says(lab.server, `fail2ban-client set sshd unbanip ${ATTACKER}`, /^1$/m)
}

export async function isBlocked(lab: BootedPerimeter, wanted: boolean): Promise<void> {
  const what = `packets to be ${wanted ? 'dropped' : 'let through'}`
  const isSo = async () => (await reaches(lab)) !== wanted
  await waitUntil(what, isSo, { timeout: 60_000 }).catch(async (error: Error) => {
    const { stdout, stderr } = await lab.server.exec(['f2b-status', ATTACKER])
    throw new Error(`${error.message}, where f2b-status said:\n${stdout}${stderr}`)
  })
}

function reaches(lab: BootedPerimeter): Promise<boolean> {
  return canConnect(lab.attacker, { to: SERVER, port: 22, timeoutMs: 2000 })
}
