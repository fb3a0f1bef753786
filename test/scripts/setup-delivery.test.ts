import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { appendCommand } from '../lib/append.ts'
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
const SOCKET = '/run/fail2ban-perimeter/deliver.sock'
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

/** The command of a unit, with the user, rights, system calls and places to write that it lets it. */
async function commandOf(service: string): Promise<string[]> {
  const path = `${UNITS}-${service}.service`
  const unit = await server.readFile(path)
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1] ?? ''
  const caps = value('CapabilityBoundingSet').toLowerCase().replaceAll('cap_', '+').split(' ')
  const user = value('User')
  const ids = user ? ['--reuid', user, '--regid', value('Group'), '--init-groups'] : []
  const bounds = [
    '--inh-caps=-all',
    `--bounding-set=${['-all', ...caps].filter(Boolean).join(',')}`,
  ]
  const rights = ['setpriv', '--no-new-privs', ...bounds, ...ids]
  const filter = ['python3', `${PROJECT}/test/lib/unit-filter.py`, path]
  const run = `/run/${value('RuntimeDirectory')}`
  const own = user
    ? `install -d -m 700 -o ${user} -g ${user} ${run}; export RUNTIME_DIRECTORY=${run}`
    : ''
  const strict = `umask 077; ${own}
    places="$1 ${run}"; shift
    for place in $places; do mount --bind $place $place; done
    for disk in / /etc /var /usr/local /root /run; do mount -o remount,bind,ro $disk; done
    exec "$@"`
  const places = ['unshare', '--mount', 'sh', '-euc', strict, 'sh', value('ReadWritePaths')]
  const socket = ['python3', `${PROJECT}/test/lib/listen.py`, SOCKET, user]
  const command = [...places, ...rights, ...filter, ...value('ExecStart').split(' ')]
  return user ? [...socket, ...command] : command
}

async function startDeliverer(): Promise<void> {
  const started = await server.spawn(await commandOf('deliver'))
  deliverer = started
  await waitUntil('the deliverer', () => started.stderr().includes(' ready')).catch((error) => {
    throw new Error(started.stderr(), { cause: error })
  })
}

async function stopDeliverer(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  await deliverer?.kill(signal)
  await deliverer?.ended()
  deliverer = undefined
}

async function arrives(address: string): Promise<void> {
  const list = ['/usr/local/lib/fail2ban-perimeter/listips', '--owner', 'web1']
  const isThere = async () => (await lab.firewall.run(list)).includes(`${address} sshd `)
  await waitUntil(`${address} on the firewall`, isThere, { every: 100 })
}

/** What is another's than it should be: root's, but for the folder of the account. */
function strangers(): Promise<string> {
  const own = `-path ${STATE}/delivery -o -path '${STATE}/delivery/*'`
  const user = '-user fail2ban-perimeter'
  return server.sh(`find ${STATE} \\( ${own} \\) ! ${user} -o ! \\( ${own} \\) ${user}`)
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
  assert.match(said, /^ {6}fail2ban-client restart$/m)
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
    '2750 root fail2ban-perimeter\n640 root fail2ban-perimeter\n',
  )
  const status = await server.sh(`pid=$(pgrep -f '[d]eliver.cjs'); cat /proc/$pid/status
    ps -o user:30= -p $pid`)
  assert.match(status, /^CapEff:\t0+\nCapBnd:\t0+\n/m)
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
  const { code, stderr } = await server.exec(sync)
  assert.equal(code, 75)
  const start = 'start it (systemctl start fail2ban-perimeter-deliver.socket)'
  assert.equal(stderr, `sync: Cannot ask f2b-deliver: it does not run: ${start}\n`)
  await server.sh(`umask 077; f2b-deliver; f2b-firewall stop; ${banip}; f2b-firewall check`)
  await arrives('203.0.113.51')
  assert.equal(await strangers(), '')
  assert.equal((await server.exec(['pgrep', '-f', '[d]eliver.cjs'])).code, 1)
  await startDeliverer()
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.52')
  await arrives('203.0.113.52')
})

test('root sees through the service how the delivery stands, what an address is, and frees it', async () => {
  const status = await server.sh('f2b-sync >/dev/null; f2b-status --json --timeout 60')
  const { code, deliverer, targets } = JSON.parse(status)
  assert.deepEqual([code, deliverer.running, deliverer.error], [0, true, null], status)
  const [{ target, reachable, drift, queued }] = targets
  assert.deepEqual([target, reachable, queued], ['edge1', true, 0])
  assert.deepEqual(drift, { missing: 0, extra: 0, wrong_expiry: 0 })
  assert.match(await server.sh('f2b-status 203.0.113.52'), /in force on 1 of 1 target/)
  assert.match(await server.sh('f2b-status --unban 203.0.113.52'), /freed in sshd/)
  assert.match(await server.sh('f2b-status 203.0.113.52'), /no target has it/)
})

test('root puts away what the account has read of the queue, and loses no line', async () => {
  const queue = `${STATE}/queue/firewall`
  // Many lines that say what is in force already.
  await server.sh(`printf '\\nunban|203.0.113.250|sshd|.\\n%.0s' $(seq 3000) >>${queue}`)
  const sync = await commandOf('sync')
  const names = () => server.sh(`ls ${STATE}/queue`)
  await waitUntil('the end of the file', async () => {
    await server.run(sync)
    return (await names()) === 'firewall.taken\n'
  })
  // Whoever had it open writes late.
  await server.sh(`printf '\\nban|203.0.113.61|sshd|1|-1|22|tcp|.\\n' >>${queue}.taken`)
  await arrives('203.0.113.61')
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.62')
  await arrives('203.0.113.62')
  await server.sh('sleep 6')
  await server.run(sync)
  assert.equal(await names(), 'firewall\nfirewall.gone\n')
  await waitUntil('the end of it', async () => {
    await server.run(sync)
    return (await names()) === 'firewall\n'
  })
  await fail2ban.client('set', 'sshd', 'unbanip', '203.0.113.62')
})

test('a Fail2Ban without capabilities queues, as ArchWiki hardens it', async () => {
  const caps = 'audit_read,+dac_read_search,+net_admin,+net_raw'
  const hardened = ['setpriv', `--bounding-set=-all,+${caps}`, '--inh-caps=-all', '--no-new-privs']
  const unban = ['unban', '203.0.113.240', 'sshd']
  for (const queue of [`${STATE}/queue/firewall`, `${STATE}/queue/sophosxg`]) {
    await server.run([...hardened, ...appendCommand(queue, unban)])
    assert.match(
      await server.sh(`tail -n 1 ${queue}; stat -c '%U %G %a' ${queue}`),
      /^unban.*\nroot fail2ban-perimeter 640\n$/,
    )
  }
  await server.sh(`rm ${STATE}/queue/sophosxg`)
})

test('root touches nothing that the account can write', async () => {
  const status = ['f2b-status', 'f2b-status 203.0.113.50', 'f2b-status --unban 203.0.113.249']
  const root = ['f2b-sync', 'f2b-setup server --systemd yes', 'f2b-firewall check', ...status]
  const hand = ['f2b-firewall list', 'banip fail2ban-hand 203.0.113.99 22 tcp --bantime 60']
  for (const command of [...root, ...hand]) {
    // A file for each process, so that no call is torn in two lines.
    const options = '-ff -y -s 4096 -o /root/traces/of -e trace=%file,%desc,%network'
    const trace = `rm -rf /root/traces; mkdir /root/traces; strace ${options} ${command} >/dev/null`
    const places = ['fail2ban-perimeter/delivery', '/run/fail2ban-perimeter-deliver']
    const grep = `grep -rh ${places.map((place) => `-e ${place}`).join(' ')} /root/traces || true`
    const seen = await server.sh(`${trace}; grep -rq . /root/traces; ${grep}`)
    const others = seen
      .split('\n')
      .filter((line) => line && !/^(read|write|statx|l?stat|newfstatat)\(/.test(line))
    assert.deepEqual(others, [], command)
  }
})

test('what the account can make, makes it nothing of root’s: links, pipes, set-user-ID, a race', async () => {
  await server.sh('rm -rf /root/kept; mkdir /root/kept; echo secret >/root/kept/file')
  const motd = await server.readFile('/etc/motd')
  const traps = `cd ${STATE}/delivery; ln -sf /etc/motd generation.edge1.new
    ln -sf /root/kept/file generation.trap; mkfifo pipe.state; ln -s /root/kept folder
    cp /bin/sh shell; chmod 6755 shell; mkdir -p deep/er; cp /bin/sh deep/er/shell
    chmod 6755 deep/er/shell; ln shell second; rm -f lock; ln -s /root/kept/lock lock`
  await server.run(['sh', '-euc', traps], { user: 'fail2ban-perimeter' })
  const cannot = `cd ${STATE}; ! ln -s /etc/motd x && ! touch y queue/y && ! mv queue q`
  await server.run(['sh', '-euc', `${cannot} && ! rm queue/firewall`], {
    user: 'fail2ban-perimeter',
  })
  assert.match(await server.sh(SERVER), /^nothing to change$/m)
  await stopDeliverer()
  // To root, while a process of the account makes more, and back.
  const race = `cd ${STATE}/delivery; while :; do ln -sfn /root/kept/file generation.race
    rm generation.race; mkdir generation.race; rm -r generation.race; done 2>/dev/null`
  const racing = await server.spawn(['sh', '-c', race], { user: 'fail2ban-perimeter' })
  await server.sh('f2b-setup server --systemd yes --delivery direct')
  await racing.kill('SIGKILL')
  assert.equal(await server.sh(`find ${STATE} ! -type d ! -type f; find ${STATE} -perm /6022`), '')
  assert.equal(await server.sh(`find ${STATE} ! -user root`), '')
  await server.sh('f2b-setup server --systemd yes --delivery queued')
  assert.equal(await server.sh(`find ${STATE} ! -type d ! -type f; find ${STATE} -perm /4022`), '')
  assert.equal(await strangers(), '')
  assert.equal(
    await server.sh('cat /root/kept/*; stat -c %U:%a /root/kept/*'),
    'secret\nroot:644\n',
  )
  assert.equal(await server.readFile('/etc/motd'), motd)
  await startDeliverer()
})

test('an older installation, whose state directory the account had, is taken over whole', async () => {
  await stopDeliverer()
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.57')
  const user = 'fail2ban-perimeter:fail2ban-perimeter'
  await server.sh(`cd ${STATE}; mv delivery/generation.edge1 .; chown ${user} . queue generation.edge1
    chmod 2770 queue; touch sync.lock; chown ${user} sync.lock; echo 1.2.3.4 >sophosxg-fw1.leases
    chown ${user} sophosxg-fw1.leases; chown root:root /etc/fail2ban-perimeter/config.yaml
    chmod 600 /etc/fail2ban-perimeter/config.yaml`)
  const plant = `cd ${STATE}; ln -s /etc/motd queue/sophosxg; mkfifo queue/fortigate; ln -s /root planted
    cp /bin/sh shell; chmod 6755 shell; mkdir .fail2ban-perimeter; ln -s /etc/motd manual.leases`
  await server.run(['sh', '-euc', plant], { user: 'fail2ban-perimeter' })
  const refused = await server.exec(['f2b-sync'])
  assert.equal(refused.code, 78)
  assert.match(
    refused.stderr,
    /^sync: Cannot use "\S+": it belongs to user \d+: run f2b-setup server\n$/,
  )
  const race = `cd ${STATE}; while :; do ln -sfn /root/kept x; rm x; mkdir x; rm -r x; done 2>/dev/null`
  const racing = await server.spawn(['sh', '-c', race], { user: 'fail2ban-perimeter' })
  await server.sh(SERVER)
  await racing.kill('SIGKILL')
  assert.match(await server.sh(SERVER), /^nothing to change$/m)
  assert.equal(await strangers(), '')
  assert.equal(
    await server.sh(`cd ${STATE}; ls -A . queue; cat delivery/sophosxg-fw1.leases; ls delivery`),
    `.:\ndelivery\nqueue\n\nqueue:\n.lock\nfirewall\n1.2.3.4\n${await server.sh(`ls ${STATE}/delivery`)}`,
  )
  assert.equal(
    await server.sh(
      `find ${STATE} ! -type d ! -type f; find ${STATE} -perm /6022 ! -path '*/queue'`,
    ),
    '',
  )
  await server.sh(`test -s ${STATE}/delivery/generation.edge1`)
  await startDeliverer()
  await arrives('203.0.113.57')
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

test('a firewall side moves in beside an account, which notices nothing', async () => {
  await server.sh('f2b-setup firewall')
  assert.match(await server.sh(SERVER), /^nothing to change$/m)
  assert.equal(await server.sh(`stat -c '%U %a' ${STATE}`), 'root 755\n')
  await server.sh('f2b-setup firewall --uninstall --purge')
})

test('--delivery direct takes everything back; what was queued meanwhile is not lost', async () => {
  const said = await server.sh('f2b-setup server --systemd yes --delivery direct')
  assert.match(said, /^removed rights of user fail2ban-perimeter in /m)
  assert.match(said, /^updated \S+\/delivery\/$/m)
  assert.match(said, /^removed user fail2ban-perimeter$/m)
  // Fail2Ban has not read its actions again.
  await fail2ban.client('set', 'sshd', 'banip', '203.0.113.54')
  await server.sh('f2b-sync')
  await arrives('203.0.113.54')
  await fail2ban.client('reload')
  assert.match(
    await fail2ban.client('get', 'sshd', 'action', 'iptables-remote', 'actionban'),
    /^banip /m,
  )
  assert.equal(await server.sh(`find ${STATE} /etc/fail2ban-perimeter ! -user root`), '')
  assert.equal(
    await server.sh('ls /etc/fail2ban/action.d/*.local'),
    '/etc/fail2ban/action.d/sophosxg.local\n',
  )
})

test('a jail that runs without an action that it is to have is named', async () => {
  const jails = '/etc/fail2ban/jail.local'
  const was = await server.readFile(jails)
  const second = ACTION.replace('name=%(__name__)s', 'actname=second, name=second')
  await server.writeFile(jails, was.replace(ACTION, `${ACTION}\n         ${second}`))
  await fail2ban.client('reload') // which drops it
  const { code, stderr } = await server.exec(['f2b-setup', 'server', '--systemd', 'yes'])
  assert.equal(code, 78)
  assert.match(stderr, /All is set up, but jail "sshd" runs without second: its bans go nowhere: /)
  await server.writeFile(jails, was)
  await fail2ban.client('reload')
  await server.sh('f2b-setup server --systemd yes')
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
  disable) echo "$*" >>/run/systemctl; shift 2; cd /run/systemd/system; rm -f "$@";;
  restart) echo "$*" >>/run/systemctl; shift; cd /run/systemd/system; touch "$@";;
  stop) shift; cd /run/systemd/system; rm -f "$@";;
  *) echo "$*" >>/run/systemctl;;
esac
`,
    { mode: '755' },
  )
  const told = async () => {
    const text = await server.sh('cat /run/systemctl; : >/run/systemctl')
    return text
      .split('\n')
      .filter((line) => line && !/^(daemon-reload|reset-failed |show )/.test(line))
  }
  const [deliver, timer] = [
    'fail2ban-perimeter-deliver.socket fail2ban-perimeter-deliver.service',
    'fail2ban-perimeter-sync.timer',
  ]
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
  assert.deepEqual(await told(), [`disable --now ${deliver}`, ...all.slice(2)])
  await arrives('203.0.113.56')
  const used = await server.exec(['f2b-setup', 'server', '--uninstall'])
  assert.equal(used.code, 75)
  assert.match(used.stderr, /Nothing was changed: Fail2Ban's jail "sshd" bans with iptables-remote/)
  await fail2ban.stop()
  await server.sh(`rm /etc/fail2ban/jail.local
    f2b-setup server --uninstall; rm -r /run/systemd /usr/local/sbin/systemctl`)
})

test('--uninstall --purge leaves nothing of ours', async () => {
  await server.sh('f2b-setup server --systemd yes --delivery queued')
  // As actionstart begins one: it waits for Fail2Ban, which is not there.
  const waiting = await server.spawn(['sh', '-c', 'echo begun; exec f2b-sync --wait'])
  const isThere = async () => (await server.exec(['pgrep', '-f', '[s]ync.cjs --wait'])).code === 0
  await waitUntil('f2b-sync', isThere)
  await server.sh('f2b-setup server --uninstall')
  await waiting.ended()
  assert.equal((await server.exec(['getent', 'passwd', 'fail2ban-perimeter'])).code, 2)
  await server.sh('rm /etc/fail2ban/action.d/sophosxg.local; f2b-setup server --uninstall --purge')
  const ours = "-path '*perimeter*' -o -name '*.local' -path '*/action.d/*'"
  const left = `find /etc /usr/local/lib /var/lib -xdev ${ours}`
  assert.equal((await server.exec(['sh', '-c', left])).stdout, '')
})
