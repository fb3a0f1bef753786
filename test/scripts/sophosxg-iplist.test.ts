import assert from 'node:assert/strict'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { dump } from '../simulators/sophosxg/state.ts'
import { ban, flush, inWorld, list, sync, unban, type World } from '../simulators/sophosxg/world.ts'

const OK = { code: 0, stdout: '', stderr: '' }
const IPLIST = { settings: { mode: 'iplist' } }

function leases(count: number, jail = 'sshd', first = 256): string {
  const address = (i: number) => `203.${i >> 16}.${(i >> 8) & 255}.${i & 255}`
  return Array.from({ length: count }, (_, i) => `${address(i + first)} ${jail} 0\n`).join('')
}

function lists({ sim }: World): Record<string, string[]> {
  const all = [...sim.box.hosts.values()].filter((host) => host.HostType === 'IPList')
  return Object.fromEntries(
    all.map((host) => [host.Name, host.ListOfIPAddresses?.split(',') ?? []]),
  )
}

test('sophosxg iplist restores a thousand addresses with two writes, and 3,500 with shards', async () => {
  await inWorld(IPLIST, async (world) => {
    const thousand = await world.run('sync', { input: leases(1000) })
    assert.equal(thousand.stdout, 'added 1000, extended 0, removed 0, unchanged 0\n')
    assert.equal(world.sim.writes().length, 2)
    const mark = world.sim.log.length
    await sync(world, leases(1000))
    assert.deepEqual(world.sim.writes(mark), [], 'a second sync writes nothing')
    await sync(world, leases(3500))
    assert.deepEqual(
      Object.values(lists(world)).map((list) => list.length),
      [1000, 1000, 1000, 500],
    )
    assert.equal(world.sim.writes(mark).length, 1)
    assert.equal((await world.run('list')).stdout.split('\n').length - 1, 3500)
  })
})

test('sophosxg iplist ban and unban are one write, also for the 1001st address', async () => {
  await inWorld(IPLIST, async (world) => {
    await sync(world, leases(1000))
    let mark = world.sim.log.length
    assert.deepEqual(await world.run('ban --ip 198.51.100.7 --name sshd'), OK)
    assert.deepEqual([world.sim.log.length - mark, world.sim.writes(mark).length], [2, 1])
    assert.deepEqual(lists(world)['f2b_list4_2@web1'], ['198.51.100.7'])
    mark = world.sim.log.length
    assert.deepEqual(await world.run('ban --ip 198.51.100.7 --name sshd'), OK)
    assert.deepEqual(world.sim.writes(mark), [])
    assert.deepEqual(await world.run('unban --ip 203.0.1.5 --name sshd'), OK)
    assert.equal(lists(world)['f2b_list4_1@web1']?.length, 999)
    assert.deepEqual(await world.run('ban --ip 198.51.100.8 --name sshd'), OK)
    assert.equal(lists(world)['f2b_list4_1@web1']?.includes('198.51.100.8'), true)
  })
})

test('sophosxg iplist never leaves a list empty', async () => {
  await inWorld(IPLIST, async (world) => {
    await ban(world, '198.51.100.7 sshd 0')
    await ban(world, '2001:db8::7 sshd 0')
    await unban(world, '198.51.100.7 sshd 0')
    assert.deepEqual(await world.run('flush'), OK)
    assert.deepEqual(lists(world), {
      'f2b_list4_1@web1': ['192.0.2.0'],
      'f2b_list6_1@web1': ['2001:db8::'],
    })
    assert.equal(await list(world), '')
    const mark = world.sim.log.length
    await flush(world)
    assert.deepEqual(world.sim.writes(mark), [])
  })
})

test('sophosxg iplist keeps an address until the last jail lets it go', async () => {
  await inWorld(IPLIST, async (world) => {
    for (const jail of ['sshd', 'nginx']) await ban(world, `198.51.100.7 ${jail} 0`)
    assert.equal(
      (await world.run('list')).stdout,
      '198.51.100.7 nginx 0 web1\n198.51.100.7 sshd 0 web1\n',
    )
    await unban(world, '198.51.100.7 sshd 0')
    assert.deepEqual(lists(world)['f2b_list4_1@web1'], ['198.51.100.7'])
    await world.run('flush --name nginx')
    assert.deepEqual(lists(world)['f2b_list4_1@web1'], ['192.0.2.0'])
  })
})

test('sophosxg iplist keeps ranges as objects, and two servers apart', async () => {
  await inWorld(IPLIST, async (world) => {
    const web2 = world.configure({}, 'web2')
    await ban(world, '203.0.113.0/28 sshd 0')
    await ban(world, '198.51.100.7 sshd 0')
    await ban(world, '198.51.100.7 sshd 0', web2)
    assert.equal(
      (await world.run('list')).stdout,
      '198.51.100.7 sshd 0 web1\n203.0.113.0/28 sshd 0 web1\n',
    )
    assert.deepEqual(await world.run('flush'), OK)
    assert.deepEqual(lists(world)['f2b_list4_1@web2'], ['198.51.100.7'])
    assert.equal(world.sim.box.hosts.has('f2b_sshd_203.0.113.0/28@web1'), false)
  })
})

test('sophosxg iplist loses no ban when its ledger is lost, and heals with the next sync', async () => {
  await inWorld(IPLIST, async (world) => {
    await sync(world, leases(3))
    rmSync(join(world.dir, 'web1'), { recursive: true })
    await ban(world, '198.51.100.7 sshd 0')
    assert.equal(lists(world)['f2b_list4_1@web1']?.length, 4)
    assert.match(await list(world), /^203.0.1.0 - 0 web1$/m)
    await sync(world, `${leases(2)}198.51.100.7 sshd 0\n`)
    assert.equal(lists(world)['f2b_list4_1@web1']?.length, 3)
    const ledger = readFileSync(join(world.dir, 'web1/sophosxg-fw1.leases'), 'utf8')
    assert.equal(ledger.split('\n').length - 1, 3)
  })
})

test('sophosxg sync moves everything when the mode changes, in both directions', async () => {
  await inWorld({}, async (world) => {
    const iplist = world.configure({ mode: 'iplist' })
    const input = leases(20)
    await sync(world, input)
    const asHosts = dump(world.sim.box)
    await sync(world, input, iplist)
    assert.equal(lists(world)['f2b_list4_1@web1']?.length, 20)
    assert.deepEqual(
      [...(world.sim.box.groups.get('f2b_blockings')?.members ?? [])],
      ['f2b_list4_1@web1'],
    )
    await sync(world, input)
    assert.equal(dump(world.sim.box), asHosts)
  })
})

test('sophosxg iplist serves ten bans at once and loses none', async () => {
  await inWorld(IPLIST, async (world) => {
    const bans = Array.from({ length: 10 }, (_, i) =>
      world.run(`ban --ip 198.51.100.${i + 1} --name sshd`),
    )
    for (const ended of await Promise.all(bans)) assert.deepEqual(ended, OK)
    assert.equal(lists(world)['f2b_list4_1@web1']?.length, 10)
  })
})
