import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Fail2ban, startFail2ban } from '../lib/fail2ban.ts'
import { installPerimeter } from '../lib/installed.ts'
import { PROJECT } from '../lib/lab.ts'
import type { Machine } from '../lib/machine.ts'
import { createPerimeter, type Perimeter } from '../lib/perimeter.ts'
import type { Background } from '../lib/process.ts'
import { waitUntil } from '../lib/wait.ts'

// A real server with Fail2Ban, and a real firewall. There is no systemd: what a unit would start is
// started with the unit's capabilities and system calls.
let lab: Perimeter
let server: Machine
let fail2ban: Fail2ban
let deliverer: Background | undefined

const SERVER = 'f2b-setup server --owner web1 --firewall edge1 --systemd yes'
const STATE = '/var/lib/fail2ban-perimeter'
const UNITS = '/etc/systemd/system/fail2ban-perimeter'
const ACTION = 'iptables-remote[name=%(__name__)s, port="%(port)s", protocol="%(protocol)s"]'
const OURS = `find /etc ${STATE} /usr/local -xdev -type f -printf '%p %M %U %G %s %T@\\n' | sort`

before(async () => {
  lab = await createPerimeter()
  await installPerimeter(lab)
  server = lab.server
})
after(async () => {
  await stopDeliverer()
  await lab.close()
})

/** The command of a unit, with the rights, system calls and places to write that the unit lets it. */
async function commandOf(service: string): Promise<string[]> {
  const path = `${UNITS}-${service}.service`
  const unit = await server.readFile(path)
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1] ?? ''
  const caps = value('CapabilityBoundingSet').toLowerCase().replaceAll('cap_', '+').split(' ')
  const rights = ['setpriv', '--no-new-privs', '--inh-caps=-all', `--bounding-set=-all,${caps}`]
  const filter = ['python3', `${PROJECT}/test/lib/unit-filter.py`, path]
  const strict = `umask 077; places=$1; shift
    for place in $places; do mount --bind $place $place; done
    for disk in / /etc /var /usr/local /root /run; do mount -o remount,bind,ro $disk; done
    exec "$@"`
  const places = ['unshare', '--mount', 'sh', '-euc', strict, 'sh', value('ReadWritePaths')]
  return [...places, ...rights, ...filter, ...value('ExecStart').split(' ')]
}

async function startDeliverer(): Promise<void> {
  deliverer = await server.spawn(await commandOf('deliver'))
  await waitUntil('the deliverer', () => deliverer?.stderr().includes(' ready') === true)
}

async function stopDeliverer(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  await deliverer?.kill(signal)
  await deliverer?.ended()
  deliverer = undefined
}

async function arrives(address: string): Promise<void> {
  const list = ['/usr/local/lib/fail2ban-perimeter/listips', '--owner', 'web1']
  const isThere = async () => (await lab.firewall.run(list)).includes(`${address} sshd `)
  await waitUntil(`${address} on the firewall`, isThere, { timeout: 15_000, every: 100 })
}

/** What another account than the deliverer's has in its place, and root must not have put there. */
function strangers(): Promise<string> {
  return server.sh(`find ${STATE} ! -user fail2ban-perimeter ! -path '*/queue/*'`)
}

test('a first installation without systemd is direct, with a table for cron that repairs', async () => {
  const table = await server.readFile('/etc/cron.d/fail2ban-perimeter-server')
  assert.match(
    table,
    /^\* \* \* \* \* root \S+node \S+\/sync\.cjs 2>&1 >\/dev\/null \| logger -t f2b-sync$/m,
  )
  assert.doesNotMatch(table, /deliver\.cjs/)
  assert.equal((await server.exec(['ls', `${UNITS}-deliver.service`])).code, 2)
})

test('--delivery queued --dry-run changes nothing, and the second run neither', async () => {
  const untouched = await server.sh(OURS)
  const dry = await server.sh(`${SERVER} --delivery queued --dry-run`)
  assert.match(dry, /^would create user fail2ban-perimeter$/m)
  assert.equal(await server.sh(OURS), untouched)
  // An operator's own file stays as it is.
  await server.writeFile('/etc/fail2ban/action.d/sophosxg.local', '[Init]\ntimeout = 50\n')
  const said = await server.sh(`${SERVER} --delivery queued`)
  assert.match(said, /^created rights of user fail2ban-perimeter in /m)
  assert.match(
    said,
    /sophosxg\.local was left as it is; add to it:\n {2}\[Init\]\n {2}delivery = queued/,
  )
  assert.match(said, /^ {6}fail2ban-client reload$/m)
  const made = await server.sh(OURS)
  assert.match(await server.sh(SERVER), /^nothing to change$/m)
  assert.equal(await server.sh(OURS), made)
})

test('Fail2Ban reads the queue, and what its shell wrote is delivered without a right', async () => {
  await startDeliverer()
  fail2ban = await startFail2ban(server, [{ name: 'sshd', action: ACTION }])
  const dump = await fail2ban.client('-d')
  assert.match(dump, new RegExp(`queue="${STATE}/queue/firewall"`))
  assert.doesNotMatch(dump, /actionban', '.*banip "fail2ban/)
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.50')
  await arrives('203.0.113.50')
  assert.equal(
    await server.sh(`stat -c '%a %U %G' ${STATE}/queue ${STATE}/queue/firewall`),
    '2770 fail2ban-perimeter fail2ban-perimeter\n640 root fail2ban-perimeter\n',
  )
  const status = await server.sh(`pid=$(pgrep -f '[d]eliver.cjs'); cat /proc/$pid/status
    ps -o user:30= -p $pid`)
  assert.match(status, /^CapEff:\t0+\nCapBnd:\t0*c0\n/m)
  assert.match(status, /^Groups:\t\d+ $/m)
  assert.match(status, /^fail2ban-perimeter$/m)
})

test('what root does by hand locks nobody out, whether the deliverer runs or not', async () => {
  const banip = 'banip fail2ban-hand 203.0.113.99 22 tcp --bantime 60'
  const sync = await commandOf('sync')
  assert.match(await server.run(sync), /^added 0, extended \d, removed 0, unchanged \d$/m)
  await server.sh('f2b-firewall check; f2b-firewall list')
  await stopDeliverer()
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.51')
  const drift = await server.sh('f2b-sync --dry-run')
  assert.match(drift, /^edge1: added 203\.0\.113\.51 sshd/m)
  await server.run(sync)
  await server.sh('umask 077; f2b-status --unban 203.0.113.98; f2b-sync --wait')
  await server.sh(`f2b-deliver; f2b-firewall stop; ${banip}; f2b-firewall check`)
  await arrives('203.0.113.51')
  assert.equal(await strangers(), '')
  assert.equal((await server.exec(['pgrep', '-f', '[d]eliver.cjs'])).code, 1)
  await startDeliverer()
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.52')
  await arrives('203.0.113.52')
})

test('root follows no link that the account has made, and the service can make none', async () => {
  const make = `ln -s /etc/motd ${STATE}/x || mkfifo ${STATE}/x || touch ${STATE}/y && ls ${STATE}/[xy]`
  const filter = `python3 ${PROJECT}/test/lib/unit-filter.py ${UNITS}-deliver.service`
  assert.equal(await server.sh(`${filter} sh -c '${make}'; rm ${STATE}/y`), `${STATE}/y\n`)
  const motd = await server.readFile('/etc/motd')
  const link = `ln -s /etc/motd ${STATE}/generation.edge1.new`
  await server.sh(`rm ${STATE}/generation.edge1`)
  await server.run(['sh', '-c', link], { user: 'fail2ban-perimeter' })
  const { code, stderr } = await server.exec(['f2b-firewall', 'start'])
  assert.deepEqual([code, await server.readFile('/etc/motd')], [75, motd], stderr)
  await server.sh(`rm -f ${STATE}/generation.edge1.new`)
})

test('a deliverer that is killed and started again forgets nothing', async () => {
  await stopDeliverer('SIGKILL')
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.53')
  await startDeliverer()
  await arrives('203.0.113.53')
  await stopDeliverer()
})

test('systemd finds nothing wrong with the units, and little that they may do', async () => {
  for (const [unit, most] of [
    ['deliver', 2.3],
    ['sync', 2.5],
  ] as const) {
    const path = `${UNITS}-${unit}.service`
    assert.doesNotMatch(
      await server.sh(`systemd-analyze verify --man=no ${path} 2>&1`),
      /perimeter/,
    )
    const said = await server.sh(`systemd-analyze security --offline=yes ${path} | tail -1`)
    const score = Number(/: (\d\.\d) /.exec(said)?.[1])
    assert.ok(score <= most, said)
  }
  assert.equal(await server.sh(`systemd-analyze verify --man=no ${UNITS}-sync.timer 2>&1`), '')
})

test('a firewall side does not move in where an account delivers (78)', async () => {
  const { code, stderr } = await server.exec(['f2b-setup', 'firewall'])
  assert.equal(code, 78)
  assert.match(stderr, /take it back \(f2b-setup server --delivery direct\)/)
})

test('--delivery direct takes everything back; what was queued meanwhile is not lost', async () => {
  const said = await server.sh('f2b-setup server --systemd yes --delivery direct')
  assert.match(said, /^removed rights of user fail2ban-perimeter in /m)
  assert.match(said, /^removed user fail2ban-perimeter$/m)
  // Fail2Ban has not read its actions again.
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.54')
  await server.sh('f2b-sync')
  await arrives('203.0.113.54')
  await fail2ban.client('reload')
  assert.match(
    await fail2ban.client('get', 'sshd', 'action', 'iptables-remote', 'actionban'),
    /^banip /,
  )
  assert.equal(await server.sh(`find ${STATE} /etc/fail2ban-perimeter ! -user root`), '')
  assert.equal(
    await server.sh('ls /etc/fail2ban/action.d/*.local'),
    '/etc/fail2ban/action.d/sophosxg.local\n',
  )
})

test('without systemd cron keeps a deliverer running, and an end of it delivers the rest', async () => {
  const said = await server.sh('f2b-setup server --systemd no --delivery queued')
  assert.match(said, /note: f2b-deliver runs as root: only systemd can lock an account in/)
  const table = await server.readFile('/etc/cron.d/fail2ban-perimeter-server')
  const line = /^\* \* \* \* \* root (.*deliver\.cjs.*)$/m.exec(table)?.[1] ?? ''
  const running = await server.spawn(['sh', '-c', line])
  await fail2ban.client('reload')
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.55')
  await arrives('203.0.113.55')
  await server.sh(line) // the next minute: one runs already
  await server.sh('f2b-setup server --systemd no --delivery direct')
  assert.equal(await running.ended(), 0)
  assert.equal((await server.exec(['pgrep', '-f', '[d]eliver.cjs'])).code, 1)
})

test('systemd is told to start, to start anew and to end, and then the rest is delivered', async () => {
  await server.writeFile(
    '/usr/local/sbin/systemctl',
    `#!/bin/sh
case "$1" in
  is-*) [ -e "/run/systemd/system/$3" ];;
  disable) echo "$*" >>/run/systemctl; rm -f "/run/systemd/system/$3";;
  restart) echo "$*" >>/run/systemctl; touch "/run/systemd/system/$2";;
  *) echo "$*" >>/run/systemctl;;
esac
`,
    { mode: '755' },
  )
  const told = async () => {
    const text = await server.sh('cat /run/systemctl; : >/run/systemctl')
    return text.split('\n').filter((line) => line && line !== 'daemon-reload')
  }
  const [deliver, timer] = ['deliver.service', 'sync.timer'].map((u) => `fail2ban-perimeter-${u}`)
  await server.sh('mkdir -p /run/systemd/system; f2b-setup server --delivery queued')
  const all = [`enable ${deliver}`, `restart ${deliver}`, `enable ${timer}`, `restart ${timer}`]
  assert.deepEqual(await told(), all)
  assert.match(await server.sh('f2b-setup server'), /^nothing to change$/m)
  assert.deepEqual(await told(), [])
  await server.sh(
    'echo "// older" >>/usr/local/lib/fail2ban-perimeter/deliver.cjs; f2b-setup server',
  )
  assert.deepEqual(await told(), all.slice(0, 2))
  await fail2ban.client('reload')
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.56')
  await server.sh('f2b-setup server --delivery direct')
  // The sync has less to do then, and so fewer rights.
  assert.deepEqual(await told(), [`disable --now ${deliver}`, ...all.slice(2)])
  await arrives('203.0.113.56')
  await server.sh('f2b-setup server --uninstall; rm -r /run/systemd /usr/local/sbin/systemctl')
})

test('--uninstall --purge leaves nothing of ours', async () => {
  await server.sh('f2b-setup server --systemd yes --delivery queued')
  await server.sh('f2b-setup server --uninstall')
  assert.equal((await server.exec(['getent', 'passwd', 'fail2ban-perimeter'])).code, 2)
  await server.sh('rm /etc/fail2ban/action.d/sophosxg.local; f2b-setup server --uninstall --purge')
  const left = `find /etc /usr/local/lib ${STATE} -xdev -name '*perimeter*' -o -name '*.local' -path '*/action.d/*'`
  assert.equal((await server.exec(['sh', '-c', left])).stdout, '')
})
