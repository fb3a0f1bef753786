import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { originalOn } from '../simulators/sophosxg/original.ts'
import { addGroup, addHost, dump, groupsWith } from '../simulators/sophosxg/state.ts'
import { ban, flush, inWorld, list, start, sync, type World } from '../simulators/sophosxg/world.ts'

const OK = { code: 0, stdout: '', stderr: '' }

/** Leases as `sync` reads them, one for each address. */
function leases(count: number, jail = 'sshd', expires = 0): string {
  const address = (i: number) => `203.${i >> 16}.${(i >> 8) & 255}.${i & 255}`
  return Array.from({ length: count }, (_, i) => `${address(i + 256)} ${jail} ${expires}\n`).join(
    '',
  )
}

/** Requests, writes and bytes since a mark. */
function cost({ sim }: World, from: number) {
  const log = sim.log.slice(from)
  const bytes = log.reduce((sum, one) => sum + one.sent + one.received, 0)
  return { requests: log.length, writes: sim.writes(from).length, bytes }
}

function members({ sim }: World, group = 'f2b_blockings'): string[] {
  return [...(sim.box.groups.get(group)?.members ?? [])]
}

test('sophosxg start makes both groups and check finds them', async () => {
  await inWorld({}, async (world) => {
    const missing = await world.run('check')
    assert.equal(missing.code, 75)
    assert.match(
      missing.stderr,
      /^sophosxg: Cannot check on "fw1": group "f2b_blockings" is missing/,
    )
    assert.deepEqual(await world.run('start'), OK)
    assert.deepEqual(await world.run('check'), OK)
    const mark = world.sim.log.length
    assert.deepEqual(await world.run('start'), OK)
    assert.deepEqual(world.sim.writes(mark), [], 'a second start writes nothing')
    assert.equal(world.sim.box.groups.get('f2b_blockings_v6')?.IPFamily, 'IPv6')
  })
})

test('sophosxg start refuses a group of the other family', async () => {
  await inWorld({}, async (world) => {
    addGroup(world.sim.box, 'f2b_blockings_v6', 'IPv4')
    const { code, stderr } = await world.run('start')
    assert.equal(code, 78)
    assert.match(stderr, /group "f2b_blockings_v6" is for IPv4/)
  })
})

test('sophosxg ban is one request, and unban two that leave nothing behind', async () => {
  await inWorld({}, async (world) => {
    await start(world)
    const before = dump(world.sim.box)
    let mark = world.sim.log.length
    assert.deepEqual(await world.run('ban --ip 192.0.2.7 --name sshd --bantime 600'), OK)
    assert.equal(cost(world, mark).requests, 1)
    assert.deepEqual(members(world), ['f2b_sshd_192.0.2.7@web1'])
    mark = world.sim.log.length
    assert.deepEqual(await world.run('unban --ip 192.0.2.7 --name sshd'), OK)
    assert.equal(cost(world, mark).requests, 2)
    assert.equal(dump(world.sim.box), before)
    mark = world.sim.log.length
    assert.deepEqual(await world.run('unban --ip 192.0.2.7 --name sshd'), OK)
    assert.equal(cost(world, mark).requests, 1, 'what is not banned costs one')
    assert.equal(dump(world.sim.box), before)
  })
})

test('sophosxg ban puts IPv6 and ranges where they belong', async () => {
  await inWorld({}, async (world) => {
    await start(world)
    assert.deepEqual(await world.run('ban --ip 2001:DB8::0007 --name sshd'), OK)
    assert.deepEqual(await world.run('ban --ip 203.0.113.77/28 --name sshd'), OK)
    await ban(world, '2001:db8:1::/64 sshd 0')
    const { hosts } = world.sim.box
    assert.equal(hosts.get('f2b_sshd_2001:db8::7@web1')?.HostType, 'IP')
    const range = hosts.get('f2b_sshd_203.0.113.64/28@web1')
    assert.deepEqual(
      [range?.HostType, range?.IPAddress, range?.Subnet],
      ['Network', '203.0.113.64', '255.255.255.240'],
    )
    assert.equal(hosts.get('f2b_sshd_2001:db8:1::/64@web1')?.Subnet, '64')
    assert.equal(members(world, 'f2b_blockings_v6').length, 2)
    assert.equal(members(world).length, 1)
    const { stdout } = await world.run('list')
    assert.equal(
      stdout,
      '203.0.113.64/28 sshd 0 web1\n2001:db8::7 sshd 0 web1\n2001:db8:1::/64 sshd 0 web1\n',
    )
    const mark = world.sim.log.length
    assert.equal(
      (await world.run('sync', { input: stdout })).stdout,
      'added 0, extended 0, removed 0, unchanged 3\n',
    )
    assert.deepEqual(world.sim.writes(mark), [])
  })
})

test('sophosxg ban makes a group that an admin deleted', async () => {
  for (const unknownGroup of ['501', '500'] as const) {
    await inWorld({}, async (world) => {
      world.sim.faults.unknownGroup = unknownGroup
      assert.deepEqual(await world.run('ban --ip 192.0.2.7 --name sshd'), OK)
      assert.deepEqual(members(world), ['f2b_sshd_192.0.2.7@web1'])
      assert.equal(world.sim.writes().length, 2, 'two writes at most')
    })
  }
})

test('sophosxg ban extends a lease and never cuts it', async () => {
  await inWorld({}, async (world) => {
    await start(world)
    const until = (expires: number) => ban(world, `192.0.2.7 sshd ${expires}`)
    await until(4000000600)
    const mark = world.sim.log.length
    await until(4000000300)
    await until(4000000600)
    assert.deepEqual(world.sim.writes(mark), [], 'a shorter or equal lease writes nothing')
    assert.equal(cost(world, mark).requests, 4)
    const given = '--ip 192.0.2.7 --name sshd --time 4000000000 --bantime'
    assert.deepEqual(await world.run(`ban ${given} 900`), OK)
    assert.equal(await list(world), '192.0.2.7 sshd 4000000900 web1\n')
    assert.deepEqual(await world.run(`ban ${given} -1`), OK)
    await until(4000000900)
    assert.equal(await list(world), '192.0.2.7 sshd 0 web1\n')
  })
})

test('sophosxg ban of what is already over enters nothing', async () => {
  await inWorld({}, async (world) => {
    assert.deepEqual(await world.run('ban --ip 192.0.2.7 --time 1000 --bantime 600'), OK)
    assert.equal(world.sim.log.length, 0)
  })
})

test('sophosxg refuses what must never be banned, the firewall itself included', async () => {
  await inWorld({}, async (world) => {
    const config = world.configure({ url: 'https://192.0.2.99:4444/webconsole/APIController' })
    for (const ip of [
      '127.0.0.1',
      '192.0.2.99',
      '192.0.2.0/23',
      '0.0.0.0/0',
      'fe80::1%eth0',
      'x',
    ]) {
      assert.equal((await world.run(`ban --ip ${ip}`, { config })).code, 65, ip)
    }
    assert.equal(world.sim.log.length, 0)
  })
})

test('sophosxg unban and flush of one jail or server free nobody else', async () => {
  await inWorld({}, async (world) => {
    const web2 = world.configure({}, 'web2')
    await start(world)
    for (const config of [undefined, web2]) {
      for (const jail of ['sshd', 'sshd-ddos']) {
        await ban(world, `192.0.2.7 ${jail} 0`, config)
      }
    }
    assert.equal(members(world).length, 4)
    await world.run('unban --ip 192.0.2.7 --name sshd')
    assert.equal(members(world).length, 3)
    assert.deepEqual(await world.run('flush --name sshd'), OK)
    assert.equal(members(world).length, 3, 'the jail had nothing left')
    assert.deepEqual(await world.run('flush'), OK)
    assert.deepEqual(members(world), ['f2b_sshd_192.0.2.7@web2', 'f2b_sshd-ddos_192.0.2.7@web2'])
    assert.equal(await list(world), '')
    await world.run('sync --allow-empty', { input: '', config: web2 })
    assert.deepEqual(members(world), [])
  })
})

test('sophosxg never touches foreign, hand-made and system objects', async () => {
  await inWorld({}, async (world) => {
    await start(world)
    const { box } = world.sim
    const host = { Description: '', IPFamily: 'IPv4', HostType: 'IP' }
    addHost(box, { ...host, Name: 'f2b_handmade', IPAddress: '198.51.100.9' }, ['f2b_blockings'])
    addHost(box, { ...host, Name: 'f2b_198.51.100.8', IPAddress: '198.51.100.8' })
    const other = 'fail2ban-perimeter: 192.0.2.9 sshd 0 web2'
    const theirs = { ...host, Description: other, IPAddress: '192.0.2.9' }
    addHost(box, { ...theirs, Name: 'f2b_sshd_192.0.2.9@web2' }, ['f2b_blockings'])
    // Another installation on this server whose prefix begins with ours.
    const nested = { ...host, Description: 'fail2ban-perimeter: 192.0.2.8 sshd 0 web1' }
    addHost(box, { ...nested, Name: 'f2b_x_sshd_192.0.2.8@web1', IPAddress: '192.0.2.8' }, [
      'f2b_blockings',
    ])
    const before = dump(box)
    assert.equal(await list(world), '')
    await sync(world, '192.0.2.10 sshd 0\n192.0.2.9 sshd 0\n')
    assert.deepEqual(await world.run('unban --ip 192.0.2.9 --name sshd'), OK)
    assert.deepEqual(await world.run('unban --ip 198.51.100.8'), OK)
    assert.deepEqual(await world.run('flush'), OK)
    assert.equal(dump(box), before)
  })
})

test('sophosxg takes over the hosts of the original tool as jail "-"', async () => {
  await inWorld({}, async (world) => {
    await start(world)
    const old = { Description: '', IPFamily: 'IPv4', HostType: 'IP' }
    for (const ip of ['198.51.100.1', '198.51.100.2', '198.51.100.3']) {
      addHost(world.sim.box, { ...old, Name: `f2b_${ip}`, IPAddress: ip }, ['f2b_blockings'])
    }
    assert.equal((await world.run('list --name -')).stdout.split('\n').length - 1, 3)
    assert.deepEqual(await world.run('unban --ip 198.51.100.1'), OK)
    assert.equal(world.sim.box.hosts.has('f2b_198.51.100.1'), false)
    await sync(world, '198.51.100.2 sshd 0\n')
    assert.deepEqual(members(world), ['f2b_sshd_198.51.100.2@web1'])
  })
})

test('sophosxg flush and sync keep what an admin still uses, without blocking it', async () => {
  await inWorld({}, async (world) => {
    await start(world)
    await sync(world, leases(3))
    const [inRule, inGroup, plain] = members(world) as [string, string, string]
    world.sim.box.rules.add(inRule)
    world.sim.box.groups.get('Servers')?.members.add(inGroup)
    assert.deepEqual(await world.run('flush'), OK)
    assert.deepEqual(members(world), [])
    assert.deepEqual(groupsWith(world.sim.box, inGroup), ['Servers'])
    assert.equal(world.sim.box.hosts.has(inRule), true)
    assert.equal(world.sim.box.hosts.has(plain), false)
    assert.equal(await list(world), '', 'what is not in the group is no lease')
    world.sim.box.rules.clear()
    await flush(world) // The sweep.
    assert.equal(world.sim.box.hosts.has(inRule), false)
    await sync(world, leases(3))
    assert.deepEqual(groupsWith(world.sim.box, inGroup), ['Servers', 'f2b_blockings'])
  })
})

test('sophosxg unban of a host that a rule uses is done, and the sweep comes later', async () => {
  for (const removeReferenced of ['504', '510', '500'] as const) {
    await inWorld({}, async (world) => {
      world.sim.faults.removeReferenced = removeReferenced
      await start(world)
      await ban(world, '192.0.2.7 sshd 0')
      world.sim.box.rules.add('f2b_sshd_192.0.2.7@web1')
      assert.deepEqual(await world.run('unban --ip 192.0.2.7 --name sshd'), OK)
      assert.deepEqual(members(world), [])
      world.sim.box.rules.clear()
      await sync(world, '')
      assert.equal(world.sim.box.hosts.has('f2b_sshd_192.0.2.7@web1'), false)
    })
  }
})

test('sophosxg sync converges from any state and then writes nothing', async () => {
  await inWorld({}, async (world) => {
    await sync(world, `${leases(40)}${leases(5, 'old', 4000000000)}`)
    const { hosts, groups } = world.sim.box
    const [first, second, third] = members(world) as [string, string, string]
    hosts.delete(first)
    groups.get('f2b_blockings')?.members.delete(first)
    groups.get('f2b_blockings')?.members.delete(second)
    const changed = hosts.get(third)
    if (changed) changed.IPAddress = '198.51.100.66'
    const wanted = `${leases(42)}${leases(3, 'old', 4000000999)}2001:db8::9 sshd 0\n`
    const { stdout } = await world.run('sync', { input: wanted })
    assert.equal(stdout, 'added 5, extended 4, removed 2, unchanged 37\n')
    const mark = world.sim.log.length
    assert.equal(await sync(world, wanted), 'added 0, extended 0, removed 0, unchanged 46')
    assert.deepEqual(world.sim.writes(mark), [])
    assert.equal(cost(world, mark).requests, 1)
    assert.equal(hosts.get(third)?.IPAddress, '203.0.1.2')
  })
})

test('sophosxg sync of one jail leaves the others alone', async () => {
  await inWorld({}, async (world) => {
    await sync(world, `${leases(2)}${leases(2, 'nginx')}`)
    await world.run('sync --name nginx --allow-empty', { input: '' })
    assert.equal(await list(world), leases(2).replaceAll('0\n', '0 web1\n'))
  })
})

test('sophosxg --dry-run shows every change and makes none', async () => {
  await inWorld({}, async (world) => {
    assert.match((await world.run('start --dry-run')).stdout, /make group f2b_blockings\n/)
    await sync(world, leases(2))
    const before = dump(world.sim.box)
    const mark = world.sim.log.length
    const { stdout } = await world.run('sync --dry-run', { input: '203.0.1.0 sshd 4000000000\n' })
    assert.match(stdout, /^change f2b_sshd_203.0.1.0@web1 until 4000000000$/m)
    assert.match(stdout, /^release f2b_sshd_203.0.1.1@web1$/m)
    assert.match((await world.run('flush --dry-run')).stdout, /^release /)
    assert.match(
      (await world.run('ban --dry-run --ip 192.0.2.77')).stdout,
      /^add f2b_-_192.0.2.77@web1/,
    )
    assert.match((await world.run('unban --dry-run --ip 192.0.2.77')).stdout, /^release /)
    assert.equal(dump(world.sim.box), before)
    assert.deepEqual(world.sim.writes(mark), [])
  })
})

test('sophosxg finds its objects when the box ignores filters', async () => {
  await inWorld({}, async (world) => {
    world.sim.faults.ignoreFilter = true
    await start(world)
    await ban(world, '192.0.2.7 sshd 0')
    assert.deepEqual(await world.run('ban --ip 192.0.2.7 --name sshd'), OK)
    assert.equal(await list(world), '192.0.2.7 sshd 0 web1\n')
    assert.deepEqual(await world.run('check'), OK)
  })
})

test('sophosxg costs what the issue says, whatever else is on the box', async () => {
  const ours = await costOfOurs()
  const theirs = await costOfOriginal()
  if (process.env.SHOW) {
    const rows = Object.entries(ours).map(([verb, cost]) => [verb, { ...cost, ...theirs[verb] }])
    console.table(Object.fromEntries(rows))
  }
  assert.ok((ours.start?.requests ?? 9) <= 2)
  assert.equal(ours.ban?.requests, 1)
  assert.equal(ours.unban?.requests, 2)
  assert.ok((ours.unban?.bytes ?? 9e9) < 3000, 'no dump of all hosts')
  assert.ok((ours['restore 50']?.requests ?? 9) <= 4)
  assert.ok((ours['flush 50']?.requests ?? 9) <= 4)
  assert.ok((ours['restore 1000']?.writes ?? 99) <= 12)
  assert.equal(ours['sync again']?.writes, 0)
  assert.equal(theirs['restore 50']?.originalRequests, 50, 'the original is what the facts say')
  assert.equal(theirs['flush 50']?.originalRequests, 52)
})

type Costs = Record<string, ReturnType<typeof cost>>

async function costOfOurs(): Promise<Costs> {
  const costs: Costs = {}
  await inWorld({}, async (world) => {
    fill(world)
    const measure = async (name: string, work: () => Promise<unknown>) => {
      const mark = world.sim.log.length
      await work()
      costs[name] = cost(world, mark)
    }
    await measure('start', () => start(world))
    await measure('ban', () => ban(world, '192.0.2.7 sshd 4000000000'))
    await measure('unban', () => world.run('unban --ip 192.0.2.7 --name sshd'))
    await measure('restore 50', () => sync(world, leases(50)))
    await measure('flush 50', () => flush(world))
    const thousand = `${leases(990)}${v6(10)}`
    await measure('restore 1000', () => sync(world, thousand))
    await measure('sync again', () => sync(world, thousand))
    await measure('flush 1000', () => flush(world))
  })
  return costs
}

async function costOfOriginal() {
  const costs: Record<string, { originalRequests: number; originalBytes: number }> = {}
  await inWorld({}, async (world) => {
    fill(world)
    const original = originalOn(world.sim)
    const measure = async (name: string, work: () => Promise<void>) => {
      const mark = world.sim.log.length
      await work()
      const { requests, bytes } = cost(world, mark)
      costs[name] = { originalRequests: requests, originalBytes: bytes }
    }
    const banAll = async (count: number) => {
      for (const line of leases(count).trim().split('\n'))
        await original.ban(line.split(' ')[0] ?? '')
    }
    await measure('start', () => original.start())
    await measure('ban', () => original.ban('192.0.2.7'))
    await measure('unban', () => original.unban('192.0.2.7'))
    await measure('restore 50', () => banAll(50))
    await measure('flush 50', () => original.flush())
  })
  return costs
}

/** A box of a big company: 10,000 hosts of others. */
function fill({ sim }: World): void {
  const host = { Description: '', IPFamily: 'IPv4', HostType: 'IP' }
  for (let i = 0; i < 10_000; i++) {
    const IPAddress = `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`
    addHost(sim.box, { ...host, Name: `pc ${i}`, IPAddress })
  }
}

function v6(count: number): string {
  return Array.from({ length: count }, (_, i) => `2001:db8::${i + 1} sshd 0\n`).join('')
}

test('sophosxg logs in with any password', async () => {
  const passwords = [
    'a&b',
    'a<b',
    'a#b',
    'a+b',
    'a%41b',
    'a"b',
    "a'b",
    ' a b ',
    '\ta\tb\t',
    'pässwörd€漢字',
    '&amp;#<]]>',
  ]
  for (const pass of passwords) {
    await inWorld({ simulator: { pass }, settings: { pass } }, async (world) => {
      await start(world)
      assert.match(world.sim.log[0]?.line ?? '', /^POST \/webconsole\/APIController$/)
    })
  }
})

test('sophosxg reads the password from pass_file', async () => {
  await inWorld({ simulator: { pass: 'from a file' } }, async (world) => {
    const file = join(world.dir, 'pass')
    writeFileSync(file, 'from a file\n', { mode: 0o600 })
    const config = world.configure({ pass: undefined, pass_file: file })
    assert.deepEqual(await world.run('start', { config }), OK)
  })
})

test('sophosxg serves several firewalls, and one that is dead keeps no other from being served', async () => {
  await inWorld({}, async (world) => {
    await start(world)
    const one = { user: 'apiuser', pass: 'secret', ca: world.sim.ca }
    const file = join(world.dir, 'two.yaml')
    const dead = { ...one, name: 'dead', url: 'https://127.0.0.1:1/webconsole/APIController' }
    const alive = { ...one, name: 'alive', url: world.sim.url }
    writeFileSync(file, JSON.stringify({ owner: 'web1', sophosxg: [dead, alive] }))
    const { code, stderr } = await world.run('ban --ip 192.0.2.7 --name sshd', { config: file })
    assert.equal(code, 69)
    assert.equal(
      stderr,
      'sophosxg: Cannot ban "192.0.2.7" on "dead": cannot connect: connection refused\n',
    )
    assert.equal(members(world).length, 1)
  })
})
