import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseAddress as parse } from '../../scripts/lib/address.ts'
import { mikrotikTargets } from '../../scripts/lib/mikrotik/target.ts'
import { LostGeneration } from '../../scripts/lib/target.ts'
import {
  ban,
  type Case,
  HAND,
  inWorld,
  type Kind,
  list,
  manyLeases,
  PRESENT,
  SECRET,
  sync,
  tryFault,
  unban,
  type World,
} from '../lib/appliance.ts'
import { type MikrotikFaults, MikrotikSimulator } from '../simulators/mikrotik.ts'

const OK = { code: 0, stdout: '', stderr: '' }

const KIND: Kind<MikrotikSimulator> = {
  section: 'mikrotik',
  make: () => new MikrotikSimulator(),
  settings: ({ user, pass }) => ({ user, pass }),
  targets: ({ mikrotik }) => mikrotikTargets(mikrotik),
}

type Router = World<MikrotikSimulator>

function router(name: string, work: (world: Router) => Promise<void>): void {
  test(name, () => inWorld(KIND, work))
}

const later = (seconds: number) => Math.floor(Date.now() / 1000) + seconds

function entry({ sim }: Router, address: string) {
  return [...sim.entries.values()].find((one) => one.address === address)
}

function calls({ sim }: Router, from: number): number {
  return sim.log.length - from
}

router('a ban is one call, also of IPv6 and of a range, and an unban two', async (world) => {
  for (const ip of ['192.0.2.7', '2001:DB8::0007', '203.0.113.77/28', '2001:db8:1::/64']) {
    const mark = world.sim.log.length
    assert.deepEqual(await world.run(`ban --ip ${ip} --name sshd --bantime 600`), OK)
    assert.equal(calls(world, mark), 1, ip)
  }
  const blocked = ['192.0.2.7', '2001:db8:1::/64', '2001:db8::7', '203.0.113.64/28']
  assert.deepEqual(world.sim.blocked(), blocked)
  assert.equal(entry(world, '2001:db8::7/128')?.menu, 'ipv6')
  const one = entry(world, '192.0.2.7')
  const late = (one?.until ?? 0) / 1000 - Number(one?.comment?.split('/')[2])
  assert.ok(late >= 0 && late < 10, `the router ends it by itself, ${late} s after its end`)
  const { stdout } = await world.run('list')
  assert.match(
    stdout,
    /^192\.0\.2\.7 sshd \d{10} web1\n203\.0\.113\.64\/28 sshd \d{10} web1\n2001:db8::7 sshd/,
  )
  for (const ip of blocked) {
    const mark = world.sim.log.length
    assert.deepEqual(await world.run(`unban --ip ${ip} --name sshd`), OK)
    assert.equal(calls(world, mark), 2, ip)
  }
  assert.deepEqual(world.sim.blocked(), [])
  assert.deepEqual(await world.run('unban --ip 192.0.2.7 --name sshd'), OK, 'what is not there')
})

router('a ban for ever gets the longest timeout there is', async (world) => {
  await ban(world, '192.0.2.7 sshd 0')
  assert.deepEqual(await list(world), ['192.0.2.7 sshd 0 web1'])
  assert.equal(await sync(world, '192.0.2.7 sshd 0'), 'added 0, extended 0, removed 0, unchanged 1')
  world.sim.ahead += 15_000_000_000
  assert.equal(await sync(world, '192.0.2.7 sshd 0'), 'added 0, extended 0, removed 0, unchanged 1')
  world.sim.ahead += 15_000_000_000
  assert.deepEqual(world.sim.blocked(), ['192.0.2.7'])
})

router('the longest lease of an address wins, and the last to let go frees it', async (world) => {
  const other = { config: world.configure({}, 'web2') }
  const [soon, late] = [later(600), later(6000)]
  await ban(world, `192.0.2.7 sshd ${late}`)
  await ban(world, `192.0.2.7 nginx ${soon}`)
  await ban(world, `192.0.2.7 sshd ${soon}`, other)
  await ban(world, `192.0.2.7 sshd ${soon}`)
  assert.equal(
    entry(world, '192.0.2.7')?.comment,
    `f2b nginx/web1/${soon} sshd/web1/${late} sshd/web2/${soon}`,
  )
  const left = () => Math.round(((entry(world, '192.0.2.7')?.until ?? 0) - Date.now()) / 1000)
  assert.ok(left() > 5990, 'a shorter lease never cuts')
  await unban(world, '192.0.2.7 sshd')
  assert.ok(left() < 610, 'what is left ends when it would have')
  assert.equal(await sync(world, ''), 'added 0, extended 0, removed 1, unchanged 0')
  assert.deepEqual(await list(world, other), [`192.0.2.7 sshd ${soon} web2`])
  assert.deepEqual(world.sim.blocked(), ['192.0.2.7'])
  await unban(world, '192.0.2.7 sshd', other)
  assert.deepEqual(world.sim.blocked(), [])
})

router(
  'what a person put into the list stays, blocks for us, or is said to be in the way',
  async (world) => {
    const until = Date.now() + 60_000
    world.sim.enter({ address: '192.0.2.7', comment: 'Bob, since 2019' })
    world.sim.enter({ address: '192.0.2.8', until })
    world.sim.enter({ address: '192.0.2.9', disabled: true })
    world.sim.enter({ address: '192.0.2.10-192.0.2.20' })
    const before = JSON.stringify([...world.sim.entries.values()])
    await ban(world, '192.0.2.7 sshd 0')
    await ban(world, `192.0.2.8 sshd ${later(30)}`)
    const { code, stderr } = await world.run('ban --ip 192.0.2.8 --name sshd')
    assert.equal(code, 77)
    assert.match(
      stderr,
      /Cannot ban "192\.0\.2\.8" on "fw1": its list has that address from somebody else/,
    )
    await assert.rejects(ban(world, '192.0.2.9 sshd 0'), /from somebody else/)
    await unban(world, '192.0.2.7 sshd')
    const counts = await sync(world, '192.0.2.7 sshd 0\n192.0.2.9 sshd 0\n')
    assert.equal(counts, 'added 0, extended 0, removed 0, unchanged 1, refused 1')
    await sync(world, '')
    const entries = [...world.sim.entries.values()].filter(
      ({ comment }) => !comment?.startsWith('f2b-marker'),
    )
    assert.equal(JSON.stringify(entries), before)
  },
)

router('a sync makes the list equal, the second time with a read of each family', async (world) => {
  const until = later(6000)
  const lines = `192.0.2.7 sshd ${until}\n192.0.2.7 nginx 0\n2001:db8::/64 sshd ${until}\n`
  assert.equal(await sync(world, lines), 'added 3, extended 0, removed 0, unchanged 0')
  let mark = world.sim.log.length
  assert.equal(await sync(world, lines), 'added 0, extended 0, removed 0, unchanged 3')
  assert.equal(calls(world, mark), 2)
  assert.deepEqual(world.sim.writes(mark), [])
  const changed = `192.0.2.7 sshd ${until + 60}\n192.0.2.8 sshd 0\n`
  assert.equal(
    await sync(world, changed, { jail: 'sshd' }),
    'added 1, extended 1, removed 1, unchanged 0',
  )
  assert.deepEqual(await list(world), [
    '192.0.2.7 nginx 0 web1',
    `192.0.2.7 sshd ${until + 60} web1`,
    '192.0.2.8 sshd 0 web1',
  ])
  mark = world.sim.log.length
  const { stdout } = await world.run('sync --dry-run', { input: '192.0.2.9 sshd 0\n' })
  assert.equal(
    stdout,
    'add 192.0.2.9\nremove 192.0.2.7\nremove 192.0.2.8\nadded 1, extended 0, removed 3, unchanged 0\n',
  )
  assert.deepEqual(world.sim.writes(mark), [])
})

router('a sync repairs what a person did to entries of ours', async (world) => {
  await sync(world, PRESENT)
  const [one, two, three] = ['203.0.113.1', '203.0.113.2', '203.0.113.3'].map((a) =>
    entry(world, a),
  )
  Object.assign(one ?? {}, { disabled: true })
  Object.assign(two ?? {}, { until: Date.now() + 5000 })
  Object.assign(three ?? {}, { until: undefined })
  assert.equal(await sync(world, PRESENT), 'added 0, extended 0, removed 0, unchanged 3')
  assert.equal(world.sim.blocked().length, 3)
  for (const { until = 0 } of [one, two, three].flatMap((e) => e ?? [])) {
    assert.ok(until > Date.now() + 1e10, 'all for ever again')
  }
  const mark = world.sim.log.length
  await sync(world, PRESENT)
  assert.deepEqual(world.sim.writes(mark), [])
})

router('a reboot is noticed by one call, and the next sync fills the list', async (world) => {
  await world.within((target, call) => target.start(call))
  await sync(world, PRESENT)
  const mark = world.sim.log.length
  assert.deepEqual(await world.run('check'), OK)
  assert.equal(calls(world, mark), 1)
  world.sim.reboot()
  for (let i = 0; i < 2; i++) {
    const { code, stderr } = await world.run('check')
    assert.equal(code, 75)
    assert.match(stderr, /its list was emptied, by a reboot perhaps/)
  }
  await assert.rejects(
    world.within(async (target, call) => target.open?.(call)),
    LostGeneration,
  )
  assert.equal(await sync(world, PRESENT), 'added 3, extended 0, removed 0, unchanged 0')
  assert.deepEqual(await world.run('check'), OK)
})

router('a check that is cut off hides no reboot, and start stays after it', async (world) => {
  const check = () => world.within((target, call) => target.check(call))
  const cutOff = async () => {
    world.sim.faults.lacks = 'read'
    await assert.rejects(check(), /its group needs read/)
    world.sim.faults.lacks = undefined
  }
  await cutOff()
  world.sim.ahead += 3000
  await assert.rejects(check(), LostGeneration)
  await cutOff()
  await world.within((target, call) => target.start(call))
  world.sim.ahead += 3000
  await check()
})

router('many changes are few calls, in the order in which they came', async (world) => {
  await sync(world, PRESENT)
  await world.within(async (target, call) => {
    const lease = (line: string) => {
      const [address = '', jail = ''] = line.split(' ')
      return { address: parse(address), jail, expires: 0, owner: call.owner }
    }
    const bans = manyLeases(500)
      .trim()
      .split('\n')
      .map((line) => ({ verb: 'ban' as const, lease: lease(line) }))
    const again = [
      { verb: 'unban' as const, address: parse('203.0.113.1'), jail: 'sshd' },
      { verb: 'ban' as const, lease: lease('203.0.113.1 nginx') },
      { verb: 'ban' as const, lease: lease('203.0.113.9 sshd') },
      { verb: 'unban' as const, address: parse('203.0.113.9'), jail: 'sshd' },
    ]
    const mark = world.sim.log.length
    const made = await target.change(call, [...bans, ...again])
    assert.deepEqual(
      made.filter((outcome) => outcome !== undefined),
      [],
    )
    assert.ok(calls(world, mark) <= 10, `${calls(world, mark)} calls`)
  })
  const leases = await list(world)
  assert.equal(leases.length, 503)
  assert.ok(
    leases.includes('203.0.113.1 nginx 0 web1') && !leases.includes('203.0.113.1 sshd 0 web1'),
  )
})

for (const scripts of ['background', 'unknown', 'nothing'] as const) {
  router(`works without scripts that answer: ${scripts}`, async (world) => {
    world.sim.faults.scripts = scripts
    assert.equal(
      await sync(world, manyLeases(250)),
      'added 250, extended 0, removed 0, unchanged 0',
    )
    assert.equal(world.sim.blocked().length, 250)
    assert.equal(await sync(world, ''), 'added 0, extended 0, removed 250, unchanged 0')
    assert.deepEqual(world.sim.blocked(), [])
  })
}

router('two servers that sync at the same time lose nothing of each other', async (world) => {
  const other = { config: world.configure({}, 'web2') }
  const lines = manyLeases(150)
  await Promise.all([sync(world, lines), sync(world, lines, other)])
  await Promise.all([sync(world, lines), sync(world, lines, other)])
  assert.equal((await list(world)).length, 150)
  assert.equal((await list(world, other)).length, 150)
  await Promise.all([sync(world, ''), sync(world, lines, other)])
  assert.equal(world.sim.blocked().length, 150)
})

const ALL = [69, 75, 76, 77]
const WRITING = ['ban', 'unban', 'sync', 'flush']
const faults = (
  name: string,
  given: Partial<MikrotikFaults>,
  codes: number[],
  verbs?: string[],
): Case<MikrotikSimulator> => ({
  name,
  codes,
  break: (sim) => void Object.assign(sim.faults, given),
  ...(verbs && { verbs }),
  ...((given.before === 'hang' || given.after === 'hang') && { hangs: true }),
})

const CASES: Case<MikrotikSimulator>[] = [
  {
    name: 'the password is refused',
    break: (sim) => {
      sim.pass = 'another'
    },
    codes: [77],
  },
  {
    name: 'refusals repeat the credentials',
    break: (sim) => {
      sim.pass = 'x'
      sim.faults.echo = true
    },
    codes: [77],
  },
  faults('failures repeat the credentials', { echo: true, lacks: 'read' }, ALL, [
    'list',
    'sync',
    'flush',
    'unban',
  ]),
  faults('the group lacks rest-api', { lacks: 'rest-api' }, [77]),
  faults('the group lacks write', { lacks: 'write' }, [77], [...WRITING, 'check', 'start']),
  faults('the group lacks read', { lacks: 'read' }, [77], ['unban', 'sync', 'flush', 'list']),
  faults('the group may run no script', { lacks: 'script' }, [0]),
  faults('failures come with HTTP 200', { failWith200: true }, [0]),
  faults('no rights, with HTTP 200', { failWith200: true, lacks: 'write' }, [77], WRITING),
  faults('the router has no IPv6', { noIpv6: true }, [0]),
  faults('entries vanish between list and change', { vanish: true, times: 1 }, [0], WRITING),
  faults(
    'no entry more is taken',
    { most: 5 },
    [0, 77],
    ['ban', 'unban', 'flush', 'list', 'check'],
  ),
  faults(
    'the router says done and does nothing',
    { pretend: true },
    [76],
    ['ban', 'sync', 'flush'],
  ),
  faults('connections are reset', { resetConnections: true }, [69]),
  ...(['reset', 'cut', '500', '503', '429'] as const).flatMap((before) => [
    faults(`always ${before}`, { before }, [75]),
    faults(`once ${before}`, { before, times: 1 }, [0]),
    faults(
      `the answer is lost once after the work: ${before}`,
      { after: before, times: 1 },
      [0],
      WRITING,
    ),
    faults(
      `the second answer is lost: ${before}`,
      { after: before, times: 1, skip: 1 },
      [0],
      WRITING,
    ),
  ]),
  faults('hangs', { before: 'hang' }, [75]),
  faults('hangs once after the work', { after: 'hang', times: 1 }, [0]),
  faults('a web page', { before: 'html' }, [76]),
  faults('an empty answer', { before: 'empty' }, [76]),
  faults('HTTP 401 and a page', { before: '401' }, [77]),
  faults('HTTP 403 and a page', { before: '403' }, [77]),
]

describe('no fault makes a success of what is not there', () => {
  for (const one of CASES) {
    test(one.name, () =>
      tryFault(KIND, one, {
        async seed(world) {
          world.sim.pass = SECRET
          await world.within((target, call) => target.start(call), { config: world.configure() })
          await sync(world, PRESENT, { config: world.configure() })
          world.sim.enter({ address: HAND, comment: 'by hand' })
          world.sim.enter({ address: '203.0.113.3', list: 'other', comment: 'f2b sshd/web1/0' })
        },
        foreign: ({ entries }) =>
          JSON.stringify(
            [...entries.values()].filter((e) => e.list !== 'f2b' || !e.comment?.startsWith('f2b')),
          ),
      }),
    )
  }
})

router('a table that is full is said, and what fits is entered', async (world) => {
  world.sim.faults.most = 101
  const counts = await sync(world, manyLeases(150))
  assert.equal(counts, 'added 100, extended 0, removed 0, unchanged 0, refused 50')
  assert.equal(world.sim.blocked().length, 100)
  const { code, stderr } = await world.run('ban --ip 192.0.2.7 --name sshd')
  assert.equal(code, 77)
  assert.match(
    stderr,
    /^mikrotik: Cannot ban "192\.0\.2\.7" on "fw1": [^\n]*can not add more entries\n$/,
  )
})

router('an untrusted certificate is refused before anything is sent', async (world) => {
  const config = world.configure({ ca: undefined, pin: 'AB'.repeat(32) })
  const { code, stderr } = await world.run('ban --ip 192.0.2.7 --name sshd', { config })
  assert.equal(code, 77)
  assert.match(
    stderr,
    /its certificate is not the pinned one, nothing was sent: if it was renewed, run f2b-setup mikrotik again/,
  )
  assert.equal(world.sim.log.length, 0)
})
