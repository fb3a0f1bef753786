import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { $ } from 'zx'
import { type Booted, type BootedPerimeter, bootPerimeter } from '../lib/booted.ts'
import { temporaryFolder } from '../lib/folder.ts'
import { blocksOf, linesOf } from '../lib/readme.ts'
import { ATTACKER, attack, isBlocked, jails, says } from './story.ts'

// Debian's packages on machines that boot Debian 13: what dpkg and f2b-setup do, each for its part,
// from the installation to the purge.

const [, , ON_SERVER = '', ON_FIREWALL = '', , JAIL = ''] = blocksOf(
  'Protect your servers in ten minutes',
  6,
)
const [APT = ''] = blocksOf('Install with apt', 1)
const [MAKE = '', INSTALL_SERVER = '', INSTALL_FIREWALL = ''] = linesOf(APT)

const [SERVER, FIREWALL] = ['fail2ban-perimeter', 'fail2ban-perimeter-firewall']

describe('packages on trixie', { skip: process.env.F2B_NO_BOOTED === '1' }, () => {
  let lab: BootedPerimeter

  before(async () => {
    lab = await bootPerimeter('trixie')
    await lab.firewall.sh('systemctl disable -q --now fail2ban; systemctl reset-failed')
  })
  after(() => lab?.close())

  test('apt installs them, and nothing is started', async () => {
    assert.match(MAKE, /^npm ci && npm run package /)
    const folder = await makePackages('0.1.0')
    await bring(lab.server, folder, SERVER)
    await bring(lab.firewall, folder, FIREWALL)
    await lab.server.sh(INSTALL_SERVER)
    await lab.firewall.sh(INSTALL_FIREWALL)
    for (const machine of [lab.server, lab.firewall]) {
      const units = await machine.sh("systemctl list-units --no-legend 'fail2ban-perimeter*'")
      assert.equal(units, '', machine.name)
      assert.equal(await machine.sh('f2b-setup --version'), '0.1.0\n')
      const page = await machine.sh('zcat -f /usr/share/man/man1/f2b-setup.1.gz')
      assert.match(page, /^\.SH NAME\nf2b\\-setup /m)
    }
  })

  test('f2b-setup does the rest, and copies no program', async () => {
    const { server, firewall } = lab
    const input = await firewall.sh('cat /etc/ssh/ssh_host_ed25519_key.pub')
    await server.sh('cat >edge1.pub', { input })
    await server.sh(`${ON_SERVER.trim()} --host-key-file edge1.pub`)
    const key = await server.sh('cat /etc/fail2ban-perimeter/id_ed25519.pub')
    await firewall.sh('cat >web1.pub', { input: key })
    await firewall.sh(ON_FIREWALL)
    for (const machine of [server, firewall]) {
      await machine.sh('! test -e /usr/local/lib/fail2ban-perimeter')
      await machine.sh('dpkg --verify | grep perimeter && exit 1 || true')
    }
    await firewall.sh('! ls /etc/systemd/system/fail2ban-perimeter-*.service')
    assert.match(await server.sh('f2b-setup server'), /^nothing to change$/m)
    assert.match(await firewall.sh('f2b-setup firewall'), /^nothing to change$/m)
  })

  test('an attacker is dropped, also after a reboot of either side', async () => {
    await jails(lab.server, `${JAIL}[sshd]\n`)
    await isBlocked(await attack(lab), true)
    await lab.firewall.reboot()
    await isBlocked(lab, true)
    await lab.server.reboot()
    await isBlocked(lab, true)
    await noneFailed(lab)
  })

  test('an upgrade keeps settings and bans, and what runs is the new version', async () => {
    const { server, firewall } = lab
    const folder = await makePackages('9.9.9')
    const started = () => server.sh('systemctl show -P InvocationID fail2ban-perimeter-deliver')
    const before = await started()
    const config = await server.sh('cat /etc/fail2ban-perimeter/config.yaml')
    for (const [machine, name] of [
      [server, SERVER],
      [firewall, FIREWALL],
    ] as const) {
      await bring(machine, folder, name)
      await machine.sh(`apt-get install -y ./${name}_9.9.9-1_all.deb`)
    }
    assert.notEqual(await started(), before)
    assert.equal(await server.sh('cat /etc/fail2ban-perimeter/config.yaml'), config)
    await isBlocked(lab, true)
    await says(server, 'f2b-firewall list', new RegExp(`^${ATTACKER} sshd `, 'm'))
    await says(server, 'f2b-status', /f2b-deliver runs$/m)
    await noneFailed(lab)
  })

  test('a removal from the server waits until no jail needs it, and leaves Fail2Ban running', async () => {
    const { server } = lab
    const { code, stdout, stderr } = await server.exec(['apt-get', 'remove', '-y', SERVER])
    assert.notEqual(code, 0)
    assert.match(stdout + stderr, /jail "sshd" bans with iptables-remote: take it out of/)
    await jails(server, '[sshd]\n')
    // As if it were stopped in the middle of its work.
    const sync = 'fail2ban-perimeter-sync'
    const ended = `systemctl start --no-block ${sync}; systemctl kill -s KILL ${sync}; sleep 0.05`
    await server.sh(`until systemctl -q is-failed ${sync}; do ${ended}; done 2>/dev/null`)
    await server.sh(`apt-get remove -y ${SERVER}`)
    await server.sh('test -e /etc/fail2ban-perimeter/config.yaml && systemctl restart fail2ban')
    await says(server, 'fail2ban-client status sshd', /sshd/)
    await server.sh('! command -v f2b-setup && ! systemctl cat fail2ban-perimeter-deliver')
    await server.sh(`apt-get purge -y ${SERVER}`)
    const left = await server.sh(LEFT)
    assert.equal(left, '')
    await server.sh('systemctl restart fail2ban')
    // It bans with Debian's own action now, on the server itself.
    await says(server, `fail2ban-client set sshd unbanip ${ATTACKER}`, /^1$/m)
  })

  test('a removal from the firewall frees all, and keys go with the purge', async () => {
    const { firewall } = lab
    await firewall.sh(`apt-get remove -y ${FIREWALL}`)
    await isBlocked(lab, false)
    assert.doesNotMatch(await firewall.sh('nft list ruleset'), /fail2ban/)
    await firewall.sh('test -s /etc/fail2ban-perimeter/ssh/.ssh/authorized_keys')
    await firewall.sh(`apt-get purge -y ${FIREWALL}`)
    assert.equal(await firewall.sh(LEFT), '')
    await firewall.sh('! getent passwd fail2ban')
    await noneFailed(lab)
  })
})

/** What stays behind of us. Debian's own Fail2Ban has none of these names. */
const LEFT = `find /etc /usr /var/lib/fail2ban-perimeter -path /usr/share/doc -prune -o \
  -name '*fail2ban-perimeter*' -print -o -name 'f2b-*' -print -o -name 'iptables-remote*' -print 2>/dev/null || true`

async function makePackages(version: string): Promise<string> {
  const folder = temporaryFolder('packages')
  const env = { ...process.env, F2B_PACKAGE_VERSION: version, SOURCE_DATE_EPOCH: '1790000000' }
  await $({ quiet: true, env })`npx tsx scripts/lib/bundle/package.ts ${folder}`
  return folder
}

async function bring(machine: Booted, folder: string, name: string): Promise<void> {
  const file = readdirSync(folder).find((one) => one.startsWith(`${name}_`)) ?? ''
  const input = readFileSync(`${folder}/${file}`, 'base64')
  await machine.sh(`base64 -d >${file}`, { input })
}

async function noneFailed({ server, firewall }: BootedPerimeter): Promise<void> {
  for (const machine of [server, firewall]) {
    assert.equal(await machine.sh('systemctl --failed --no-legend --plain'), '', machine.name)
  }
}
