import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { codeOf, type Failure, messageOf } from '../../scripts/lib/failure.ts'
import type { Lease } from '../../scripts/lib/lease.ts'
import type { Ended } from '../../scripts/lib/run.ts'
import { changeOne, type Target } from '../../scripts/lib/target.ts'
import { onEach } from '../../scripts/lib/verbs.ts'
import type { Faults, Mishap } from '../simulators/sophosxg/faults.ts'
import { addGroup, addHost, dump } from '../simulators/sophosxg/state.ts'
import { inWorld, leasesFrom, type World } from '../simulators/sophosxg/world.ts'

/** A password that would be seen anywhere it leaks to, in any encoding. */
const SECRET = 'Sécret&<"+%#Zz9'

/** Seconds that a verb may take in these tests, and those that the wait for a hang may add. */
const DEADLINE = 3

const NAME = 'f2b_sshd_198.51.100.7@web1'
const PRESENT = ['203.0.113.1', '203.0.113.2', '203.0.113.3']

/** What each verb is asked to do on a box that has three bans of ours. */
const VERBS = {
  ban: { args: 'ban --ip 198.51.100.7 --name sshd' },
  unban: { args: 'unban --ip 203.0.113.1 --name sshd' },
  sync: { args: 'sync', input: '198.51.100.7 sshd 0\n203.0.113.2 sshd 0\n' },
  flush: { args: 'flush' },
  start: { args: 'start' },
  check: { args: 'check' },
  list: { args: 'list' },
} as const
type Verb = keyof typeof VERBS

/** What must be blocked after a verb that reported success. */
const BLOCKED: Partial<Record<Verb, string[]>> = {
  ban: ['198.51.100.7', ...PRESENT],
  unban: PRESENT.slice(1),
  sync: ['198.51.100.7', '203.0.113.2'],
  flush: [],
}

interface Case {
  name: string
  verbs: Verb[]
  faults: Partial<Faults>
  /** The exit codes that are right; 0 is then checked against the box. */
  codes: number[]
}

const ALL = Object.keys(VERBS) as Verb[]
const WRITING: Verb[] = ['ban', 'unban', 'sync', 'flush']
const REFUSED = [77]
const once = { times: 1 }

const lost = (how: Mishap): Case => ({
  name: `the answer to a write is lost once after it was carried out (${how})`,
  verbs: how === 'hang' ? ['ban', 'unban'] : WRITING,
  faults: { refuseAfter: how, times: 1 },
  codes: how === 'hang' ? [0, 75] : [0],
})

const CASES: Case[] = [
  { name: 'the API is off', verbs: ALL, faults: { apiOff: true }, codes: REFUSED },
  {
    name: 'this server is not on the list',
    verbs: ALL,
    faults: { ipRefused: true },
    codes: REFUSED,
  },
  { name: 'the login is refused', verbs: ALL, faults: { loginRefused: true }, codes: REFUSED },
  { name: 'the account has no rights', verbs: ALL, faults: { noRights: '535' }, codes: REFUSED },
  {
    name: 'the account has no rights (500)',
    verbs: ALL,
    faults: { noRights: '500' },
    codes: [75, 76],
  },
  { name: 'connections are reset', verbs: ALL, faults: { resetConnections: true }, codes: [69] },
  { name: 'requests are reset', verbs: ALL, faults: { refuseBefore: 'reset' }, codes: [75] },
  { name: 'answers are cut', verbs: ALL, faults: { refuseBefore: 'cut' }, codes: [75] },
  {
    name: 'the box hangs',
    verbs: ['ban', 'check', 'unban'],
    faults: { refuseBefore: 'hang' },
    codes: [75],
  },
  {
    name: 'HTTP 503 with a page that says success',
    verbs: ALL,
    faults: { refuseBefore: '503' },
    codes: [75],
  },
  { name: 'HTTP 401', verbs: ALL, faults: { refuseBefore: '401' }, codes: REFUSED },
  { name: 'HTTP 403', verbs: ['check'], faults: { refuseBefore: '403' }, codes: REFUSED },
  { name: 'HTTP 429', verbs: ALL, faults: { refuseBefore: '429' }, codes: [75] },
  { name: 'HTTP 500, once', verbs: ALL, faults: { ...once, refuseBefore: '500' }, codes: [0] },
  { name: 'a reset, once', verbs: ALL, faults: { ...once, refuseBefore: 'reset' }, codes: [0] },
  {
    name: 'a reset of the second request',
    verbs: WRITING,
    faults: { ...once, skip: 1, refuseBefore: 'reset' },
    codes: [0],
  },
  {
    name: 'a web page instead of an answer',
    verbs: ALL,
    faults: { mangle: () => '<html><body>Authentication Successful</body></html>' },
    codes: [76],
  },
  { name: 'an empty answer', verbs: ALL, faults: { mangle: () => '' }, codes: [76] },
  {
    name: 'XML that is cut',
    verbs: ALL,
    faults: { mangle: (xml) => xml.slice(0, -20) },
    codes: [76],
  },
  {
    name: 'XML of somebody else',
    verbs: ALL,
    faults: { mangle: () => '<ok code="200"/>' },
    codes: [76],
  },
  {
    name: 'no login status',
    verbs: ALL,
    faults: { mangle: (xml) => xml.replace(/<Login>.*<\/Login>/, '') },
    codes: [76],
  },
  {
    name: 'bytes before the declaration',
    verbs: ALL,
    faults: { mangle: (xml) => `\0\n ${xml}\0` },
    codes: [0],
  },
  {
    name: 'an attribute twice',
    verbs: ALL,
    faults: {
      mangle: (xml) => xml.replaceAll(' transactionid=""', ' transactionid="" transactionid=""'),
    },
    codes: [0],
  },
  {
    name: 'the password echoed in an error',
    verbs: ALL,
    faults: { mangle: () => `<Response><Status code="599">${escaped(SECRET)}</Status></Response>` },
    codes: [76],
  },
  {
    name: 'a write without any status',
    verbs: WRITING,
    faults: { writeStatus: 'none' },
    codes: [0, 76],
  },
  {
    name: 'a status without code and text',
    verbs: WRITING,
    faults: { writeStatus: 'zero' },
    codes: [0],
  },
  { name: '217 for what was done', verbs: WRITING, faults: { writeStatus: '217' }, codes: [0] },
  { name: '216 for what was done', verbs: WRITING, faults: { writeStatus: '216' }, codes: [0] },
  {
    name: '201 for what was not done',
    verbs: WRITING,
    faults: { writeIgnored: '201' },
    codes: [76],
  },
  { name: '500 for every write', verbs: WRITING, faults: { writeIgnored: '500' }, codes: [75] },
  { name: '500, once', verbs: WRITING, faults: { times: 2, writeIgnored: '500' }, codes: [0] },
  { name: '501 for every write', verbs: WRITING, faults: { writeIgnored: '501' }, codes: [76] },
  { name: '528 for every write', verbs: WRITING, faults: { writeIgnored: '528' }, codes: [76] },
  { name: '529 for every write', verbs: WRITING, faults: { writeIgnored: '529' }, codes: [76] },
  {
    name: 'a code that nobody knows',
    verbs: WRITING,
    faults: { writeIgnored: '599' },
    codes: [76],
  },
  {
    name: 'a text without code that nothing was done',
    verbs: WRITING,
    faults: { writeIgnored: 'text' },
    codes: [76],
  },
  {
    name: '501 for one object of many',
    verbs: ['sync', 'flush'],
    faults: { writeIgnored: '501', only: '203.0.113.3' },
    codes: [76],
  },
  {
    name: 'a second object with the same address is refused',
    verbs: WRITING,
    faults: { sameAddress: '503' },
    codes: [0],
  },
  {
    name: 'updates of what is not there say 500',
    verbs: ['unban'],
    faults: { updateMissing: '500' },
    codes: [0],
  },
  {
    name: 'updates of what is not there say 200',
    verbs: ['unban'],
    faults: { updateMissing: '200' },
    codes: [0],
  },
  {
    name: 'removals of what is not there say 200',
    verbs: WRITING,
    faults: { removeMissing: '200' },
    codes: [0],
  },
  {
    name: 'removals of what is not there say a text',
    verbs: WRITING,
    faults: { removeMissing: 'text' },
    codes: [0],
  },
  {
    name: 'the other wording for nothing found',
    verbs: ALL,
    faults: { zeroRecords: 'number' },
    codes: [0],
  },
  { name: 'code 526 for nothing found', verbs: ALL, faults: { zeroRecords: '526' }, codes: [0] },
  lost('reset'),
  lost('cut'),
  lost('500'),
  lost('hang'),
]

/** What matters to lists as well: answers that are lost, odd or untrue. */
const LIST_FAULTS: (keyof Faults)[] = ['refuseAfter', 'refuseBefore', 'writeStatus', 'writeIgnored']

describe('sophosxg in mode iplist with a fault', { concurrency: 4 }, () => {
  for (const one of CASES) {
    const { name, faults, verbs } = one
    if (!LIST_FAULTS.some((key) => key in faults) || faults.only || faults.refuseAfter === 'hang')
      continue
    test(name, async () => {
      for (const verb of verbs) {
        if (['ban', 'unban', 'sync'].includes(verb)) await checkCase(one, verb, false, 'iplist')
      }
    })
  }
})

describe('sophosxg with a fault', { concurrency: 4 }, () => {
  for (const one of CASES) {
    test(one.name, async () => {
      // One verb of each as Fail2Ban runs it: what a process adds is the same for all.
      for (const [i, verb] of one.verbs.entries()) await checkCase(one, verb, i === 0)
    })
  }
})

test('sophosxg has each ban in the group that several find missing at once, or that comes back', async () => {
  for (const unknownGroup of ['501', '500'] as const) {
    const addresses = Array.from({ length: 6 }, (_, i) => `198.51.100.${i + 1}`)
    await inWorld({}, async (world) => {
      world.sim.faults.unknownGroup = unknownGroup
      // Each with a connection of its own, as processes have.
      await Promise.all(addresses.map((address) => banWithin(world, address)))
      assert.deepEqual(blocked(world), addresses)
    })
    await inWorld({}, async (world) => {
      world.sim.faults.unknownGroup = unknownGroup
      world.sim.faults.mangle = (xml) => {
        if (xml.includes(`code="${unknownGroup}"`)) addGroup(world.sim.box, 'f2b_blockings', 'IPv4')
        return xml
      }
      await banWithin(world, '198.51.100.7')
      assert.deepEqual(blocked(world), ['198.51.100.7'])
    })
  }
})

test('sophosxg waits as long as a busy box asks, and not longer than a request may take', async () => {
  for (const status of ['429', '503'] as const) {
    await inWorld({}, async (world) => {
      await prepare(world)
      Object.assign(world.sim.faults, { refuseBefore: status, times: 1, retryAfter: '1' })
      const from = world.sim.arrived.length
      await banWithin(world, '198.51.100.7')
      assert.deepEqual(blocked(world), ['198.51.100.7', ...PRESENT].sort())
      const [refused = 0, next = 0] = world.sim.arrived.slice(from)
      assert.ok(next - refused >= 990, `${status}: asked again after ${next - refused} ms`)

      for (const verb of ['check', 'ban', 'sync'] as const) {
        Object.assign(world.sim.faults, { times: 1, retryAfter: '3600' })
        const before = world.sim.arrived.length
        const { code, stderr } = await runWithin(world, verb)
        assert.equal(code, 75, `${verb}: ${stderr}`)
        assert.match(stderr, new RegExp(`on "fw1": .*HTTP ${status}, .* in 3600 s\n$`))
        assert.equal(world.sim.arrived.length - before, 1, `${verb} asked once`)
      }
    })
  }
})

test('sophosxg sync that is refused in the middle says what is done, and ends with 77', async () => {
  const lines = Array.from({ length: 240 }, (_, i) => `203.0.113.${i + 1} sshd 0`)
  const v6 = Array.from({ length: 10 }, (_, i) => `2001:db8::${i + 1} sshd 0`)
  const input = [...lines, ...v6].join('\n')
  // The questions for objects and groups pass; then a write of 100 objects, or not even of two lists.
  const modes = [
    { mode: 'hosts', skip: 3, done: 100, of: 250 },
    { mode: 'iplist', skip: 2, done: 0, of: 2 },
  ]
  for (const refused of [{ refuseBefore: '401' }, { loginRefused: true }] as const) {
    for (const { mode, skip, done, of } of modes) {
      await inWorld({ settings: { mode } }, async (world) => {
        await world.within((target, call) => target.start(call))
        Object.assign(world.sim.faults, { skip, ...refused })
        const sync = world.within((target, call) => target.sync(call, leasesFrom(input)))
        await assert.rejects(sync, (error: Failure) => {
          assert.equal(error.code, 77, error.message)
          assert.match(error.message, /^login refused/)
          assert.ok(error.message.endsWith(`; ${done} of ${of} changes were made before`))
          return true
        })
        assert.equal(blocked(world).length, done)
      })
    }
  }
})

test('sophosxg says what to click for each refusal', async () => {
  const sentences: [Partial<Faults>, RegExp][] = [
    [{ apiOff: true }, /tick "API configuration" under Backup & firmware > API/],
    [{ ipRefused: true }, /add the address of this server to "Allowed IP address"/],
    [
      { loginRefused: true },
      /under Authentication > Users the account must be .* without one-time/,
    ],
    [{ noRights: '535' }, /set "Objects" and "Network" to Read-write in its profile/],
  ]
  await inWorld({}, async (world) => {
    for (const [faults, sentence] of sentences) {
      Object.assign(world.sim.faults, faults)
      const { stderr } = await world.run('check')
      assert.match(stderr, sentence)
      assert.match(stderr, /^sophosxg: Cannot check on "fw1": [^\n]+\n$/)
      Object.assign(world.sim.faults, { apiOff: false, ipRefused: false, loginRefused: false })
    }
  })
})

test('sophosxg sends nothing to a box whose certificate is not trusted', async () => {
  await inWorld({}, async (world) => {
    const wrong = world.sim.ca.replace('box.pem', 'other.pem')
    const trials: [Record<string, unknown>, number, RegExp][] = [
      [{ ca: undefined }, 77, /not trusted \(DEPTH_ZERO_SELF_SIGNED_CERT\), nothing was sent/],
      [{ ca: wrong }, 77, /not trusted/],
      [{ ca: undefined, pin: '00'.repeat(32) }, 77, /not the pinned one, nothing was sent/],
      [{ ca: '/nonexistent' }, 78, /Cannot read "\/nonexistent"/],
    ]
    for (const [settings, code, sentence] of trials) {
      const ended = await world.run('start', { config: world.configure(settings) })
      assert.deepEqual([ended.code, world.sim.log.length], [code, 0])
      assert.match(ended.stderr, sentence)
    }
    for (const settings of [
      { ca: undefined, pin: PIN },
      { ca: undefined, verifySslCertificate: false },
    ]) {
      const { code } = await world.run('start', { config: world.configure(settings) })
      assert.equal(code, 0, JSON.stringify(settings))
    }
  })
  await inWorld({ simulator: { certificate: 'other' } }, async (world) => {
    const { code, stderr } = await world.run('start')
    assert.equal(code, 77)
    assert.match(stderr, /for another name \(ERR_TLS_CERT_ALTNAME_INVALID\)/)
  })
})

/** The fingerprint of fixtures/sophosxg/box.pem, as openssl prints it. */
const PIN =
  'C7:D7:38:D3:77:12:DD:9D:F7:12:BA:9C:97:D4:73:CA:59:12:4E:49:D7:2B:2C:9D:94:B9:61:D2:3B:FD:AE:F0'

async function checkCase(one: Case, verb: Verb, asProcess: boolean, mode = 'hosts') {
  const about = `${verb}: ${one.name}`
  const account = { pass: SECRET }
  const settings = { ...account, mode, deadline: `${DEADLINE}s`, connect_timeout: '1s' }
  await inWorld({ simulator: account, settings }, async (world) => {
    await prepare(world)
    const foreign = foreignPart(world)
    Object.assign(world.sim.faults, one.faults)
    const mark = world.sim.log.length
    const began = performance.now()
    const { args, ...input } = VERBS[verb]
    const ended = asProcess
      ? await world.run(`${args} --verbose`, input)
      : await runWithin(world, verb)
    const seconds = (performance.now() - began) / 1000
    assert.ok(one.codes.includes(ended.code), `${about}: exit ${ended.code} ${ended.stderr}`)
    assert.ok(seconds < 60, `${about}: ${seconds} s`)
    assert.equal(foreignPart(world), foreign, `${about}: a foreign object changed`)
    if (ended.code === 0) checkState(world, verb, about)
    else checkMessage(ended, verb, about)
    checkSecret(world, ended, mark, about)
    await checkRepair(world, about)
  })
}

/** What a verb does, says and ends with, without a process of its own. */
async function runWithin(world: World, verb: Verb): Promise<Ended> {
  const said: string[] = []
  const [lease, kept] = leasesFrom('198.51.100.7 sshd 0\n203.0.113.2 sshd 0') as [Lease, Lease]
  const [held] = leasesFrom('203.0.113.1 sshd 0') as [Lease]
  const code = await world.within(async (target, given) => {
    const call = { ...given, verbose: true, say: (line: string) => void said.push(line) }
    const verbs: Record<Verb, (target: Target) => Promise<unknown>> = {
      ban: (t) => changeOne(t, call, { verb: 'ban', lease }),
      unban: (t) => changeOne(t, call, { verb: 'unban', address: held.address, jail: 'sshd' }),
      sync: (t) => t.sync(call, [lease, kept]),
      flush: (t) => t.sync(call, []),
      start: (t) => t.start(call),
      check: (t) => t.check(call),
      list: (t) => t.list(call),
    }
    try {
      await onEach([target], verb, verbs[verb])
      return 0
    } catch (error) {
      said.push(`sophosxg: ${messageOf(error)}`)
      return codeOf(error)
    }
  })
  return { code, stdout: '', stderr: `${said.join('\n')}\n` }
}

async function banWithin(world: World, address: string): Promise<void> {
  const [lease] = leasesFrom(`${address} sshd 0`) as [Lease]
  await world.within((target, call) => changeOne(target, call, { verb: 'ban', lease }))
}

async function prepare(world: World): Promise<void> {
  await world.within(async (target, call) => {
    await target.start(call)
    await target.sync(call, leasesFrom(PRESENT.map((ip) => `${ip} sshd 0`).join('\n')))
  })
  const host = { Description: '', IPFamily: 'IPv4', HostType: 'IP', IPAddress: '198.51.100.200' }
  addHost(world.sim.box, { ...host, Name: 'f2b_handmade' }, ['f2b_blockings'])
}

/** Everything on the box but our objects and our memberships. */
function foreignPart({ sim }: World): string {
  const objects = dump(sim.box)
    .split('\n')
    .map((line) => JSON.parse(line) as { Name: string; members?: string[] })
  const others = objects.filter((object) => !object.Name.endsWith('@web1'))
  return others
    .map(({ members, ...rest }) => {
      return JSON.stringify([rest, members?.filter((name) => !name.endsWith('@web1'))])
    })
    .join('\n')
}

function blocked({ sim }: World): string[] {
  const members = [...(sim.box.groups.get('f2b_blockings')?.members ?? [])]
  return members
    .filter((name) => name.endsWith('@web1'))
    .flatMap((name) => {
      const host = sim.box.hosts.get(name)
      return host?.ListOfIPAddresses?.split(',') ?? host?.IPAddress ?? ''
    })
    .sort()
}

function checkState(world: World, verb: Verb, about: string): void {
  const wanted = BLOCKED[verb]
  if (wanted)
    assert.deepEqual(blocked(world), [...wanted].sort(), `${about}: success, but not on the box`)
}

/** One line for the operator; `--verbose` shows the requests before it. */
function checkMessage(ended: Ended, verb: Verb, about: string): void {
  const lines = ended.stderr
    .trimEnd()
    .split('\n')
    .filter((line) => line.startsWith('sophosxg: '))
  assert.equal(lines.length, 1, about)
  assert.match(lines[0] ?? '', new RegExp(`^sophosxg: Cannot ${verb} .*on "fw1": .{8,}`), about)
  assert.doesNotMatch(ended.stderr, /\n {4}at /, `${about}: a stack`)
}

function checkSecret(world: World, ended: Ended, mark: number, about: string): void {
  const requests = world.sim.log.slice(mark).map((one) => one.line)
  const seen = [ended.stdout, ended.stderr, ...requests].join('\n')
  for (const form of [SECRET, escaped(SECRET), encodeURIComponent(SECRET), 'Zz9']) {
    assert.equal(seen.includes(form), false, `${about}: the password leaked`)
  }
}

/** Once the fault is over, one sync makes everything right: nothing of ours is leaked for good. */
async function checkRepair(world: World, about: string): Promise<void> {
  Object.assign(world.sim.faults, { times: 0, resetConnections: false })
  await world.within((target, call) => target.sync(call, leasesFrom('203.0.113.2 sshd 0')))
  assert.deepEqual(blocked(world), ['203.0.113.2'], `${about}: after the repair`)
  const left = [...world.sim.box.hosts.keys()].filter((name) => name.endsWith('@web1'))
  assert.equal(left.length, 1, `${about}: leaked ${left.join(' ')}`)
  assert.equal(left.includes(NAME), false)
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}
