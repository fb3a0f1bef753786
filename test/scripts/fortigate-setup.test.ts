import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import { after, before, test } from 'node:test'
import type { Ended } from '../../scripts/lib/run.ts'
import { openSandbox, type Sandbox } from '../lib/sandbox.ts'

// Real accounts and files in a copy of this machine that nobody else sees.
let box: Sandbox
let printed = ''
before(async () => {
  box = await openSandbox()
})
after(() => box.close())

const URL_ = 'http://127.0.0.1:5999'
const CREDENTIALS = '/run/credentials'
const LIST = '/var/lib/fail2ban-perimeter/blocked_ips_list.txt'

function setupEnds(...args: string[]): Promise<Ended> {
  return box.run(process.execPath, [resolve('dist/setup.cjs'), 'fortigate', ...args])
}

async function setup(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await setupEnds(...args)
  assert.equal(code, 0, stderr)
  return stdout
}

test('--dry-run changes nothing; the second run has nothing to change', async () => {
  const args = ['--url', URL_, '--systemd', 'yes']
  // As f2b-setup firewall leaves it: the web server must get to its list all the same.
  await box.sh('mkdir -m 700 /var/lib/fail2ban-perimeter')
  assert.match(await setup(...args, '--dry-run'), /^would create user fail2ban-feed$/m)
  assert.equal(await box.sh('ls -A /etc/fail2ban-perimeter 2>/dev/null'), '')
  printed = await setup(...args)
  assert.match(printed, /^created .*f2b-fortigate-feed\.service$/m)
  const again = await setup(...args)
  assert.match(again, /^nothing to change$/m)
  assert.equal(again.split('\n\n').slice(1).join(), printed.split('\n\n').slice(1).join())
})

test('an existing configuration keeps every byte and gets the section once', async () => {
  const before = '# mine\nowner: web7   # the name\nfirewalls: []\n'
  await box.sh(`printf '${before}' > /etc/fail2ban-perimeter/config.yaml`)
  await setup('--url', URL_, '--systemd', 'yes')
  await setup('--url', URL_, '--systemd', 'yes')
  const text = await box.sh('cat /etc/fail2ban-perimeter/config.yaml')
  assert.ok(text.startsWith(before))
  assert.equal(text.match(/^fortigate:/gm)?.length, 1)
})

test('what is printed for the device is complete, and holds the secrets that were made', async () => {
  const token = (await box.sh('cat /etc/fail2ban-perimeter/fortigate-webhook.token')).trim()
  const pass = (await box.sh('cat /etc/fail2ban-perimeter/fortigate-feed.pass')).trim()
  assert.ok(token.length >= 32 && pass.length >= 32 && token !== pass)
  for (const logid of [39426, 37121, 37128, 37124, 37125, 32002])
    assert.match(printed, new RegExp(`set logid ${logid}\\n`))
  assert.match(printed, new RegExp(`set key "X-Webhook-Token"\n +set value "${token}"`))
  assert.match(
    printed,
    new RegExp(`set resource "${URL_}/blocked-ips"\n.*\n +set password "${pass}"`),
  )
  const configs = printed.match(/^config /gm)?.length
  assert.equal(printed.match(/^end$/gm)?.length, configs, 'each config ends')
  assert.equal(printed.match(/^ +edit /gm)?.length, printed.match(/^ +next$/gm)?.length)
  const modes = await box.sh('stat -c "%a %U" /etc/fail2ban-perimeter/fortigate-*')
  assert.equal(modes, '600 root\n600 root\n')
})

test('the printed jails can stand below other lines of jail.local', () => {
  // An indented line goes on with the one above it.
  const jails = printed.slice(printed.indexOf('jail.local'))
  assert.match(jails, /^\[fortigate\]\nenabled {2}= true$/m)
  assert.doesNotMatch(jails, /^[ \t]+\[/m)
})

test('systemd finds nothing wrong with the unit', async () => {
  const unit = '/etc/systemd/system/f2b-fortigate-feed.service'
  const said = await box.sh(`systemd-analyze verify --man=no ${unit}`)
  assert.doesNotMatch(said, /f2b-fortigate-feed/)
  const score = await box.sh(`systemd-analyze security --offline=yes ${unit} | tail -1`)
  assert.match(score, /level for f2b-fortigate-feed\.service: [0-3]\.\d/)
})

test('the service runs as the account without rights, and the printed action and connector work', async () => {
  await box.sh(`mkdir -p ${CREDENTIALS} /run/history; cp /etc/fail2ban-perimeter/config.yaml /etc/fail2ban-perimeter/fortigate-* ${CREDENTIALS}
    chown -R fail2ban-feed ${CREDENTIALS} /run/history
    CREDENTIALS_DIRECTORY=${CREDENTIALS} STATE_DIRECTORY=/run/history setpriv --reuid fail2ban-feed --regid fail2ban-feed --clear-groups \
      ${process.execPath} /usr/local/lib/fail2ban-perimeter/fortigate-feed.cjs --config ${CREDENTIALS}/config.yaml >/run/feed.log 2>&1 &
    for i in $(seq 50); do curl -sf ${URL_}/healthz && break; sleep 0.1; done`)
  const [, body = ''] = /set http-body "(.*)"$/m.exec(printed) ?? []
  const log: Record<string, string> = {
    logid: '0101039426',
    action: 'ssl-login-fail',
    remip: '203.0.113.7',
  }
  const posted = body
    .replaceAll('\\"', '"')
    .replace(/%%log\.(\w+)%%/g, (_, name) => log[name] ?? '')
  const [, token = ''] = /set value "(.*)"/.exec(printed) ?? []
  const status = await box.run('curl', [
    '-s',
    '-o',
    '/dev/null',
    '-w',
    '%{http_code}',
    '-H',
    `X-Webhook-Token: ${token}`,
    '-H',
    'Content-Type: application/json',
    '--data-binary',
    posted,
    `${URL_}/receive-logs`,
  ])
  assert.equal(status.stdout, '204', await box.sh('cat /run/feed.log'))
  const line = await box.sh('cat /var/lib/fail2ban-perimeter/failed_logins.log')
  assert.equal(await box.sh('stat -c %a /var/lib/fail2ban-perimeter'), '711\n')
  assert.match(line, / fortigate: sslvpn failed-login remip=203\.0\.113\.7 /)
  await box.sh(`echo 203.0.113.7 >> ${LIST}`)
  const [, pass = ''] = /set password "(.*)"/.exec(printed) ?? []
  assert.equal(await box.sh(`curl -s -u 'fortigate:${pass}' ${URL_}/blocked-ips`), '203.0.113.7\n')
  assert.match(await box.sh('ps -o user= -C node,MainThread | sort -u'), /fail2b/)
})

test('relative paths of a certificate become absolute ones, and a second run repairs older ones', async () => {
  const make = (name: string) =>
    `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x -days 9 -keyout ${name}.key -out ${name}.pem`
  await box.sh(`mkdir -p /run/tls; cd /run/tls; ${make('feed')}; ${make('other')}`)
  const line = (...args: string[]) =>
    box.run('sh', [
      '-c',
      'cd /run/tls; exec "$@"',
      'sh',
      process.execPath,
      resolve('dist/setup.cjs'),
      'fortigate',
      '--url',
      'https://192.0.2.10:5000',
      ...args,
    ])
  const config = '/etc/fail2ban-perimeter/config.yaml'
  const before = await box.sh(`cat ${config}`)
  const wrong: [number, RegExp, string[]][] = [
    [65, /Cannot read "none\.pem": no such file/, ['none.pem', 'feed.key']],
    [65, /Cannot use "feed\.pem" with the key "other\.key"/, ['feed.pem', 'other.key']],
    [65, /Cannot use "feed\.key" with the key/, ['feed.key', 'feed.key']],
  ]
  for (const [code, message, [cert = '', key = '']] of wrong) {
    const ended = await line('--cert-file', cert, '--key-file', key)
    assert.equal(ended.code, code, ended.stderr)
    assert.match(ended.stderr, message)
    assert.equal(await box.sh(`cat ${config}`), before)
  }
  const files = ['--cert-file', 'feed.pem', '--key-file', 'feed.key', '--systemd', 'yes']
  // As an older setup has written it.
  await box.sh(
    `sed -i 's|^  feed:|  feed:\\n    cert_file: feed.pem\\n    key_file: feed.key|' ${config}`,
  )
  const broken = await setupEnds('--url', URL_, '--systemd', 'yes')
  assert.equal(broken.code, 78)
  assert.match(
    broken.stderr,
    /config\.yaml:\d+:\d+: "fortigate\.feed\.cert_file": must be an absolute path/,
  )
  const repaired = await line(...files)
  assert.equal(repaired.code, 0, repaired.stderr)
  const after = await box.sh(`cat ${config}`)
  assert.match(after, /cert_file: \/run\/tls\/feed\.pem\n +key_file: \/run\/tls\/feed\.key/)
  assert.ok(after.startsWith('# mine\nowner: web7   # the name\nfirewalls: []\n'), after)
  const unit = await box.sh('cat /etc/systemd/system/f2b-fortigate-feed.service')
  assert.match(unit, /^LoadCredential=feed\.pem:\/run\/tls\/feed\.pem$/m)
  // A renewed one is handed over by a start.
  const renew = '/etc/systemd/system/f2b-fortigate-feed-renew'
  const watched = await box.sh(`cat ${renew}.path`)
  assert.match(watched, /^PathChanged=\/run\/tls\/feed\.pem\nPathChanged=\/run\/tls\/feed\.key$/m)
  const said = await box.sh(`systemd-analyze verify --man=no ${renew}.path ${renew}.service 2>&1`)
  assert.doesNotMatch(said, /f2b-fortigate-feed-renew/)
  assert.match((await line(...files)).stdout, /^nothing to change$/m)
})

test('behind a proxy: no certificate of its own, and a path in all that the device is told', async () => {
  const url = 'https://feed.example/f2b/'
  const proxied = (...more: string[]) =>
    setupEnds('--prefix', '/run/proxied', '--url', url, ...more)
  assert.equal((await proxied()).code, 64)
  const { code, stdout, stderr } = await proxied('--listen', '127.0.0.1:5000')
  assert.equal(code, 0, stderr)
  assert.match(stdout, /set uri "feed\.example\/f2b\/receive-logs"\n +set port 443\n/)
  assert.match(stdout, /set resource "https:\/\/feed\.example\/f2b\/blocked-ips"\n/)
  const config = await box.sh('cat /run/proxied/etc/fail2ban-perimeter/config.yaml')
  assert.match(config, /listen: 127\.0\.0\.1:5000\n[\s\S]*proxies:\n +- 127\.0\.0\.1\n/)
})

test('no setup replaces a configuration by one that no command could read', async () => {
  const config = '/etc/fail2ban-perimeter/config.yaml'
  const before = await box.sh(`cat ${config}`)
  await box.sh(`sed -i '/^fortigate:/,$d' ${config}; echo 'no_such_key: 1' >>${config}`)
  const broken = await box.sh(`cat ${config}`)
  const ended = await setupEnds('--url', URL_, '--systemd', 'yes')
  assert.equal(ended.code, 78)
  assert.match(ended.stderr, /config\.yaml:\d+:1: unknown key "no_such_key"/)
  assert.equal(await box.sh(`cat ${config}`), broken)
  await box.run('tee', [config], { input: before })
})

test('--uninstall refuses while Fail2Ban blocks here, as it is configured or as it runs', async () => {
  await box.sh(`rm -f /etc/fail2ban/jail.d/*; cp ${resolve('action.d')}/* /etc/fail2ban/action.d/
    mkdir -p /run/fail2ban; touch /run/log
    printf '[decoy]\\nenabled = true\\nfilter = sshd\\nbackend = polling\\nlogpath = /run/log\\naction = fortigate[delivery=queued]\\n' >/etc/fail2ban/jail.local`)
  const configured = await setupEnds('--uninstall')
  assert.equal(configured.code, 75)
  assert.match(
    configured.stderr,
    /Nothing was changed: Fail2Ban's jail "decoy" bans with fortigate: take it out of \/etc\/fail2ban\/jail\.local/,
  )
  await box.sh('fail2ban-client start; rm /etc/fail2ban/jail.local')
  const running = await setupEnds('--uninstall')
  assert.equal(running.code, 75)
  assert.match(running.stderr, /jail "decoy" still runs with fortigate: \S+ restart/)
  await box.sh('fail2ban-client stop; sleep 1')
})

test('--uninstall leaves settings, secrets and bans; --purge takes them', async () => {
  await box.sh('pkill -u fail2ban-feed; sleep 0.5')
  assert.match(await setup('--uninstall'), /left .*config\.yaml/)
  assert.equal(await box.sh(`ls /etc/systemd/system/f2b-* 2>/dev/null`), '')
  assert.equal(await box.sh(`cat ${LIST}`), '203.0.113.7\n')
  await setup('--uninstall', '--purge')
  // The server side's is the server side's.
  const config = '/etc/fail2ban-perimeter/config.yaml'
  assert.equal(await box.sh(`cat ${config}`), '# mine\nowner: web7   # the name\nfirewalls: []\n')
  assert.equal(
    await box.sh('ls -A /etc/fail2ban-perimeter /var/lib/fail2ban-perimeter 2>/dev/null'),
    '/etc/fail2ban-perimeter:\nconfig.yaml\n',
  )
  await box.sh(`rm ${config}`)
  await setup('--url', URL_, '--systemd', 'yes')
  await setup('--uninstall', '--purge')
  assert.equal(
    await box.sh('ls -A /etc/fail2ban-perimeter /var/lib/fail2ban-perimeter 2>/dev/null'),
    '',
  )
})
