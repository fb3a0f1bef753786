import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { before, test } from 'node:test'
import { type Ended, run } from '../../scripts/lib/run.ts'
import { temporaryFolder } from '../lib/folder.ts'

// Here everything goes below --prefix; test/scripts/setup-real.test.ts has accounts, sshd and sudo.
const folder = temporaryFolder('setup')
const prefix = `${folder}/root`
const key = `${folder}/web1`

before(() => {
  mkdirSync(`${prefix}/etc/fail2ban/action.d`, { recursive: true })
  for (const name of ['web1', 'web2']) {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', `${folder}/${name}`])
  }
})

function setup(...args: string[]): Promise<Ended> {
  return run(process.execPath, [resolve('dist/setup.cjs'), ...args])
}

function below(...args: string[]): Promise<Ended> {
  return setup(...args, '--prefix', prefix)
}

/** Everything below the prefix, with mode, owner, time and content. */
function tree(): string {
  const line = ['-printf', '%P %M %U %G %s %T@\n']
  return execFileSync('find', [prefix, ...line], { encoding: 'utf8' })
}

function lines(ended: Ended): string[] {
  const said = ended.stdout.split('\n')
  return said.filter((line) => /^(would )?(create|update|remove|left|nothing to)/.test(line))
}

const FIREWALL = ['firewall', '--owner', 'web1', '--key-file', `${key}.pub`]
const SERVER = ['server', '--owner', 'web1', '--firewall', 'edge1', '--host-key-file', `${key}.pub`]

test('f2b-setup refuses bad input with one line and the right code, and changes nothing', async () => {
  const bad = written('bad.pub', 'ssh-ed25519 AAAA web1\n')
  const cases: [number, RegExp, string[]][] = [
    [64, /Nothing to set up given/, []],
    [64, /Unknown side "juniper" \(one of firewall, server, /, ['juniper']],
    [64, /Unknown side "mikrotk", did you mean "mikrotik"\?/, ['mikrotk']],
    [64, /Unknown side "frewall", did you mean "firewall"\?: see --help/, ['frewall']],
    [64, /Unknown option '--owne', did you mean "--owner"\?/, ['firewall', '--owne', 'web1']],
    [64, /One word too many "now"/, ['firewall', 'now']],
    [64, /Unknown option/, ['firewall', '--force']],
    [64, /--delivery does not belong/, ['firewall', '--delivery', 'direct']],
    [64, /--key-file does not belong/, [...SERVER, '--key-file', bad]],
    [64, /--purge goes with --uninstall/, ['firewall', '--purge']],
    [64, /Missing option --key-file/, ['firewall', '--owner', 'web1']],
    [64, /Missing option --owner/, ['firewall', '--key-file', `${key}.pub`]],
    [64, /Missing option --owner/, ['firewall', '--from', '192.0.2.1']],
    [64, /Missing option --owner/, ['firewall', '--remove-owner']],
    [64, /--remove-owner is about one/, ['firewall', '--uninstall', '--owner', 'web1']],
    [64, /Cannot read --backend "pf"/, ['firewall', '--backend', 'pf']],
    [64, /Cannot read --systemd "maybe"/, ['firewall', '--systemd', 'maybe']],
    [64, /Missing option --owner/, ['server', '--firewall', 'edge1']],
    [64, /Missing option --firewall/, ['server', '--owner', 'web1']],
    [64, /no terminal: give --host-key-file/, SERVER.slice(0, 5)],
    [65, /Cannot read owner "a b"/, ['firewall', '--owner', 'a b', '--key-file', `${key}.pub`]],
    [65, /Cannot read owner "x\\"; id/, ['firewall', '--owner', 'x"; id', '--key-file', bad]],
    [65, /private key/, ['firewall', '--owner', 'web1', '--key-file', key]],
    [65, /Cannot use key file/, ['firewall', '--owner', 'web1', '--key-file', bad]],
    [65, /Cannot read address "web1"/, [...FIREWALL, '--from', 'web1']],
    [65, /Cannot read --firewall "-oProxy/, ['server', '--owner', 'a', '--firewall', '-oProxy=id']],
    [65, /Cannot find a host key/, [...SERVER.slice(0, 5), '--host-key-file', key]],
  ]
  const untouched = tree()
  for (const [code, message, args] of cases) {
    const ended = await below(...args)
    assert.deepEqual([ended.code, ended.stdout], [code, ''], args.join(' '))
    assert.match(ended.stderr, message)
    assert.equal(ended.stderr.split('\n').length, 2, ended.stderr)
  }
  assert.equal(tree(), untouched)
})

test('f2b-setup shows the help of one side alone, by either way of asking', async () => {
  const help = async (...args: string[]) => {
    const { code, stdout, stderr } = await run(process.execPath, ['dist/setup.cjs', ...args])
    return [code, stdout, stderr]
  }
  const [, whole = ''] = await help('--help')
  assert.deepEqual(await help('help'), [0, whole, ''])
  for (const side of [
    'server',
    'firewall',
    'sophosxg',
    'mikrotik',
    'opnsense',
    'fortigate',
    'net2ban',
  ]) {
    const [code, text, stderr] = await help('help', side)
    assert.deepEqual(await help(side, '--help'), [code, text, stderr])
    assert.deepEqual([code, stderr], [0, ''])
    const titles = String(text).match(/^f2b-setup .*|^All$|^Options$|^Exit codes$/gm) ?? []
    assert.ok(
      titles.length > 3 && titles.slice(0, -3).every((t) => t.startsWith(`f2b-setup ${side}`)),
    )
    assert.match(String(text), new RegExp(`^Usage: f2b-setup ${side} `))
    for (const line of String(text).split('\n').slice(1))
      assert.ok(String(whole).includes(line), line)
  }
  const wrong = 'setup: Unknown side "frewall", did you mean "firewall"?: see --help\n'
  for (const args of [
    ['help', 'frewall'],
    ['frewall', '--help'],
  ]) {
    assert.deepEqual(await help(...args), [64, '', wrong])
  }
})

test('f2b-setup is for root (77)', async () => {
  const user = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath]
  const ended = await run('setpriv', [...user, resolve('dist/setup.cjs'), ...FIREWALL])
  assert.deepEqual([ended.code, ended.stdout], [77, ''])
  assert.match(
    ended.stderr,
    /^setup: Cannot set up the firewall as an ordinary user: run it as root/,
  )
})

test('f2b-setup firewall --dry-run says all that a run then does, and does nothing', async () => {
  const untouched = tree()
  const dry = await below(...FIREWALL, '--dry-run')
  assert.equal(dry.code, 0, dry.stderr)
  assert.equal(tree(), untouched)
  const real = await below(...FIREWALL)
  assert.equal(real.code, 0, real.stderr)
  assert.deepEqual(
    lines(dry),
    lines(real).map((line) => line.replace('created', 'would create')),
  )
  assert.ok(lines(real).includes(`created ${prefix}/etc/sudoers.d/fail2ban-perimeter`))
  assert.match(real.stdout, /make the user with: useradd .* --password '\*' fail2ban/)
})

test('f2b-setup firewall changes nothing the second time, and one line for one change', async () => {
  const before = tree()
  assert.deepEqual(lines(await below(...FIREWALL)), ['nothing to change'])
  assert.equal(tree(), before)
  const settings = `${prefix}/etc/fail2ban-perimeter/firewall.yaml`
  const text = `# mine\n${readFileSync(settings, 'utf8').replace('[]', "['192.0.2.0/28']")}`
  writeFileSync(settings, text)
  assert.deepEqual(lines(await below(...FIREWALL, '--backend', 'ipset')), [
    `updated ${settings} (backend auto -> ipset)`,
  ])
  assert.equal(readFileSync(settings, 'utf8'), text.replace('backend: auto', 'backend: ipset'))
  assert.deepEqual(lines(await below('firewall', '--systemd', 'yes')).sort(), [
    ...['restore.service', 'sweep.service', 'sweep.timer'].map(
      (unit) => `created ${prefix}/etc/systemd/system/fail2ban-perimeter-${unit}`,
    ),
    `removed ${prefix}/etc/cron.d/fail2ban-perimeter`,
  ])
})

test('f2b-setup firewall puts back what somebody changed, mode and owner included', async () => {
  const keys = `${prefix}/etc/fail2ban-perimeter/ssh/.ssh/authorized_keys`
  execFileSync('chown', ['65534', keys])
  execFileSync('chmod', ['0666', `${prefix}/etc/sudoers.d/fail2ban-perimeter`])
  writeFileSync(`${prefix}/usr/local/lib/fail2ban-perimeter/gate`, '#!/bin/sh\n')
  const said = lines(await below(...FIREWALL, '--systemd', 'yes'))
  assert.deepEqual(said, [
    `updated ${prefix}/usr/local/lib/fail2ban-perimeter/gate`,
    `updated ${keys} (owner web1)`,
    `updated ${prefix}/etc/sudoers.d/fail2ban-perimeter`,
  ])
})

test('f2b-setup firewall: one key is one owner, and --remove-owner takes one line', async () => {
  const same = await below('firewall', '--owner', 'web2', '--key-file', `${key}.pub`)
  assert.deepEqual([same.code, same.stdout], [65, ''])
  await below('firewall', '--owner', 'web2', '--key-file', `${folder}/web2.pub`)
  const keys = `${prefix}/etc/fail2ban-perimeter/ssh/.ssh/authorized_keys`
  assert.deepEqual(lines(await below('firewall', '--remove-owner', '--owner', 'web1')), [
    `removed owner web1 in ${keys}`,
  ])
  assert.match(readFileSync(keys, 'utf8'), /gate web2" .* web2\n$/)
  assert.doesNotMatch(readFileSync(keys, 'utf8'), /web1/)
  const again = await below('firewall', '--remove-owner', '--owner', 'web1')
  assert.deepEqual(lines(again), ['nothing to change'])
})

test('f2b-setup firewall stops at a broken firewall.yaml (78), before it changes anything', async () => {
  const settings = `${prefix}/etc/fail2ban-perimeter/firewall.yaml`
  const good = readFileSync(settings, 'utf8')
  writeFileSync(settings, 'backend: [\n')
  const untouched = tree()
  const ended = await below(...FIREWALL, '--backend', 'nftables')
  assert.deepEqual([ended.code, ended.stdout, tree()], [78, '', untouched])
  writeFileSync(settings, good)
})

test('f2b-setup firewall names the step that fails, and the next run goes on from there', async () => {
  const units = `${prefix}/etc/systemd/system`
  rmSync(units, { recursive: true })
  writeFileSync(units, 'in the way')
  const ended = await below(...FIREWALL, '--systemd', 'yes')
  assert.equal(ended.code, 75)
  assert.match(ended.stderr, /^setup: Cannot (read|create) "?\S*restore\.service/)
  rmSync(units)
  assert.equal((await below(...FIREWALL, '--systemd', 'yes')).code, 0)
  assert.deepEqual(lines(await below(...FIREWALL, '--systemd', 'yes')), ['nothing to change'])
})

test('f2b-setup server writes settings, keys and the known host, and never overwrites', async () => {
  const untouched = tree()
  await below(...SERVER, '--dry-run')
  assert.equal(tree(), untouched)
  const first = await below(...SERVER)
  assert.equal(first.code, 0, first.stderr)
  const etc = `${prefix}/etc/fail2ban-perimeter`
  const config = readFileSync(`${etc}/config.yaml`, 'utf8')
  assert.match(config, /^owner: web1\nfirewalls:\n {2}- host: edge1\n {4}user: fail2ban\n$/m)
  const schema = /^# yaml-language-server: \$schema=(.*)\n/.exec(config)?.[1] ?? ''
  assert.equal(JSON.parse(readFileSync(schema, 'utf8')).title, 'fail2ban-perimeter')
  const own = readFileSync(`${etc}/id_ed25519.pub`, 'utf8').trim()
  assert.ok(first.stdout.includes(`echo '${own}' > web1.pub\n`))
  assert.match(first.stdout, /f2b-setup firewall --owner web1 --key-file web1\.pub/)
  const [type, bits] = readFileSync(`${key}.pub`, 'utf8').split(' ')
  assert.equal(readFileSync(`${etc}/known_hosts`, 'utf8'), `edge1 ${type} ${bits}\n`)
  assert.deepEqual(modes(etc, 'config.yaml', 'id_ed25519', 'id_ed25519.pub'), [600, 600, 644])
  // Known already: it asks nobody, also without --host-key-file.
  const second = await below(...SERVER.slice(0, 5))
  assert.deepEqual(lines(second), ['nothing to change'])
  const third = await below(...SERVER, '--firewall', 'local')
  assert.match(
    third.stdout,
    /config\.yaml was left as it is; add to it:\n {2}firewalls:\n {4}- host: local/,
  )
  assert.equal(readFileSync(`${etc}/config.yaml`, 'utf8'), config)
  rmSync(`${etc}/id_ed25519.pub`)
  await below(...SERVER)
  assert.equal(readFileSync(`${etc}/id_ed25519.pub`, 'utf8').trim(), own)
})

test('f2b-setup server: the queue and back, each in one run, and what is the operator’s stays', async () => {
  const refused = await below('server', '--delivery', 'later')
  assert.equal(refused.code, 64)
  assert.match(refused.stderr, /^setup: Cannot read --delivery "later" \(one of queued, direct\)/)
  assert.deepEqual(lines(await below('server', '--delivery', 'direct')), ['nothing to change'])
  const actions = `${prefix}/etc/fail2ban/action.d`
  // One that an operator wrote, and one of ours that he added to.
  writeFileSync(`${actions}/sophosxg.local`, '[Init]\ntimeout = 50\n')
  const untouched = tree()
  await below('server', '--delivery', 'queued', '--dry-run')
  assert.equal(tree(), untouched)
  const queued = await below('server', '--delivery', 'queued')
  assert.match(queued.stdout, /sophosxg\.local was left as it is; add to it:\n {2}\[Init\]\n/)
  assert.match(queued.stdout, /^ {6}(fail2ban-client|systemctl) restart/m)
  const local = `${actions}/iptables-remote.local`
  assert.match(readFileSync(local, 'utf8'), /\n\[Init\]\ndelivery = queued\n$/)
  writeFileSync(local, `${readFileSync(local, 'utf8')}timeout = 20\n`)
  // It keeps what there is when it is not told.
  assert.deepEqual(lines(await below('server')), ['nothing to change'])
  const direct = await below('server', '--delivery', 'direct')
  assert.match(direct.stdout, /iptables-remote\.local was left as it is; take out of it: delivery/)
  const left = readdirSync(actions).filter((name) => name.endsWith('.local'))
  assert.deepEqual(left.sort(), ['iptables-remote.local', 'sophosxg.local'])
  for (const name of left) rmSync(`${actions}/${name}`)
})

test('f2b-setup server queues from the start where systemd takes the bans on', async () => {
  const image = ['--prefix', `${folder}/image`, '--systemd', 'yes']
  mkdirSync(`${folder}/image/etc/fail2ban/action.d`, { recursive: true })
  const made = await setup(...SERVER, ...image)
  assert.equal(made.code, 0, made.stderr)
  const at = (path: string): string => readFileSync(`${folder}/image${path}`, 'utf8')
  assert.match(at('/etc/fail2ban/action.d/iptables-remote.local'), /^delivery = queued$/m)
  assert.match(
    at('/etc/systemd/system/fail2ban-perimeter-deliver.service'),
    /^ExecStart=\/\S+node \/usr\/local\/lib\/fail2ban-perimeter\/deliver\.cjs --follow$/m,
  )
  assert.match(at('/etc/systemd/system/fail2ban-perimeter-sync.service'), /^SuccessExitStatus=75$/m)
  const config = `${folder}/image/etc/fail2ban-perimeter/config.yaml`
  writeFileSync(config, `${readFileSync(config, 'utf8')}state_dir: "/var/lib/a b"\n`)
  const refused = await setup('server', ...image)
  assert.deepEqual([refused.code, refused.stdout], [78, ''])
})

test('--uninstall of either side leaves the other and what is the operator’s; --purge does not', async () => {
  const server = lines(await below('server', '--uninstall'))
  const etc = `${prefix}/etc/fail2ban-perimeter`
  for (const name of ['known_hosts', 'id_ed25519.pub', 'id_ed25519', 'config.yaml']) {
    assert.ok(server.includes(`left ${etc}/${name} (--purge removes it)`), name)
  }
  const dry = tree()
  await below('firewall', '--uninstall', '--dry-run')
  assert.equal(tree(), dry)
  const firewall = lines(await below('firewall', '--uninstall'))
  assert.ok(firewall.includes(`left ${etc}/firewall.yaml (--purge removes it)`))
  assert.ok(firewall.includes(`removed ${prefix}/usr/local/lib/fail2ban-perimeter/`))
  const ledger = `${prefix}/var/lib/fail2ban-perimeter/firewall.leases`
  assert.match(readFileSync(ledger, 'utf8'), /^# generation [0-9a-f]{8} \d+\n$/)
  await below('server', '--uninstall', '--purge')
  await below('firewall', '--uninstall', '--purge')
  assert.equal(execFileSync('find', [prefix, '-type', 'f'], { encoding: 'utf8' }), '')
  assert.deepEqual(lines(await below('firewall', '--uninstall')), ['nothing to change'])
})

test('f2b-setup --help names every option', async () => {
  const { stdout } = await setup('--help')
  const source = readFileSync('scripts/setup.ts', 'utf8')
  for (const [, quoted, plain] of source.matchAll(/^ {2,4}(?:'([\w-]+)'|(\w+)): \{ type/gm)) {
    assert.ok(stdout.includes(`--${quoted ?? plain} `), quoted ?? plain)
  }
})

function written(name: string, text: string): string {
  writeFileSync(`${folder}/${name}`, text)
  return `${folder}/${name}`
}

function modes(at: string, ...names: string[]): number[] {
  const paths = names.map((name) => `${at}/${name}`)
  const text = execFileSync('stat', ['-c', '%a', ...paths], { encoding: 'utf8' })
  return text.trim().split('\n').map(Number)
}
