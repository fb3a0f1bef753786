import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import { before, test } from 'node:test'
import { run } from '../../scripts/lib/run.ts'
import { installTarget } from '../../scripts/lib/setup/plan.ts'
import { rendered } from '../../scripts/lib/setup/things.ts'
import { temporaryFolder } from '../lib/folder.ts'

// Every unit as setup writes it, read by systemd itself.

const folder = temporaryFolder('units')
const has = (await run('systemd-analyze', ['--version'])).code === 0
const skip = has ? false : 'systemd-analyze is missing'

/** What an operator may call a folder of certificates. */
const ODD = '/etc/ssl/100% ours'

async function setup(name: string, ...args: string[]): Promise<void> {
  const prefix = `${folder}/${name}`
  mkdirSync(`${prefix}/etc/fail2ban/action.d`, { recursive: true })
  const how = [...args, '--systemd', 'yes', '--prefix', prefix]
  const { code, stderr } = await run(process.execPath, [resolve('dist/setup.cjs'), ...how])
  assert.equal(code, 0, stderr)
}

/** All units of all setups, and the one of an account, which is made on the machine itself only. */
function units(): string[] {
  const found = execFileSync('find', [folder, '-path', '*/systemd/system/*', '-type', 'f'])
  return found.toString().trim().split('\n')
}

/**
 * What systemd has to say about a unit; no users and programs of ours are here, and that they are
 * missing must not hide anything else.
 */
async function complaints(path: string): Promise<string[]> {
  const { stdout, stderr } = await run('systemd-analyze', ['verify', '--man=no', path])
  const lines = `${stdout}${stderr}`.split('\n').filter(Boolean)
  const isMissing = / Command \/usr\/local\/\S+ is not executable: No such file or directory$/
  return lines.filter((line) => !isMissing.test(line))
}

before(async () => {
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', `${folder}/key`])
  const server = ['server', '--owner', 'web1', '--delivery', 'queued']
  await setup('server', ...server, '--firewall', 'edge1', '--host-key-file', `${folder}/key.pub`)
  await setup('local', ...server, '--firewall', 'local')
  await setup('firewall', 'firewall', '--owner', 'web1', '--key-file', `${folder}/key.pub`)
  const pair = ['--cert-file', `${ODD}/a b.pem`, '--key-file', `${ODD}/50%d.key`]
  await setup('fortigate', 'fortigate', '--url', 'https://192.0.2.10:5000', ...pair)
  const broker = ['--broker', '127.0.0.1', '--client', 'client1', '--no-tls']
  await setup('net2ban', 'net2ban', 'server', ...broker)
  const config = `${folder}/net2ban/etc/fail2ban-perimeter/config.yaml`
  const ctl = [resolve('dist/net2banctl.cjs'), 'get_client', 'client1', '--config', config]
  const { code, stdout, stderr } = await run(process.execPath, ctl)
  assert.equal(code, 0, stderr)
  writeFileSync(`${folder}/client1.yaml`, stdout)
  await setup('node', 'net2ban', 'client', '--client-config', `${folder}/client1.yaml`)
  const owned = `${folder}/account/systemd/system`
  mkdirSync(owned, { recursive: true })
  const target = installTarget(resolve('.'), {})
  for (const name of ['deliver.service', 'deliver.socket'].map((n) => `fail2ban-perimeter-${n}`)) {
    const values = {
      NODE: process.execPath,
      STATE: '/var/lib/fail2ban-perimeter',
      WRITES: '/var/lib/fail2ban-perimeter/delivery',
      CAPABILITIES: '',
      RUNTIME: 'fail2ban-perimeter-deliver',
      RUNTIME_MODE: '0700',
      RUNTIME_STAYS: 'no',
      SOCKET: 'fail2ban-perimeter-deliver.socket',
      USER: 'fail2ban-perimeter',
    }
    writeFileSync(`${owned}/${name}`, rendered(target, `scripts/units/${name}`, values))
  }
})

test('every unit of the package is written by a setup, with nothing left to fill in', () => {
  const isUnit = (name: string) => /\.(service|timer|socket|path)$/.test(name)
  const ours = [...readdirSync('scripts/units'), ...readdirSync('firewall-side')].filter(isUnit)
  const written = new Set(units().map((path) => basename(path)))
  assert.deepEqual([...written].filter(isUnit).sort(), ours.sort())
  for (const path of units()) assert.doesNotMatch(readFileSync(path, 'utf8'), /@[A-Z_]+@/, path)
})

test('systemd finds nothing wrong with any of them', { skip }, async () => {
  for (const path of units()) assert.deepEqual(await complaints(path), [], path)
})

test('a misspelt directive is found, also where user and program are missing', {
  skip,
}, async () => {
  const wrong = `${folder}/wrong.service`
  const sweep = readFileSync('firewall-side/fail2ban-perimeter-sweep.service', 'utf8')
  const broken = sweep.replace('ProtectHome=', 'User=nobody-at-all\nProtectHomes=')
  writeFileSync(wrong, broken)
  const [first = '', ...more] = await complaints(wrong)
  assert.match(first, /Unknown key.* 'ProtectHomes' in section/)
  assert.deepEqual(more, [])
})

test('what a path of an operator has in it is the path, to systemd as well', { skip }, async () => {
  const made = `${folder}/fortigate/etc/systemd/system`
  const feed = readFileSync(`${made}/f2b-fortigate-feed.service`, 'utf8')
  const etc = '/etc/ssl/100%% ours'
  assert.ok(feed.includes(`\nLoadCredential=a b.pem:${etc}/a b.pem\n`), feed)
  assert.ok(feed.includes(`\nLoadCredential=50%%d.key:${etc}/50%%d.key\n`), feed)
  const watch = readFileSync(`${made}/f2b-fortigate-feed-renew.path`, 'utf8')
  assert.ok(watch.includes(`\nPathChanged=${etc}/a b.pem\nPathChanged=${etc}/50%%d.key\n`), watch)
  // As it would be without: the specifier is another thing, or none.
  writeFileSync(`${folder}/raw.service`, feed.replace(/^(LoadCredential=50)%%/m, '$1%'))
  assert.match((await complaints(`${folder}/raw.service`)).join('\n'), /[Cc]redential/)
})

test('what each service says stands in the journal under a name of ours', () => {
  for (const path of units().filter((one) => one.endsWith('.service'))) {
    const [, name] = /^SyslogIdentifier=(.*)$/m.exec(readFileSync(path, 'utf8')) ?? []
    assert.match(name ?? '', /^(f2b-|fail2ban-perimeter-|net2ban)/, path)
  }
})

test('a certificate that systemd could not hand over is refused before anything is written (78)', async () => {
  const prefix = `${folder}/refused`
  const pair = ['--cert-file', `${ODD}/a:b.pem`, '--key-file', `${ODD}/c.key`]
  const url = ['--url', 'https://192.0.2.10:5000', '--systemd', 'yes', '--prefix', prefix]
  const args = [resolve('dist/setup.cjs'), 'fortigate', ...url, ...pair]
  const { code, stdout, stderr } = await run(process.execPath, args)
  assert.deepEqual([code, stdout], [78, ''])
  assert.equal(stderr, `setup: Cannot hand "${ODD}/a:b.pem" to a service: rename it\n`)
})
