import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { parseAddress } from '../../scripts/lib/address.ts'
import { opnsenseTargets } from '../../scripts/lib/opnsense/target.ts'
import { type Change, LostGeneration } from '../../scripts/lib/target.ts'
import {
  ban,
  type Case,
  HAND,
  inWorld,
  type Kind,
  leasesFrom,
  list,
  manyLeases,
  PRESENT,
  SECRET,
  sync,
  tryFault,
  unban,
  type World,
} from '../lib/appliance.ts'
import { type OpnsenseFaults, OpnsenseSimulator } from '../simulators/opnsense.ts'

const OK = { code: 0, stdout: '', stderr: '' }

const KIND: Kind<OpnsenseSimulator> = {
  section: 'opnsense',
  make: () => new OpnsenseSimulator(),
  settings: ({ key, secret }) => ({ key: `key=${key}\nsecret=${secret}\n` }),
  targets: ({ opnsense, owner }) => opnsenseTargets(opnsense, owner),
}

type Firewall = World<OpnsenseSimulator>

function firewall(name: string, work: (world: Firewall) => Promise<void>): void {
  test(name, () => inWorld(KIND, work))
}

const later = (seconds: number) => Math.floor(Date.now() / 1000) + seconds

function calls({ sim }: Firewall, from: number): number {
  return sim.log.length - from
}

firewall(
  'a ban is one call and one that proves it, also of IPv6 and ranges, spelled as pf does',
  async (world) => {
    for (const ip of ['192.0.2.7', '2001:DB8::0007', '203.0.113.77/28', '2001:db8:1::/64']) {
      const mark = world.sim.log.length
      await ban(world, `${ip} sshd ${later(600)}`)
      assert.equal(calls(world, mark), 2, ip)
    }
    const blocked = ['192.0.2.7', '2001:db8:1::/64', '2001:db8::7', '203.0.113.64/28']
    assert.deepEqual(world.sim.blocked(), blocked)
    assert.equal((await list(world)).length, 4)
    for (const ip of blocked) {
      const mark = world.sim.log.length
      await unban(world, `${ip} sshd`)
      assert.equal(calls(world, mark), 2, ip)
    }
    assert.deepEqual(world.sim.blocked(), [])
  },
)

firewall(
  'the command is silent on success, reads the key file, and says what is wrong',
  async (world) => {
    const file = `${world.dir}/key.txt`
    writeFileSync(file, `key=${world.sim.key}\r\nsecret=${world.sim.secret}\r\n`, { mode: 0o600 })
    const config = world.configure({ key: undefined, key_file: file })
    assert.deepEqual(await world.run('ban --ip 192.0.2.7 --name sshd', { config }), OK)
    assert.deepEqual(world.sim.blocked(), ['192.0.2.7'])
    world.sim.tables.delete('f2b_web1')
    const { code, stderr } = await world.run('ban --ip 192.0.2.8 --name sshd', { config })
    assert.equal(code, 75)
    assert.match(
      stderr,
      /^opnsense: Cannot ban "192\.0\.2\.8" on "fw1": has no alias "f2b_web1": make it in [^\n]+\n$/,
    )
  },
)

firewall(
  'the last jail to let go frees an address, and a shorter lease never cuts',
  async (world) => {
    const [soon, late] = [later(600), later(6000)]
    await ban(world, `192.0.2.7 sshd ${late}`)
    await ban(world, `192.0.2.7 nginx ${soon}`)
    await ban(world, `192.0.2.7 sshd ${soon}`)
    assert.deepEqual(await list(world), [
      `192.0.2.7 nginx ${soon} web1`,
      `192.0.2.7 sshd ${late} web1`,
    ])
    const mark = world.sim.log.length
    await unban(world, '192.0.2.7 sshd')
    assert.equal(calls(world, mark), 0, 'what another jail holds is not touched')
    assert.deepEqual(world.sim.blocked(), ['192.0.2.7'])
    await unban(world, '192.0.2.7 nginx')
    assert.deepEqual(world.sim.blocked(), [])
  },
)

firewall('each server has an alias of its own', async (world) => {
  const other = { config: world.configure({}, 'web2') }
  await ban(world, '192.0.2.7 sshd 0')
  await ban(world, '192.0.2.7 sshd 0', other)
  await unban(world, '192.0.2.7 sshd')
  assert.deepEqual([world.sim.blocked(), world.sim.blocked('f2b_web2')], [[], ['192.0.2.7']])
})

firewall(
  'a sync makes the table equal, leaves what a person put there, and is one call then',
  async (world) => {
    world.sim.tables.get('f2b_web1')?.add(HAND)
    const lines = `192.0.2.7 sshd ${later(600)}\n192.0.2.7 nginx 0\n2001:db8::/64 sshd 0\n`
    assert.equal(await sync(world, lines), 'added 3, extended 0, removed 0, unchanged 0')
    let mark = world.sim.log.length
    assert.equal(await sync(world, lines), 'added 0, extended 0, removed 0, unchanged 3')
    assert.equal(calls(world, mark), 1)
    assert.equal(
      await sync(world, '192.0.2.8 sshd 0\n', { jail: 'sshd' }),
      'added 1, extended 0, removed 2, unchanged 0',
    )
    assert.deepEqual(world.sim.blocked(), ['192.0.2.7', '192.0.2.8', HAND])
    mark = world.sim.log.length
    const { stdout } = await world.run('sync --dry-run', { input: '192.0.2.9 sshd 0\n' })
    assert.equal(
      stdout,
      'remove 192.0.2.7\nremove 192.0.2.8\nadd 192.0.2.9\nadded 1, extended 0, removed 2, unchanged 0\n',
    )
    assert.deepEqual(world.sim.writes(mark), [])
    assert.equal(await sync(world, ''), 'added 0, extended 0, removed 2, unchanged 0')
    assert.deepEqual(world.sim.blocked(), [HAND])
  },
)

firewall('what is over goes with the next sync', async (world) => {
  await ban(world, `192.0.2.7 sshd ${later(1)}`)
  await new Promise((resolve) => setTimeout(resolve, 2100))
  await sync(world, '192.0.2.8 sshd 0\n')
  assert.deepEqual(world.sim.blocked(), ['192.0.2.8'])
})

firewall('a reboot is noticed by one call, and the next sync fills the table', async (world) => {
  await world.within((target, call) => target.start(call))
  await sync(world, PRESENT)
  const mark = world.sim.log.length
  await world.within((target, call) => target.check(call))
  assert.equal(calls(world, mark), 1)
  world.sim.reboot()
  await assert.rejects(
    world.within(async (target, call) => target.open?.(call)),
    LostGeneration,
  )
  assert.deepEqual(await list(world), [], 'what is not there is not listed')
  assert.equal(await sync(world, PRESENT), 'added 3, extended 0, removed 0, unchanged 0')
  await world.within((target, call) => target.check(call))
})

firewall('more than 9,999 entries are read whole', async (world) => {
  const table = world.sim.tables.get('f2b_web1')
  const leases = manyLeases(12_000)
  writeFileSync(
    `${world.dir}/web1/opnsense-fw1.leases`,
    leases.replace(/$/gm, ' web1').replace(/^ web1$/m, ''),
  )
  for (const { address } of leasesFrom(leases)) table?.add(address.text)
  assert.equal((await list(world)).length, 12_000)
  const mark = world.sim.log.length
  assert.equal(await sync(world, leases), 'added 0, extended 0, removed 0, unchanged 12000')
  assert.equal(world.sim.writes(mark).length, 1, 'the sentinel')
})

firewall('a full table is said, with what it takes', async (world) => {
  world.sim.faults.most = 100
  assert.equal(
    await sync(world, manyLeases(120)),
    'added 99, extended 0, removed 0, unchanged 0, refused 21',
  )
  await assert.rejects(
    ban(world, '192.0.2.7 sshd 0'),
    /its table does not have it: raise Firewall Maximum Table Entries/,
  )
})

firewall(
  'changes of a batch are made in order, and those without time are left for the next',
  async (world) => {
    const lease = (line: string) =>
      leasesFrom(`${line} 0`)[0] as ReturnType<typeof leasesFrom>[number]
    const changes: Change[] = [
      { verb: 'ban', lease: lease('192.0.2.7 sshd') },
      { verb: 'unban', address: parseAddress('192.0.2.7'), jail: 'sshd' },
      { verb: 'unban', address: parseAddress('192.0.2.8'), jail: 'sshd' },
      { verb: 'ban', lease: lease('192.0.2.8 sshd') },
      { verb: 'ban', lease: lease('192.0.2.9 sshd') },
    ]
    assert.deepEqual(
      await world.within((target, call) => target.change(call, changes)),
      changes.map(() => undefined),
    )
    assert.deepEqual(world.sim.blocked(), ['192.0.2.8', '192.0.2.9'])
    const real = Date.now
    try {
      Date.now = () => real() + world.sim.log.length * 5000
      const bans = leasesFrom(manyLeases(20)).map((one): Change => ({ verb: 'ban', lease: one }))
      const made = await world.within((target, call) => target.change(call, bans))
      assert.ok(made.length > 0 && made.length < 20, `${made.length} made`)
      assert.equal(world.sim.blocked().length, 2 + made.length)
    } finally {
      Date.now = real
    }
  },
)

const WRITING = ['ban', 'unban', 'sync', 'flush']
const faults = (
  name: string,
  given: Partial<OpnsenseFaults>,
  codes: number[],
  verbs?: string[],
): Case<OpnsenseSimulator> => ({
  name,
  codes,
  break: (sim) => void Object.assign(sim.faults, given),
  ...(verbs && { verbs }),
  ...((given.before === 'hang' || given.after === 'hang') && { hangs: true }),
})

const CASES: Case<OpnsenseSimulator>[] = [
  {
    name: 'the key is revoked',
    break: (sim) => {
      sim.key = 'another'
    },
    codes: [77],
  },
  {
    name: 'refusals repeat the credentials',
    break: (sim) => {
      sim.key = 'x'
      sim.faults.echo = true
    },
    codes: [77],
  },
  {
    name: 'the alias is gone',
    break: (sim) => void sim.tables.delete('f2b_web1'),
    codes: [75, 76],
    verbs: ['ban', 'sync', 'start', 'check'],
  },
  faults('the privilege is missing', { forbidden: true }, [77]),
  faults(
    'done is said and nothing is done',
    { pretend: true },
    [76, 77],
    ['ban', 'unban', 'flush', 'sync'],
  ),
  faults('the table is full', { most: 4 }, [0, 77], ['ban', 'unban', 'flush', 'check', 'list']),
  faults('a list lacks rows', { cutList: true }, [0, 76], [...WRITING, 'list', 'check']),
  faults('searches are ignored', { ignoreSearch: true }, [0]),
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
          world.sim.secret = SECRET.replace(/[^ -~]/g, 'x')
          const config = world.configure()
          await world.within((target, call) => target.start(call), { config })
          world.sim.tables.get('f2b_web1')?.add(HAND)
          world.sim.tables.get('f2b_web2')?.add('203.0.113.1')
          await sync(world, PRESENT, { config })
        },
        foreign: ({ tables }) => JSON.stringify([...(tables.get('f2b_web2') ?? [])]),
      }),
    )
  }
})
