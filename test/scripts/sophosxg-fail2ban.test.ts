import assert from 'node:assert/strict'
import test from 'node:test'
import { demoSophosxg } from '../demo/sophosxg.ts'
import { waitUntil } from '../lib/wait.ts'
import { inFail2ban, stored } from '../simulators/sophosxg/fail2ban.ts'
import type { World } from '../simulators/sophosxg/world.ts'

test('through a real Fail2Ban', async (t) => {
  await inFail2ban({ pass: 'Ge&heim' }, async (world, fail2ban) => {
    await t.test('the commands of the document work', async () => {
      assert.equal(world.sim.box.groups.has('f2b_blockings'), true, 'made at the start of the jail')
      await fail2ban.client('set sshd banip 192.168.13.37')
      assert.deepEqual(members(world), ['f2b_sshd_192.168.13.37@web1'])
      assert.match(await fail2ban.client('status sshd'), /Banned IP list:\s+192\.168\.13\.37/)
      assert.match(await fail2ban.client('get sshd banip'), /192\.168\.13\.37/)
      await fail2ban.client('set sshd unbanip 192.168.13.37')
      assert.deepEqual(members(world), [])
      await fail2ban.client('set sshd banip 2001:db8::37')
      assert.deepEqual(members(world, 'f2b_blockings_v6'), ['f2b_sshd_2001:db8::37@web1'])
      const { stdout } = await world.run('list')
      const [, , expires] = stdout.split(' ')
      const left = Number(expires) - Date.now() / 1000
      assert.ok(left > 500 && left <= 601, `the ban time of the jail arrives: ${left}`)
      assert.doesNotMatch(fail2ban.log(), /ERROR/)
    })

    await t.test('a jail of the same address is on its own', async () => {
      await fail2ban.client('set sshd banip 192.168.13.37')
      await fail2ban.client('set nginx banip 192.168.13.37')
      await fail2ban.client('set sshd unbanip 192.168.13.37')
      assert.deepEqual(members(world), ['f2b_nginx_192.168.13.37@web1'])
    })

    await t.test('a group that an admin deletes is made again by the next ban', async () => {
      world.sim.box.groups.clear()
      await fail2ban.client('set sshd banip 192.168.13.37')
      assert.deepEqual(members(world), ['f2b_sshd_192.168.13.37@web1'])
    })

    await t.test('a refusal is one clear line in the log, without the password', async () => {
      world.sim.faults.ipRefused = true
      await fail2ban.client('set sshd banip 192.168.13.38')
      const said = /Cannot ban "192\.168\.13\.38" on "fw1": it does not let this server use the API/
      assert.match(fail2ban.log(), said)
      assert.doesNotMatch(fail2ban.log(), /heim|stderr: .*(Traceback| at )/)
    })
  })
})

test('a restart of a real Fail2Ban frees nobody, not for a moment', async () => {
  await inFail2ban({}, async (world, fail2ban) => {
    await fail2ban.client('set sshd banip 192.168.13.37')
    await stored(fail2ban)
    const mark = world.sim.log.length
    await fail2ban.client('restart')
    // Two starts and the restored ban; an unban of what Fail2Ban is still banning is lost in it.
    const ended = () => lastRun(fail2ban.log()).match(/returned successfully/g) ?? []
    await waitUntil(
      'the restored bans',
      () => /Restore Ban 192/.test(lastRun(fail2ban.log())) && ended().length >= 3,
    )
    assert.deepEqual(world.sim.writes(mark), [], 'what is in force is not written again')
    assert.deepEqual(members(world), ['f2b_sshd_192.168.13.37@web1'])
    await fail2ban.client('set sshd unbanip 192.168.13.37')
    assert.deepEqual(members(world), [], 'an unban works also after a restart')
  })
})

/** The log since Fail2Ban was started last. */
function lastRun(log: string): string {
  return log.split('Starting Fail2ban').at(-1) ?? ''
}

function members({ sim }: World, group = 'f2b_blockings'): string[] {
  return [...(sim.box.groups.get(group)?.members ?? [])]
}

test('the demo shows a ban arriving, a thousand restored, and what to click', async () => {
  const lines: string[] = []
  await demoSophosxg({ plain: (line) => void lines.push(line) })
  const text = lines.join('\n')
  assert.match(text, /fail2ban-client set sshd banip 192\.168\.13\.37/)
  assert.match(text, /f2b_sshd_192\.168\.13\.37@web1/)
  assert.match(text, /added 1000, extended 0, removed 3, unchanged 0/)
  assert.match(text, /added 0, extended 0, removed 0, unchanged 1000/)
  assert.match(text, /add the address of this server to "Allowed IP address"/)
})
