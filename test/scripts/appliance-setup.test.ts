import assert from 'node:assert/strict'
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { run } from '../../scripts/lib/run.ts'
import {
  CONFIG,
  inSite,
  MIKROTIK,
  OPNSENSE,
  SETUP,
  type Simulator,
  type Sort,
  usable,
} from '../lib/appliance-setup.ts'

/** Setting up takes root. */
const rooted = { skip: process.getuid?.() !== 0 && 'needs root' }

for (const sort of [MIKROTIK, OPNSENSE] as unknown as Sort<Simulator>[]) {
  const { section, login } = sort
  const [, extension, text] = login

  test(
    `f2b-setup ${section} writes what f2b-${section} then works with, once`,
    rooted,
    async () => {
      for (const trust of ['pin', 'ca']) {
        await inSite(sort, async (site) => {
          const { world, setup, read, pin, prefix } = site
          const given = `${trust === 'pin' ? `--pin ${pin}` : `--ca ${world.sim.ca}`} --owner web1`
          const { code, stdout, stderr } = await setup(given)
          assert.deepEqual([code, stderr], [0, ''])
          assert.match(stdout, new RegExp(`SHA-256 ${pin}`))
          assert.match(stdout, new RegExp(`banaction = ${section}-perimeter\n`))
          const config = read(CONFIG)
          assert.match(config, /^owner: web1$/m)
          const path = `/etc/fail2ban-perimeter/${section}-127.0.0.1.${extension}`
          assert.match(config, new RegExp(`^ {2}${extension}_file: ${path}$`, 'm'))
          assert.equal(read(path), text)
          assert.equal(statSync(join(prefix, path)).mode & 0o777, 0o600)
          assert.match(read(`etc/fail2ban/action.d/${section}-perimeter.conf`), /^actionban/m)
          assert.equal(
            `${stdout}${config}`.includes('heim'),
            false,
            'the secret is in its file only',
          )
          const made = usable(site)
          const silent = { code: 0, stdout: '', stderr: '' }
          assert.deepEqual(await world.run('check', { config: made }), silent)
          const ban = await world.run('ban --ip 192.0.2.7 --bantime 60', { config: made })
          assert.deepEqual(ban, silent)
          assert.deepEqual(world.sim.blocked(), ['192.0.2.7'])

          const again = await setup(given)
          assert.match(again.stdout, /nothing to change/)
          assert.equal(read(CONFIG), config)
          assert.deepEqual(world.sim.blocked(), ['192.0.2.7'])
        })
      }
    },
  )

  test(`f2b-setup ${section} takes a renewed certificate and keeps the rest`, rooted, async () => {
    await inSite(sort, async ({ setup, read, pin, prefix }) => {
      mkdirSync(join(prefix, 'etc/fail2ban-perimeter'), { recursive: true })
      const before = '# mine\nowner: web1 # and this\nfirewalls:\n  - host: edge1\n'
      writeFileSync(join(prefix, CONFIG), before, { mode: 0o600 })
      assert.equal((await setup(`--pin ${pin} --owner other`)).code, 0)
      const config = read(CONFIG)
      assert.equal(config.startsWith(before), true)
      const old = config.replace(pin, '00:'.repeat(32).slice(0, -1))
      writeFileSync(join(prefix, CONFIG), `# more\n${old}`)
      assert.equal((await setup(`--pin ${pin}`)).code, 0)
      assert.equal(read(CONFIG), `# more\n${config}`)
    })
  })

  test(`f2b-setup ${section} takes away what it made, secrets with --purge`, rooted, async () => {
    await inSite(sort, async ({ world, setup, pin, prefix }) => {
      assert.equal((await setup(`--pin ${pin} --owner web1`)).code, 0)
      const words = (more: string) => {
        const line = `${section} --prefix ${prefix} --uninstall ${more}`.trim()
        return run(process.execPath, [SETUP, ...line.split(' ')])
      }
      const mark = world.sim.log.length
      const [secret, action] = [
        join(prefix, `etc/fail2ban-perimeter/${section}-127.0.0.1.${extension}`),
        join(prefix, `etc/fail2ban/action.d/${section}-perimeter.conf`),
      ]
      const left = await words('')
      assert.deepEqual([left.code, left.stderr], [0, ''])
      assert.deepEqual([existsSync(secret), existsSync(action)], [true, false])
      const gone = await words('--purge')
      assert.deepEqual([gone.code, gone.stderr], [0, ''])
      assert.deepEqual([existsSync(secret), existsSync(join(prefix, CONFIG))], [false, false])
      assert.equal(world.sim.log.length, mark, 'the appliance is not asked')
    })
  })

  test(`f2b-setup ${section} changes nothing when something is wrong`, rooted, async () => {
    await inSite(sort, async ({ world, setup, prefix, pin }) => {
      const trials: [string, number, RegExp][] = [
        ['--owner web1', 64, /Cannot ask, this is no terminal: give --pin or --ca/],
        [`--pin ${'00:'.repeat(31)}00`, 77, /the certificate is not the one of --pin/],
        [`--pin ${pin} --title ${'x'.repeat(65)}`, 65, /name must be a short word/],
        [`--pin ${pin} --address 127.0.0.1:1`, 69, /Cannot connect/],
        [`--pin ${pin} --mode iplist`, 64, /Option --mode does not belong to/],
      ]
      for (const [args, code, sentence] of trials) {
        const ended = await setup(args)
        assert.equal(ended.code, code, `${args}: ${ended.stderr}`)
        assert.match(ended.stderr, sentence)
      }
      const dry = await setup(`--pin ${pin} --dry-run`)
      assert.deepEqual([dry.code, dry.stderr], [0, ''])
      assert.match(dry.stdout, /would create .*config.yaml/)
      assert.equal(existsSync(join(prefix, 'etc/fail2ban-perimeter')), false)
      assert.deepEqual(world.sim.writes(), [])
    })
  })
}

/** A login without the rights that bans take is told in one sentence, and nothing was changed. */
async function refused<S extends Simulator>(
  sort: Sort<S>,
  trials: [(sim: S) => unknown, RegExp][],
): Promise<void> {
  for (const [spoil, sentence] of trials) {
    await inSite(sort, async ({ world, setup, prefix, pin }) => {
      spoil(world.sim)
      const { code, stderr } = await setup(`--pin ${pin} --owner web1`)
      assert.equal(code, 77, stderr)
      assert.match(stderr, sentence)
      assert.match(stderr, /^setup: Nothing was changed: cannot use "127\.0\.0\.1": [^\n]+\n$/)
      assert.equal(stderr.includes('heim'), false)
      assert.equal(existsSync(join(prefix, 'etc/fail2ban-perimeter')), false)
      assert.deepEqual(world.sim.writes(), [])
    })
  }
}

test('f2b-setup mikrotik refuses a user who may not do what a ban takes', rooted, async () => {
  await refused(MIKROTIK, [
    [
      (sim) => Object.assign(sim, { pass: 'other' }),
      /user or password refused, or not from this address/,
    ],
    [
      (sim) => Object.assign(sim.faults, { lacks: 'rest-api' }),
      /its group needs read, write and rest-api/,
    ],
    [
      (sim) => Object.assign(sim.faults, { lacks: 'write' }),
      /its group needs read, write and rest-api/,
    ],
    [
      (sim) => Object.assign(sim.faults, { lacks: 'read' }),
      /its group needs read, write and rest-api/,
    ],
  ])
})

test('f2b-setup opnsense refuses a key that may not change tables', rooted, async () => {
  await refused(OPNSENSE, [
    [(sim) => Object.assign(sim, { key: 'other' }), /key refused \(HTTP 401\)/],
    [
      (sim) => Object.assign(sim.faults, { forbidden: true }),
      /lacks the privilege "Diagnostics: PF Table IP/,
    ],
  ])
})

test('f2b-setup mikrotik prints lines to paste, before the login and after', rooted, async () => {
  await inSite(MIKROTIK, async ({ world, setup, pin }) => {
    const { stdout } = await setup(`--pin ${pin} --owner web1 --list bad --list-v6 bad6`)
    const [before = '', after = ''] = stdout.split('logged in to 127.0.0.1 as f2b')
    assert.match(before, /^ {2}\/user group add name=f2b policy=read,write,rest-api$/m)
    assert.match(before, /^ {2}\/user add name=f2b group=f2b address=127.0.0.1 password=PASSWORD$/m)
    const rule = (menu: string, list: string) =>
      new RegExp(
        `^ {2}/${menu} firewall raw add .*prerouting src-address-list=${list} action=drop$`,
        'm',
      )
    assert.match(after, rule('ip', 'bad'))
    assert.match(after, rule('ipv6', 'bad6'))
    assert.deepEqual(
      [...world.sim.entries.values()].map(({ list, comment }) => [list, comment]),
      [['bad', 'f2b-marker web1']],
    )
    // Of a list that was emptied since, only a sync may say that it is whole again.
    world.sim.reboot()
    const again = await setup(`--pin ${pin}`)
    assert.match(again.stdout, /note: its list was emptied, by a reboot perhaps: f2b-sync fills it/)
    assert.doesNotMatch(again.stdout, /user group add/)
    assert.equal(world.sim.entries.size, 0)
  })
})

test('f2b-setup opnsense makes the alias, or says how if the key may not', rooted, async () => {
  await inSite(OPNSENSE, async (site) => {
    const { world, setup, pin } = site
    const { stdout } = await setup(`--pin ${pin} --owner mail.1`)
    assert.match(stdout, /made the alias "f2b_mail_1"/)
    assert.match(stdout, /Floating: a rule .*\n.* source "f2b_mail_1"/)
    assert.equal(world.sim.tables.get('f2b_mail_1')?.size, 1)
  })
  await inSite(OPNSENSE, async (site) => {
    const { world, setup, pin } = site
    world.sim.faults.noAliasEdit = true
    const { code, stdout } = await setup(`--pin ${pin} --owner mail1 --alias bad_ones`)
    assert.equal(code, 0)
    assert.match(stdout, /an alias "bad_ones" of type External \(advanced\), which the key may not/)
    assert.deepEqual(world.sim.writes(), [])
    world.sim.tables.set('bad_ones', new Set())
    const silent = { code: 0, stdout: '', stderr: '' }
    const config = usable(site)
    assert.deepEqual(await world.run('start', { config }), silent)
    assert.deepEqual(await world.run('check', { config }), silent)
    const again = await setup(`--pin ${pin}`)
    assert.match(again.stdout, /nothing to change\n[\s\S]*"bad_ones" is there/)
  })
})
